"""What every folder of tests shares."""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from recon_node.core.plugins import forget

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: programs that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")  # on a busy machine one example may take long

MAY_BE_ABSENT = re.compile(
    r"CUDA|docker compose|recorded session not here|the recording .* beside|measured k-space not here"
)
"""Reasons to skip that hold in CI, too: no graphics card, no Docker, recordings beside the repository."""


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """benchmarks/golden.py: weights by formula and comparisons with the golden files."""
    return importlib.import_module("benchmarks.golden")


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], bool]:
    """Whether a condition becomes true in time."""

    def wait(condition: Callable[[], object], seconds: float = 60.0) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        return bool(condition())

    return wait


@pytest.fixture(autouse=True)
def no_log_left_behind() -> Iterator[None]:
    """A log that a test set up writes to that test's stderr, which is closed when the next one runs."""
    yield
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def component() -> Callable[[str], str]:
    """Finds an installed program; without it tests are skipped, but fail in CI."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a package of one module, with its entry points, for this test only."""
    site = tmp_path / "site"
    modules: list[str] = []

    def package(name: str, code: str, *, version: str = "1.2", **entry_points: str) -> None:
        """Entry points are given by group, the dots as two underscores: ``recon_node__methods="x = m:X"``."""
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
        (site / f"{name}.py").write_text(code)
        groups = (f"[{group.replace('__', '.')}]\n{lines}\n" for group, lines in entry_points.items())
        (site / f"{name}-{version}.dist-info" / "entry_points.txt").write_text("".join(groups))
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (site / f"{name}-{version}.dist-info" / "top_level.txt").write_text(f"{name}\n")
        modules.append(name)
        forget()

    monkeypatch.syspath_prepend(site)
    yield package
    forget()
    for name in modules:
        sys.modules.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything is installed: there a test that is skipped for want of something fails."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not MAY_BE_ABSENT.search(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, where everything must be installed: {reason}"
    return report

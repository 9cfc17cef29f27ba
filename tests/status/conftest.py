from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser

from recon_node.settings import Settings
from recon_node.simulate import simulate_scan


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("scan") / "scan.h5"
    simulate_scan(raw, acceleration=4, pattern="random", coils=4, slices=2, phases=3, matrix=48, seed=5)
    return raw


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a node whose status page is on a free port."""

    def made(**server: object) -> Settings:
        folders = {"out": str(tmp_path / "dicom"), "deferred": str(tmp_path / "deferred")}
        ports = {"port": 0, "status_port": 0, "health_port": 0}
        quick = (
            Settings().replace("recon", method="sense").replace("server", **{**ports, **folders, **server})
        )
        return quick.replace("delivery", spool=str(tmp_path / "spool"))

    return made


@pytest.fixture
def browser(tmp_path: Path, component: Callable[[str], str]) -> Iterator[Browser]:
    with Browser(component("chromium"), tmp_path / "profile") as opened:
        yield opened

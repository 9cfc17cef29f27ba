"""What every folder of tests shares."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """benchmarks/golden.py: weights by formula and comparisons with the golden files."""
    return importlib.import_module("benchmarks.golden")


@pytest.fixture(scope="session")
def component() -> Callable[[str], str]:
    """Finds an installed program; without it tests are skipped, but fail in CI."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None and os.environ.get("CI"):
            pytest.fail(f"{name} is not installed: CI must have it")
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find

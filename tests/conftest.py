"""What every folder of tests shares."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """benchmarks/golden.py: weights by formula and comparisons with the golden files."""
    spec = importlib.util.spec_from_file_location("recon_node_golden", BENCHMARKS / "golden.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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

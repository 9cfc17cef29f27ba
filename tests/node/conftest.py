from __future__ import annotations

from pathlib import Path

import pytest

from recon_node.simulate import simulate_scan


@pytest.fixture(scope="session")
def heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Raw data of a small heart and its truth."""
    folder = tmp_path_factory.mktemp("heart")
    raw, truth = folder / "heart.h5", folder / "truth.h5"
    simulate_scan(
        raw, acceleration=8, pattern="random", coils=6, slices=2, phases=8, matrix=96, seed=77, truth=truth
    )
    return raw, truth

"""Prepared examples that are kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from recon_node.lab.training.config import DataConfig
from recon_node.lab.training.data import ExampleSet
from recon_node.lab.training.example import Example
from recon_node.lab.training.sources import SimulatorClips
from recon_node.solvers.kt import KtConfig

START = KtConfig(iterations=2, static_iterations=2)
SMALL: dict[str, Any] = {"matrix": (32, 32), "frames": 3, "coils": (2, 3), "acs": 12}


def examples(folder: Path | None, *, seed: int = 0, aligned: int = 3, **changes: Any) -> ExampleSet:
    config = DataConfig(**SMALL, pool=None if folder is None else str(folder), **changes)
    return ExampleSet(
        SimulatorClips(config), config, seed=seed, salt="training", start=START, aligned=aligned
    )


def assert_equal(a: Example, b: Example) -> None:
    for field in dataclasses.fields(Example):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("aligned", [0, 3])
def test_an_example_from_the_pool_is_the_one_that_would_be_made(tmp_path: Path, aligned: int) -> None:
    first = examples(tmp_path, aligned=aligned)[5]
    (file,) = tmp_path.rglob("*.pt")
    before = file.stat().st_mtime_ns
    assert_equal(examples(tmp_path, aligned=aligned)[5], first)
    assert file.stat().st_mtime_ns == before
    assert_equal(examples(None, aligned=aligned)[5], first)


def test_a_file_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    first = examples(tmp_path)[0]
    (file,) = tmp_path.rglob("*.pt")
    file.write_bytes(file.read_bytes()[:1000])
    assert_equal(examples(tmp_path)[0], first)
    assert_equal(examples(tmp_path)[0], first)


def test_other_settings_have_another_pool_and_other_use_the_same(tmp_path: Path) -> None:
    examples(tmp_path)[0]
    examples(tmp_path, workers=3, windows=2, rows=16)[0]
    assert len(list(tmp_path.rglob("*.pt"))) == 1
    for other in ({"seed": 1}, {"aligned": 0}, {"accelerations": (4.0,)}, {"hold_out_vendors": ("GE",)}):
        examples(tmp_path, **other)[0]  # type: ignore[arg-type]
    assert len(list(tmp_path.rglob("*.pt"))) == 5

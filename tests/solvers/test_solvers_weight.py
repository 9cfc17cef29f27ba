"""The weight of SENSE: near the best one, and in the units of the data."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from recon_node.simulate.example import Example, draw_example
from recon_node.simulate.masks import draw_mask
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.tikhonov import tikhonov
from recon_node.solvers.weight import tikhonov_weight

WEIGHTS = np.geomspace(1e-4, 0.5, 16)


@lru_cache
def _heart(snr_scale: float) -> Example:
    return draw_example(
        np.random.default_rng(11),
        matrix=(96, 96),
        phases=2,
        coils=12,
        modality="cine",
        view="short-axis",
        snr_scale=snr_scale,
    )


def _maps(example: Example) -> NDArray[np.complex64]:
    """`(1, coil, y, x)`, 0 a few pixels outside the body, as calibration leaves them."""
    seen = gaussian_filter(np.abs(example.images).mean(axis=0), 1.5)
    body = binary_dilation(seen > 0.05 * np.quantile(seen, 0.99), iterations=3)
    return np.where(body, example.maps, np.complex64(0))[None]


def _error(example: Example, data: NDArray[np.complex64], mask: NDArray[np.bool_], weight: float) -> float:
    operator = SenseOperator(_maps(example), mask, torch.device("cpu"))
    images = operator.to_grid(tikhonov(operator, operator.matched(data), weight, iterations=60))
    return float(20 * np.log10(np.linalg.norm(np.abs(images[:, 0]) - np.abs(example.images))))


@pytest.mark.parametrize("snr_scale", [0.3, 1.0])
@pytest.mark.parametrize(
    ("pattern", "acceleration"), [("uniform", 4), ("uniform", 8), ("random", 8), ("radial", 8)]
)
def test_no_other_weight_is_much_better_even_on_drawn_hearts(
    pattern: str, acceleration: int, snr_scale: float
) -> None:
    example = _heart(snr_scale)
    mask = draw_mask(pattern, acceleration, shape=(2, 96, 96), acs=16, rng=np.random.default_rng(1))
    data = (example.kspace * mask[:, None]).astype(np.complex64)
    chosen = tikhonov_weight(data, mask, _maps(example))
    best = min(_error(example, data, mask, float(weight)) for weight in WEIGHTS)
    assert _error(example, data, mask, chosen) < best + 0.5


def test_small_weights_are_told_apart_by_exact_solves_as_sense_has_them() -> None:
    entropy = [0x48454C44, 0x4F5554, 3, 2]
    example = draw_example(
        np.random.default_rng(entropy), matrix=(128, 128), phases=2, coils=16, modality="cine"
    )
    mask = draw_mask("random", 8, shape=(2, 128, 128), acs=20, rng=np.random.default_rng([*entropy, 1]))
    data = (example.kspace * mask[:, None]).astype(np.complex64)
    best = min(_error(example, data, mask, float(weight)) for weight in WEIGHTS)
    chosen = tikhonov_weight(data, mask, _maps(example))
    assert _error(example, data, mask, chosen) < best + 0.8  # 1.2 with the Krylov space alone


def test_the_weight_depends_on_signal_over_noise_only() -> None:
    example = _heart(1.0)
    mask = draw_mask("random", 4, shape=(2, 96, 96), acs=16, rng=np.random.default_rng(1))
    data = (example.kspace * mask[:, None]).astype(np.complex64)
    weight = tikhonov_weight(data, mask, _maps(example))
    scaled = tikhonov_weight(np.complex64(50) * data, mask, _maps(example), unit=50.0)
    assert scaled == pytest.approx(weight, rel=1e-3)
    assert tikhonov_weight(data, mask, _maps(example), unit=4.0) > 3 * weight


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e15])
def test_the_weight_stays_within_bounds_whatever_the_data(scale: float) -> None:
    mask = np.ones((1, 16, 16), np.bool_)
    data = np.full((1, 4, 16, 16), scale, np.complex64)
    assert 1e-4 <= tikhonov_weight(data, mask, np.zeros((1, 4, 16, 16), np.complex64)) <= 0.5

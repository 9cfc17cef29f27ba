"""The second pass of k-t sparse SENSE: what it learns from the first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recon_node.core.errors import ConfigError
from recon_node.core.fft import centred_fft
from recon_node.simulate.example import draw_example
from recon_node.simulate.masks import draw_mask
from recon_node.solvers.kt import KtConfig, kt_images
from recon_node.solvers.planes import in_planes
from recon_node.solvers.spectrum import edge_weights, spectral_prior, temporal_power

FRAMES, SIDE = 12, 24


def _beating() -> torch.Tensor:
    """`(frame, map, x, y)`: a still body in whose middle a disc brightens and darkens once."""
    across = np.linspace(-1, 1, SIDE)
    radius = np.hypot(across[:, None], across[None])
    still = np.where(radius < 0.8, 20.0, 0.0)
    beat = np.where(radius < 0.3, 8.0, 0.0)
    frames = still + np.sin(2 * np.pi * np.arange(FRAMES) / FRAMES)[:, None, None] * beat
    return torch.from_numpy(frames.astype(np.complex64))[:, None]


def test_power_is_found_where_and_at_the_frequency_at_which_the_object_moves() -> None:
    power = temporal_power(_beating())
    middle, rim = (SIDE // 2, SIDE // 2), (SIDE // 2, 4)
    assert power[1, 0][middle] > 100
    assert power[1, 0][middle] == pytest.approx(float(power[-1, 0][middle]), rel=1e-4)
    assert power[2:-1].max() < 1e-3
    assert power[1:, 0][(slice(None), *rim)].max() < 1e-3


def test_noise_is_shrunk_where_the_first_estimate_stands_still_and_kept_where_it_beats() -> None:
    images = _beating()
    flat = (torch.full((SIDE, SIDE), 1e-6), torch.full((SIDE, SIDE), 1e-6))
    step = in_planes(spectral_prior(images, floor=0.2, edges=flat, noise=1.0)(1.0))
    noisy = images + torch.randn(images.shape, dtype=images.dtype, generator=torch.Generator().manual_seed(1))
    out = step(noisy)
    left, before = (out - images)[:, 0], (noisy - images)[:, 0]
    assert left[:, :4].std() < 0.4 * before[:, :4].std()
    beat = (
        torch.fft.fft(out[:, 0, SIDE // 2, SIDE // 2])[1]
        / torch.fft.fft(noisy[:, 0, SIDE // 2, SIDE // 2])[1]
    )
    assert abs(beat) > 0.9


def test_the_time_average_is_left_alone() -> None:
    images = _beating()
    none = (torch.full((SIDE, SIDE), 1e-9), torch.full((SIDE, SIDE), 1e-9))
    prior = spectral_prior(torch.zeros_like(images), floor=0.0, edges=none, noise=1.0)
    out = in_planes(prior(1.0))(images)
    torch.testing.assert_close(out.mean(dim=0), images.mean(dim=0), rtol=1e-4, atol=1e-4)


def test_total_variation_is_weaker_across_an_edge_only() -> None:
    images = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.complex64)
    images[..., SIDE // 2 :, :] = 10
    along_x, along_y = edge_weights(images, 0.1, 1.0)
    assert along_x[SIDE // 2 - 1].max() < 0.03
    assert along_x[4].min() == pytest.approx(0.1)
    assert along_y.min() == pytest.approx(0.1)


@pytest.mark.parametrize("pattern", ["uniform", "random", "radial"])
def test_the_second_pass_brings_a_drawn_heart_nearer_to_the_truth(pattern: str) -> None:
    example = draw_example(
        np.random.default_rng(5), matrix=(96, 96), phases=12, coils=8, modality="cine", view="short-axis"
    )
    mask = draw_mask(pattern, 8, shape=(12, 96, 96), acs=16, rng=np.random.default_rng(1))
    data = (example.kspace * mask[:, None]).astype(np.complex64)

    def error(config: KtConfig) -> float:
        images = kt_images(data, mask, example.maps[None], config, torch.device("cpu"))
        return float(np.linalg.norm(images - example.images))

    assert error(KtConfig()) < 0.96 * error(KtConfig(refinements=0, unfolding_refinements=0))


def test_the_second_pass_scales_with_the_data_and_their_noise() -> None:
    rng = np.random.default_rng(2)
    images = _beating()[:, 0].numpy()
    maps = np.full((1, 1, SIDE, SIDE), 1, np.complex64)
    mask = draw_mask("random", 2, shape=(FRAMES, SIDE, SIDE), acs=8, rng=rng)
    data = (centred_fft(images[:, None]) * mask[:, None]).astype(np.complex64)
    one, thousand = (
        kt_images(np.complex64(unit) * data, mask, maps, KtConfig(), torch.device("cpu"), unit=unit)
        for unit in (1.0, 1000.0)
    )
    np.testing.assert_allclose(thousand / 1000, one, atol=0.02 * np.abs(one).max())


@pytest.mark.parametrize(
    "settings",
    [{"refinements": -1}, {"refinements": 1.5}, {"floor": -0.1}, {"edge": float("nan")}, {"edge_scale": 0}],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        KtConfig(**settings)  # type: ignore[arg-type]

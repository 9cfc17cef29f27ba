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
from recon_node.solvers.learned import edge_weights, learned_prior, smooth_phase
from recon_node.solvers.planes import in_planes

FRAMES, SIDE = 12, 24


def _beating() -> torch.Tensor:
    """`(frame, map, x, y)`: a still body in whose middle a disc brightens and darkens once."""
    across = np.linspace(-1, 1, SIDE)
    radius = np.hypot(across[:, None], across[None])
    still = np.where(radius < 0.8, 20.0, 0.0)
    beat = np.where(radius < 0.3, 8.0, 0.0)
    frames = still + np.sin(2 * np.pi * np.arange(FRAMES) / FRAMES)[:, None, None] * beat
    return torch.from_numpy(frames.astype(np.complex64))[:, None]


def _noise(like: torch.Tensor, seed: int = 1) -> torch.Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(seed))


def _step(images: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One proximal step on `x` of what `images` teach, next to no total variation in it."""
    flat = (torch.full(images.shape[-2:], 1e-6), torch.full(images.shape[-2:], 1e-6))
    return in_planes(learned_prior(images, floor=0.2, edges=flat, noise=1.0, imaginary=0.5)(1.0))(x)


def test_what_a_place_does_in_some_frames_is_kept_there_and_nowhere_else() -> None:
    flash = torch.zeros(FRAMES, 1, 56, 56, dtype=torch.complex64)
    flash[3:5, :, 8:16, 8:16] = 1
    images = 20 + 2 * flash
    still = _step(images, images)
    kept, moved, shifted = (
        (_step(images, images + one) - still).real.amax()
        for one in (flash, flash.roll(28, -1), flash.roll(5, 0))
    )
    assert kept > 0.75
    assert moved < 0.3
    assert shifted < 0.8 * kept


def test_noise_beside_the_smooth_phase_is_shrunk_and_the_phase_stays() -> None:
    ramp = torch.linspace(0, 2, SIDE)
    images = _beating() * torch.polar(torch.ones(SIDE), ramp)
    noisy = images + _noise(images)
    out = _step(images, noisy) * torch.polar(torch.ones(SIDE), -ramp)
    middle = (slice(None), 0, slice(8, 16), slice(8, 16))
    assert out[middle].imag.std() < 0.4 * noisy[middle].imag.std()
    assert (_step(images, images) - images)[middle].abs().max() < 0.5


def test_a_phase_that_is_not_smooth_is_kept_where_the_estimate_shows_it() -> None:
    images = _beating()
    images[..., 9:15, 9:15] *= np.exp(2j)  # as of fat among water
    assert (_step(images, images) - images).abs().max() < 0.02 * images.abs().max()


def test_smooth_phases_are_found_and_nothing_has_none() -> None:
    ramp = torch.linspace(-1, 1, SIDE)[:, None].expand(SIDE, SIDE)
    images = torch.polar(torch.full((2, 1, SIDE, SIDE), 3.0), ramp.expand(2, 1, SIDE, SIDE))
    found = smooth_phase(images)
    assert found[0, 0, 9:15].angle() == pytest.approx(ramp[9:15], abs=0.01)
    torch.testing.assert_close(smooth_phase(0 * images), torch.ones_like(images))


@pytest.mark.parametrize(("frames", "size"), [(2, (17, 23)), (25, (24, 26)), (60, (19, 24)), (110, (33, 20))])
def test_series_of_any_length_and_size_stay_as_they_are_where_they_are_as_expected(
    frames: int, size: tuple[int, int]
) -> None:
    turn = 2 * np.pi * torch.arange(frames) / frames
    images = (20 + 8 * torch.sin(turn))[:, None, None, None].expand(frames, 2, *size).to(torch.complex64)
    out = _step(images, images)
    assert out.shape == images.shape
    assert (out - images).abs().max() < 0.5


def test_noise_is_shrunk_where_the_first_estimate_stands_still_and_kept_where_it_beats() -> None:
    images = _beating()
    flat = (torch.full((SIDE, SIDE), 1e-6), torch.full((SIDE, SIDE), 1e-6))
    step = in_planes(learned_prior(images, floor=0.2, edges=flat, noise=1.0, imaginary=0.5)(1.0))
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
    prior = learned_prior(torch.zeros_like(images), floor=0.0, edges=none, noise=1.0, imaginary=0.5)
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


@pytest.mark.parametrize("times", [1e4, 1e6])
def test_a_signal_far_above_the_noise_is_kept_for_all_the_rounding_of_its_covariances(times: float) -> None:
    """Frames up to this many times as bright as the first: rounding leaves eigenvalues below 0."""
    brighter = torch.linspace(1, times, FRAMES, dtype=torch.complex64)[:, None, None, None]
    images = _beating() * brighter + _noise(_beating())
    found = _step(images, images)
    assert bool(torch.isfinite(torch.view_as_real(found)).all())
    assert float((found - images).norm() / images.norm()) < 0.01


def test_an_estimate_that_is_not_finite_gives_none_that_is() -> None:
    images = _beating()
    images[3, 0, 4, 4] = torch.nan
    assert not bool(torch.isfinite(torch.view_as_real(_step(images, _beating()))).all())


@pytest.mark.parametrize("pattern", ["uniform", "random"])
def test_images_stay_as_they_are_where_there_is_next_to_no_noise(pattern: str) -> None:
    """As of simulated data: weights that noise decides would vanish beside the rounding of the data."""
    rng = np.random.default_rng(3)
    heart = draw_example(rng, matrix=(48, 48), phases=8, coils=4, modality="cine")
    mask = draw_mask(pattern, 4, shape=(8, 48, 48), acs=12, rng=rng)
    clean = (centred_fft(heart.maps * heart.images[:, None]) * mask[:, None]).astype(np.complex64)
    noise = (heart.kspace * mask[:, None] - clean).astype(np.complex64)
    errors = []
    for times in (1.0, 1e3, 1e6):
        device, data = torch.device("cpu"), (clean + noise / times).astype(np.complex64)
        made = kt_images(data, mask, heart.maps[None], KtConfig(), device, unit=1 / times)
        errors.append(np.linalg.norm(made - heart.images) / np.linalg.norm(heart.images))
    assert max(errors[1:]) <= 1.5 * errors[0]
    assert errors[2] == pytest.approx(errors[1], rel=0.01)

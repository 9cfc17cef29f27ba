"""Cines as scans: what is given back to magnitude images, and what augmentation may change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_ifft
from recon_node.simulate import draw_example
from recon_node.simulate.augment import augmented
from recon_node.simulate.cine import Cine, heart_window, scan_of_cine, scan_window

FRAMES, NY, NX = 8, 72, 96


def cine(*, row: float = 40, column: float = 44, **changes: object) -> Cine:
    """A disc that beats at (row, column) in a body that does not."""
    y, x = np.mgrid[:NY, :NX]
    radius = 9 + 3 * np.cos(2 * np.pi * np.arange(FRAMES) / FRAMES)[:, None, None]
    body = 120.0 * (((y - NY / 2) / 30) ** 2 + ((x - NX / 2) / 42) ** 2 < 1)
    images = body + 500 * (np.hypot(y - row, x - column) < radius)
    return Cine(**{"images": images.astype(np.float32), "pixel_mm": (2.0, 2.0), "field_t": 1.5, **changes})  # type: ignore[arg-type]


def test_a_scan_shows_the_magnitudes_of_its_cine_and_noise_of_unit_variance() -> None:
    heart = cine()
    scan = scan_of_cine(np.random.default_rng(0), heart, coils=6, snr=30)
    ratio = np.abs(scan.images).sum() / heart.images.sum()
    np.testing.assert_allclose(np.abs(scan.images), ratio * heart.images, atol=1e-3)
    np.testing.assert_allclose(np.sum(np.abs(scan.maps) ** 2, axis=0), 1, atol=1e-4)
    left = centred_ifft(scan.kspace) - scan.maps * scan.images[:, None]
    assert np.mean(np.abs(left) ** 2) == pytest.approx(1, rel=0.02)


def test_the_signal_of_the_heart_is_what_was_asked_for() -> None:
    heart = cine()
    scan = scan_of_cine(np.random.default_rng(0), heart, coils=6, snr=25)
    rows, columns = heart_window(heart.images, heart.pixel_mm)
    part = np.sort(np.abs(scan.images)[:, rows, columns], axis=None)
    assert part[-part.size // 10 :].mean() == pytest.approx(25, rel=0.01)


def test_the_phase_is_smooth_in_the_body_and_changes_over_the_cycle() -> None:
    images = scan_of_cine(np.random.default_rng(1), cine(), coils=6).images
    steps = np.angle(images[:, 30:42, 40:60] * images[:, 30:42, 39:59].conj())
    assert np.quantile(np.abs(steps), 0.9) < 0.3  # but where blood meets muscle
    turned = np.angle(images[3] * images[0].conj())[36:44, 40:48]
    assert np.abs(turned).max() > 0.01


def test_lines_lie_along_the_axis_of_coarser_pixels() -> None:
    across = scan_of_cine(np.random.default_rng(0), cine(pixel_mm=(1.4, 1.9)), coils=4)
    assert across.images.shape == (FRAMES, NX, NY)
    assert across.pixel_mm == (1.9, 1.4)
    along = scan_of_cine(np.random.default_rng(0), cine(pixel_mm=(1.9, 1.4)), coils=4)
    assert along.images.shape == (FRAMES, NY, NX)


@given(row=st.floats(30, 45), column=st.floats(36, 58))
@settings(max_examples=15, deadline=None)
def test_the_window_lies_around_what_moves(row: float, column: float) -> None:
    rows, columns = heart_window(cine(row=row, column=column).images, (2.0, 2.0), side=40)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (40, 40)
    assert rows.start <= row - 8
    assert row + 8 <= rows.stop
    assert columns.start <= column - 8
    assert column + 8 <= columns.stop


@pytest.mark.parametrize("seed", [11, 12])
def test_the_window_of_a_drawn_heart_that_breathes_holds_its_ventricles(seed: int) -> None:
    scan = draw_example(
        np.random.default_rng(seed), matrix=(96, 96), phases=8, coils=2, modality="cine", breathing_mm=5.0
    )
    ventricles = (scan.lv + scan.rv).sum(axis=0)

    def share(window: tuple[slice, slice]) -> float:
        return float(ventricles[window].sum() / ventricles.sum())

    assert share(heart_window(scan.images, scan.pixel_mm, 32)) < 0.5  # what moves most is something else
    assert share(scan_window(scan, 32)) > 0.99


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_an_augmented_heart_is_a_cine_of_about_the_same_size_and_brightness(seed: int) -> None:
    heart = cine()
    other = augmented(np.random.default_rng(seed), heart, frames=6)
    assert other.images.shape[0] == 6
    assert sorted(other.images.shape[1:]) == [NY, NX]
    assert 0.4 < other.images.mean() / heart.images.mean() < 2.5
    assert not np.array_equal(other.images[: min(6, FRAMES)], heart.images[:6])


def test_the_same_seed_gives_the_same_scan() -> None:
    one, two = (scan_of_cine(np.random.default_rng(3), cine()) for _ in range(2))
    np.testing.assert_array_equal(one.kspace, two.kspace)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.ones((1, 40, 40)), "one frame"),
        (np.ones((4, 40)), "shape"),
        (np.ones((4, 8, 40)), "shape"),
        (-np.ones((4, 40, 40)), "not negative"),
    ],
)
def test_what_is_no_cine_is_refused(images: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        cine(images=images.astype(np.float32))

from __future__ import annotations

import numpy as np
import pytest
from images_samples import make

from recon_node.core.errors import UnsupportedScan
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import ImageSeries
from recon_node.images import covered_part, fill_partial_fourier
from recon_node.prep import classify_sampling

SHAPE = (64, 48)
EVERYTHING = (slice(0, 64), slice(0, 48))


def truth() -> np.ndarray:
    """Sharp edges with a smooth phase, two phases of the heart."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    y, x = (y - SHAPE[0] / 2) / SHAPE[0], (x - SHAPE[1] / 2) / SHAPE[1]
    body = 1.0 * (np.hypot(y / 0.8, x) < 0.4) + 1.0 * ((np.abs(y - 0.1) < 0.07) & (np.abs(x) < 0.2))
    return np.stack([body * np.exp(1j * (1 + 2 * x + y)), body * (1 + x) * np.exp(-1j * y)])


def partial(covered: tuple[slice, slice]) -> ImageSeries:
    kspace = centred_fft(truth())
    kept = np.zeros_like(kspace)
    kept[:, covered[0], covered[1]] = kspace[:, covered[0], covered[1]]
    return make(centred_ifft(kept))


def error(images: ImageSeries) -> float:
    return float(np.linalg.norm(np.abs(images.data) - np.abs(truth())) / np.linalg.norm(truth()))


@pytest.mark.parametrize("method", ["homodyne", "pocs"])
@pytest.mark.parametrize(
    "covered",
    [
        (slice(0, 44), slice(0, 48)),
        (slice(20, 64), slice(0, 48)),
        (slice(0, 64), slice(12, 48)),
        (slice(0, 48), slice(8, 48)),
    ],
)
def test_the_missing_side_is_filled_from_symmetry(method: str, covered: tuple[slice, slice]) -> None:
    images = partial(covered)
    filled = fill_partial_fourier(images, covered, method=method)  # type: ignore[arg-type]
    assert error(filled) < 0.75 * error(images)
    assert filled.made_by.settings["partial_fourier"] == method


def test_pocs_keeps_what_was_covered() -> None:
    covered = (slice(0, 44), slice(0, 48))
    images = partial(covered)
    filled = centred_fft(fill_partial_fourier(images, covered).data)
    np.testing.assert_allclose(filled[:, :44], centred_fft(images.data)[:, :44], atol=1e-4)
    assert np.abs(filled[:, 44:]).max() > 0.1


def test_complete_kspace_stays_the_same_object() -> None:
    images = partial(EVERYTHING)
    assert fill_partial_fourier(images, EVERYTHING) is images


def test_a_centre_at_the_edge_and_magnitudes_are_refused() -> None:
    with pytest.raises(UnsupportedScan, match="both sides"):
        fill_partial_fourier(partial(EVERYTHING), (slice(0, 33), slice(0, 48)))
    with pytest.raises(UnsupportedScan, match="magnitudes"):
        fill_partial_fourier(make(np.abs(truth())), (slice(0, 44), slice(0, 48)))


@pytest.mark.parametrize("spacing", [1, 2, 4])
def test_gaps_of_the_pattern_belong_to_the_covered_part(spacing: int) -> None:
    mask = np.zeros((3, *SHAPE), dtype=bool)
    mask[:, 0:44:spacing, 10:] = True
    mask[:, 24:40, 10:] = True
    rows, columns = covered_part(mask, classify_sampling(mask))
    assert (rows.start, columns) == (0, slice(10, 48))
    assert 44 - spacing < rows.stop <= 44


def test_a_margin_left_unsampled_by_chance_is_not_a_missing_side() -> None:
    mask = np.zeros((1, *SHAPE), dtype=bool)
    mask[:, 2::4] = True
    mask[:, 24:40] = True
    assert covered_part(mask, classify_sampling(mask)) == EVERYTHING

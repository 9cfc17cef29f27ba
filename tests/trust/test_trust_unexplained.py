"""The map of signal that an image leaves unexplained."""

from __future__ import annotations

import numpy as np
import pytest

from recon_node import kspace_from_arrays
from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft
from recon_node.core.types import CoilMaps, KSpace
from recon_node.trust.unexplained import unexplained_signal

PHASES, SIZE = 40, 24


@pytest.fixture
def maps() -> CoilMaps:
    y, x = np.indices((SIZE, SIZE)) / SIZE
    raw = np.stack([1.2 - y, 0.2 + y, 0.5 + 0.5j * x, 0.6 - 0.4j * x]).astype(np.complex64)
    data = raw / np.sqrt(np.sum(np.abs(raw) ** 2, axis=0))
    return CoilMaps(data=data[None], support=np.ones((SIZE, SIZE), np.bool_))


def scan(maps: CoilMaps, step: int) -> tuple[KSpace, np.ndarray]:
    """Noisy k-space of a bright square, every `step`-th line; and the true images."""
    rng = np.random.default_rng(2)
    truth = np.zeros((PHASES, SIZE, SIZE), np.complex64)
    truth[:, 6:18, 6:18] = 50
    data = centred_fft(maps.data[0] * truth[:, None])
    data += np.sqrt(0.5) * (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape))
    mask = np.zeros(SIZE, np.bool_)
    mask[::step] = True
    return kspace_from_arrays(data, mask, whitened=True), truth


def test_what_noise_alone_leaves_unexplained_is_one(maps: CoilMaps) -> None:
    kspace, truth = scan(maps, 2)
    left = unexplained_signal(truth, kspace, maps)
    assert left.mean() == pytest.approx(1.0, abs=0.03)


def test_an_image_that_is_wrong_leaves_signal_where_it_is_wrong(maps: CoilMaps) -> None:
    kspace, truth = scan(maps, 2)
    wrong = truth.copy()
    wrong[:, 8:12, 8:12] *= 0.7
    left = unexplained_signal(wrong, kspace, maps)
    assert left[8:12, 8:12].min() > 4
    assert np.median(left) < 2


def test_images_on_another_grid_are_refused(maps: CoilMaps) -> None:
    kspace, truth = scan(maps, 2)
    with pytest.raises(DataError, match="grid"):
        unexplained_signal(truth[:, 2:], kspace, maps)

"""Maps of noise, and of signal that an image leaves unexplained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon_node import kspace_from_arrays
from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.methods.sense import Sense
from recon_node.trust.pixelwise import g_factor, noise_response, unexplained_signal

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


def sense(maps: CoilMaps):
    method = Sense(regularisation=1e-4, iterations=200)
    return lambda kspace: method.reconstruct(kspace, maps, None)


def test_full_sampling_has_a_g_factor_of_one(maps: CoilMaps) -> None:
    kspace, _ = scan(maps, 1)
    response = noise_response(kspace, sense(maps)).data
    np.testing.assert_allclose(g_factor(response, 1.0), 1.0, atol=0.2)
    assert g_factor(response, 1.0).mean() == pytest.approx(1.0, abs=0.02)


def test_the_g_factor_is_that_of_pruessmanns_formula(maps: CoilMaps) -> None:
    kspace, _ = scan(maps, 2)
    found = g_factor(noise_response(kspace, sense(maps)).data, 2.0)
    wanted = np.empty((SIZE, SIZE))
    for y in range(SIZE):
        for x in range(SIZE):
            folded = maps.data[0][:, [y, (y + SIZE // 2) % SIZE], x]
            normal = folded.conj().T @ folded
            wanted[y, x] = np.sqrt((np.linalg.inv(normal)[0, 0] * normal[0, 0]).real)
    assert wanted.max() > 1.2
    np.testing.assert_allclose(found, wanted, rtol=0.2)
    assert (found / wanted).mean() == pytest.approx(1.0, abs=0.03)


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


def test_the_measured_data_stay_as_they_are(maps: CoilMaps) -> None:
    kspace, _ = scan(maps, 2)
    before = kspace.data.copy()

    def identity(part: KSpace) -> ImageSeries:
        made = sense(maps)(part)
        return replace(made, data=part.data[:, 0])

    added = noise_response(kspace, identity).data
    np.testing.assert_array_equal(kspace.data, before)
    assert not added[~kspace.mask].any()
    assert np.mean(np.abs(added[kspace.mask]) ** 2) == pytest.approx(1.0, abs=0.02)

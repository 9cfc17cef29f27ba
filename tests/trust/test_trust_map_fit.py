"""What coil maps miss of a calibration: nothing where they are right, much where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recon_node.coils import espirit
from recon_node.core.fft import centred_ifft
from recon_node.core.grid import central
from recon_node.simulate import draw_example
from recon_node.trust.map_fit import MapFit


def unexplained(calibration, maps, *, noise):
    return MapFit(maps, calibration.shape[1:]).unexplained(calibration, noise=noise)


SHARED = Path(__file__).parents[3] / "shared" / "data"


def central_block(kspace, side):
    return kspace[(slice(None), *(central(size, side) for size in kspace.shape[1:]))]


@pytest.fixture(scope="module")
def heart():
    return draw_example(np.random.default_rng(4), matrix=(96, 96), phases=1, coils=10, modality="cine")


@pytest.mark.parametrize("side", [12, 20, 23])
def test_the_true_maps_explain_the_calibration_however_short_it_is(heart, side):
    calibration = central_block(heart.kspace[0], side)
    assert unexplained(calibration, heart.maps[None], noise=1.0) < 0.02
    cut = np.zeros(heart.maps.shape, np.complex64)
    cut[(slice(None), central(96, side), central(96, side))] = calibration
    images = centred_ifft(cut)
    beside = images - heart.maps * np.sum(heart.maps.conj() * images, axis=0)
    assert np.linalg.norm(beside) > 0.05 * np.linalg.norm(images)  # what a projection holds against them


def test_maps_of_another_array_or_moved_ones_do_not(heart):
    calibration = central_block(heart.kspace[0], 20)
    good = unexplained(calibration, heart.maps[None], noise=1.0)
    other = np.roll(heart.maps, 1, axis=0)[None]
    moved = np.roll(heart.maps, 8, axis=1)[None]
    assert unexplained(calibration, other, noise=1.0) > 0.3
    assert unexplained(calibration, moved, noise=1.0) > max(0.05, 3 * good)


def test_noise_is_no_fault_of_the_maps(heart):
    rng = np.random.default_rng(0)
    noise = 30.0
    drawn = rng.normal(scale=noise / np.sqrt(2), size=(2, *heart.kspace[0].shape))
    calibration = central_block(heart.kspace[0] + drawn[0] + 1j * drawn[1], 20)
    unknown = unexplained(calibration, heart.maps[None], noise=None)
    assert unknown > 0.03
    assert unexplained(calibration, heart.maps[None], noise=noise) < 0.5 * unknown


def test_silence_says_nothing(heart):
    assert unexplained(np.zeros((10, 20, 20), np.complex64), heart.maps[None], noise=None) is None


@pytest.mark.skipif(not SHARED.exists(), reason="measured k-space not here")
def test_maps_of_measured_data_explain_it():
    stored = np.load(SHARED / "real_ge.npz")["k"]
    kspace = (stored[..., 0] + 1j * stored[..., 1]).astype(np.complex64)
    for one in (kspace[0], kspace[3], np.load(SHARED / "cartesian_ksp.npy")):
        calibration = central_block(one, 20)
        maps = espirit(calibration, one.shape[1:])
        assert unexplained(calibration, maps.data, noise=None) < 0.03
        assert unexplained(calibration, np.roll(maps.data, 1, axis=1), noise=None) > 0.5

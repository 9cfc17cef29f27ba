from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon_node import g_factor, kspace_from_arrays, noise_deviation
from recon_node.core.errors import DataError
from recon_node.core.types import CoilMaps
from recon_node.methods.sense import Sense
from recon_node.solvers.noise import snr

NY, NX, COILS = 24, 20, 6


def a_scan(step=3, phases=2, acs=6):
    rng = np.random.default_rng(4)
    y, x = np.meshgrid(np.linspace(-1, 1, NY), np.linspace(-1, 1, NX), indexing="ij")
    angles = np.linspace(0, 2 * np.pi, COILS, endpoint=False)
    coils = np.stack([np.exp(-((y - 1.2 * np.sin(a)) ** 2) - (x - 1.2 * np.cos(a)) ** 2) for a in angles])
    coils = coils * np.exp(1j * angles)[:, None, None]
    coils /= np.sqrt(np.sum(np.abs(coils) ** 2, axis=0))
    mask = np.zeros((phases, NY, NX), bool)
    mask[:, ::step] = True
    mask[:, NY // 2 - acs // 2 : NY // 2 + acs // 2] = True
    data = rng.normal(size=(phases, COILS, NY, NX)).astype(np.complex64) * mask[:, None]
    kspace = dataclasses.replace(kspace_from_arrays(data, mask), whitened=True)
    maps = CoilMaps(data=coils[None].astype(np.complex64), support=np.ones((NY, NX), bool))
    return kspace, maps


def test_the_noise_map_is_the_scatter_of_many_noisy_images():
    kspace, maps = a_scan()
    expected = noise_deviation(kspace, maps, weight=0.05)
    rng = np.random.default_rng(0)
    sense = Sense(regularisation=0.05, device="cpu")
    power = np.zeros(expected.shape)
    for _ in range(300):
        noise = rng.normal(size=(2, *kspace.data.shape)) / np.sqrt(2)
        data = ((noise[0] + 1j * noise[1]) * kspace.mask[:, None]).astype(np.complex64)
        image = sense.reconstruct(dataclasses.replace(kspace, data=data), maps, None).data
        power += np.abs(image) ** 2 / 300
    assert np.sqrt(power) == pytest.approx(expected, rel=0.2)
    assert np.sqrt(power).mean() == pytest.approx(expected.mean(), rel=0.01)


def test_nothing_is_lost_where_everything_was_sampled_and_more_at_higher_acceleration():
    assert g_factor(*a_scan(step=1), weight=1e-5) == pytest.approx(np.ones((2, NY, NX)), rel=1e-3)
    two, four = (g_factor(*a_scan(step=step, acs=0)).mean() for step in (2, 4))
    assert 1 <= two < four


def test_signal_to_noise_is_signal_over_that_noise():
    kspace, maps = a_scan()
    images = np.full((2, NY, NX), 5.0, np.complex64)
    assert snr(images, kspace, maps) == pytest.approx(5 / noise_deviation(kspace, maps))
    with pytest.raises(DataError, match="not whitened"):
        snr(images, dataclasses.replace(kspace, whitened=False), maps)
    with pytest.raises(DataError, match="expected"):
        snr(images[:1], kspace, maps)


def test_masks_of_points_and_weights_of_nothing_are_one_clear_error():
    kspace, maps = a_scan()
    points = kspace.mask.copy()
    points[:, ::2, ::2] = False
    with pytest.raises(DataError, match="whole readout lines"):
        g_factor(dataclasses.replace(kspace, mask=points), maps)
    with pytest.raises(DataError, match="expected a number above 0"):
        noise_deviation(kspace, maps, weight=0.0)

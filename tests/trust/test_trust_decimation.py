"""What is measured in some columns of the image, and in mixtures of the coils, is what all of them say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon_node.core.fft import centred_fft
from recon_node.core.types import CoilMaps
from recon_node.methods.asked_again import AskedAgain
from recon_node.methods.sense import Sense
from recon_node.pipeline.arrays import kspace_from_arrays
from recon_node.simulate import draw_example
from recon_node.trust import hold_out, measure
from recon_node.trust.decimation import all_columns, decimation, fewer_columns, folded
from recon_node.trust.residuals import taken_apart

NOISE = 1 / np.sqrt(2)


@pytest.fixture(scope="module")
def wide():
    """K-space of a beating heart with whole lines, 12 coils and the truth behind it."""
    heart = draw_example(np.random.default_rng(8), matrix=(96, 96), phases=6, coils=12, modality="cine")
    lines = np.arange(96) % 4 == 0
    lines[40:56] = True
    mask = np.broadcast_to(lines[:, None], (6, 96, 96))
    kspace = kspace_from_arrays(heart.kspace, mask, whitened=True)
    return kspace, CoilMaps(data=heart.maps[None], support=np.ones((96, 96), np.bool_)), heart.images


def with_data(kspace, where, by):
    data = kspace.data.copy()
    data[where] = by(data[where])
    return dataclasses.replace(kspace, data=data)


@pytest.mark.parametrize(("width", "step"), [(96, 4), (96, 2), (40, 8), (20, 4), (6, 2)])
def test_folded_samples_are_those_of_every_other_column(width, step):
    rng = np.random.default_rng(width)
    image = (rng.normal(size=(3, width)) + 1j * rng.normal(size=(3, width))).astype(np.complex64)
    samples = folded(centred_fft(image, axes=(-1,)), step)
    np.testing.assert_allclose(
        samples, centred_fft(fewer_columns(image, step), axes=(-1,)), rtol=1e-4, atol=1e-4
    )


def test_folding_keeps_the_variance_of_noise():
    rng = np.random.default_rng(0)
    noise = NOISE * (rng.normal(size=(400, 96)) + 1j * rng.normal(size=(400, 96)))
    assert np.mean(np.abs(folded(noise.astype(np.complex64), 4)) ** 2) == pytest.approx(1, rel=0.05)


def test_columns_between_are_drawn_in_by_straight_lines():
    ramp = np.tile(np.arange(32.0), (2, 1))
    found = all_columns(fewer_columns(ramp, 4), 32)
    np.testing.assert_allclose(found[:, :28], ramp[:, :28])
    np.testing.assert_array_equal(found[:, 28:], 28)


def test_single_points_unknown_noise_and_odd_sizes_want_all_columns(wide):
    kspace, _, _ = wide
    assert decimation(kspace, 24) == 4
    assert decimation(kspace, 25) == 2
    assert decimation(kspace, None) == 1
    assert decimation(dataclasses.replace(kspace, whitened=False), 24) == 1
    points = kspace.mask.copy()
    points[0, 0, 1] ^= True
    assert decimation(dataclasses.replace(kspace, mask=points), 24) == 1
    odd = dataclasses.replace(kspace, data=kspace.data[..., :95], mask=kspace.mask[..., :95])
    assert decimation(odd, 24) == 1


def test_the_same_lines_are_held_out_whatever_the_columns(wide):
    kspace, _, _ = wide
    whole, few = hold_out(kspace), hold_out(kspace, step=4)
    np.testing.assert_array_equal(whole.lines[..., 0], few.lines[..., 0])
    np.testing.assert_allclose(folded(whole.kspace.data, 4), few.kspace.data, atol=1e-4)
    np.testing.assert_allclose(folded(whole.measured, 4), few.measured, atol=1e-4)


def test_sense_makes_the_same_columns_of_fewer(wide):
    kspace, maps, _ = wide
    method = Sense(device="cpu")
    images = method.reconstruct(kspace, maps)
    again = AskedAgain(method=method, maps=maps, images=images)
    whole = again(hold_out(kspace).kspace).data
    few = again.decimated(2)(hold_out(kspace, step=2).kspace).data
    np.testing.assert_allclose(few, fewer_columns(whole, 2), atol=1e-3 * np.abs(whole).max())


def test_some_columns_say_of_sense_what_all_of_them_do(wide):
    kspace, maps, truth = wide
    method = Sense(device="cpu")
    images = method.reconstruct(kspace, maps)
    again = AskedAgain(method=method, maps=maps, images=images)

    def told(reference):
        return measure(kspace, maps, images, reconstruct=again, reference=reference)

    few, whole = told(again), told(again.__call__)
    assert decimation(kspace, again.columns) > 1
    assert few.heldout_ratio == pytest.approx(whole.heldout_ratio, rel=0.05)
    assert few.predicted_nmse == pytest.approx(whole.predicted_nmse, rel=0.15)
    assert few.error_map.shape == truth.shape[1:]


def test_faults_of_a_sample_a_line_and_a_coil_show_in_a_wide_scan(wide):
    kspace, maps, truth = wide

    def left(changed):
        return taken_apart(truth[:, None], changed, maps)[1]

    usual = left(kspace)
    assert usual.spike < 6
    assert usual.line_gain < 0.1
    assert usual.coil_gain < 0.02
    assert usual.noise_mismatch < 1.1
    assert left(with_data(kspace, np.s_[3, :, 20, 70], lambda samples: samples + 40)).spike > 300
    assert left(with_data(kspace, np.s_[3, 5, 20, 70], lambda samples: samples + 150)).spike > 300
    assert left(with_data(kspace, np.s_[2, :, 44], lambda samples: 0 * samples)).line_gain > 0.9
    assert left(with_data(kspace, np.s_[3:, 2], lambda samples: 0 * samples)).coil_gain > 0.9
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, *kspace.data[:, 0].shape))
    noisier = with_data(kspace, np.s_[:, 4], lambda s: s + 3 * (noise[0] + 1j * noise[1]) * (s != 0))
    assert left(noisier).noise_mismatch > 2

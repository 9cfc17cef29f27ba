from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon_node.trust import measure
from recon_node.trust.residuals import taken_apart


def unexplained(scene, **fields):
    """What the truth leaves over of a scene with other data."""
    kspace = dataclasses.replace(scene.kspace, **fields)
    return taken_apart(scene.truth[:, None], kspace, scene.maps)[1]


def changed(scene, where, by):
    data = scene.kspace.data.copy()
    data[where] = by(data[where])
    return data


def test_the_truth_leaves_nothing_but_noise(any_scene):
    residual, left = taken_apart(any_scene.truth[:, None], any_scene.kspace, any_scene.maps)
    mask = any_scene.kspace.mask
    assert residual.missed == pytest.approx(1, rel=0.05)
    assert residual.signal == pytest.approx(
        np.square(np.abs(any_scene.kspace.data)).sum() / residual.count, rel=1e-3
    )
    assert residual.count == mask.sum() * any_scene.kspace.data.shape[1]
    assert left.coil_gain < 0.02
    assert left.line_gain < 0.1
    assert left.noise_mismatch < 1.1
    assert left.spike < 5


def test_a_coil_that_dies_or_changes_its_gain_shows_in_its_part_of_the_scan(any_scene):
    dead = changed(any_scene, np.s_[2:, 1], lambda samples: 0 * samples)
    assert unexplained(any_scene, data=dead).coil_gain == pytest.approx(1, abs=0.02)
    louder = changed(any_scene, np.s_[4:, 2], lambda samples: 1.3 * samples)
    assert unexplained(any_scene, data=louder).coil_gain == pytest.approx(0.3, abs=0.03)


def test_a_line_that_was_lost_shows(scene):
    line = int(np.flatnonzero(scene.kspace.mask[3, :, 0])[2])
    lost = changed(scene, np.s_[3, :, line], lambda samples: 0 * samples)
    assert unexplained(scene, data=lost).line_gain > 0.5


def test_a_spike_stands_out_from_its_like(any_scene):
    phase, ky, kx = np.argwhere(any_scene.kspace.mask)[40]
    hit = changed(any_scene, np.s_[phase, :, ky, kx], lambda samples: samples + 60)
    assert unexplained(any_scene, data=hit).spike > 100


def test_noise_that_is_not_what_it_was_whitened_to_shows(any_scene):
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(2, *any_scene.kspace.data[:, 0].shape))
    noisier = changed(
        any_scene, np.s_[:, 0], lambda samples: samples + 3 * (noise[0] + 1j * noise[1]) * (samples != 0)
    )
    assert unexplained(any_scene, data=noisier).noise_mismatch > 2
    assert unexplained(any_scene, whitened=False).noise_mismatch is None


def test_phases_in_a_wrong_order_could_be_gone_through_on_a_shorter_round(scene):
    order = [0, 3, 1, 4, 2, 5]
    usual, wrong = (unexplained(scene, data=data) for data in (scene.kspace.data, scene.kspace.data[order]))
    assert usual.disorder == pytest.approx(1, abs=0.1)
    assert wrong.disorder > 1.3
    few = dataclasses.replace(
        scene.kspace, data=scene.kspace.data[:3], mask=scene.kspace.mask[:3], trigger_times_ms=None
    )
    assert taken_apart(scene.truth[:3, None], few, scene.maps)[1].disorder is None


def test_a_phase_that_drifts_is_no_wrong_order_and_hides_none(scene):
    drift = np.exp(1j * np.array([0.0, 2.0, 0.5, 3.0, 1.0, 2.5]))[:, None, None, None]
    usual, wrong = (scene.kspace.data[order] * drift for order in ([0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]))
    still = unexplained(scene).disorder
    assert unexplained(scene, data=usual.astype(np.complex64)).disorder == pytest.approx(still, abs=0.02)
    assert unexplained(scene, data=wrong.astype(np.complex64)).disorder > 1.2


def test_maps_that_do_not_fit_the_scan_itself_show_though_the_calibration_fits_them(scene):
    coils = scene.maps.data[:, [1, 0, 2, 3]]
    wrong = dataclasses.replace(scene.maps, data=coils)
    calibration = scene.kspace.calibration[[1, 0, 2, 3]]
    kspace = dataclasses.replace(scene.kspace, calibration=calibration)
    measures = measure(kspace, wrong, scene.series(scene.truth))
    assert measures.map_residual < 0.1
    assert measures.own_residual > 0.2
    assert measures.coil_gain > 0.2


def test_the_error_of_an_image_is_of_both_by_its_held_out_lines(scene):
    def blurred(kspace):
        first = (len(scene.truth) - len(kspace.data)) // 2
        part = scene.truth[first : first + len(kspace.data)]
        return scene.series(0.5 * part + 0.25 * (np.roll(part, 1, 1) + np.roll(part, -1, 1)))

    images = blurred(scene.kspace)
    measures = measure(
        scene.kspace, scene.maps, images, reconstruct=blurred, reference=scene.sense, fraction=0.5
    )
    true = np.square(np.abs(images.data - scene.truth)).sum() / np.square(np.abs(images.data)).sum()
    assert measures.predicted_nmse == pytest.approx(true, rel=1.0)
    assert (
        measures.predicted_nmse
        > 5
        * measure(
            scene.kspace,
            scene.maps,
            scene.oracle(scene.kspace),
            reconstruct=scene.oracle,
            reference=scene.sense,
            fraction=0.5,
        ).predicted_nmse
    )

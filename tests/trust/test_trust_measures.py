from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.grid import central
from recon_node.core.types import CoilMaps
from recon_node.trust import hold_out, measure


def measured(scene, images, reconstruct=None):
    return measure(
        scene.kspace, scene.maps, images, reconstruct=reconstruct, reference=reconstruct and scene.sense
    )


def test_the_truth_predicts_held_out_samples_down_to_the_noise(any_scene):
    m = measured(any_scene, any_scene.oracle(any_scene.kspace), any_scene.oracle)
    assert m.heldout_error == pytest.approx(1, abs=0.05)
    assert m.consistency_noise == pytest.approx(1, abs=0.05)
    assert m.heldout_ratio < 0.9


def test_parallel_imaging_predicts_as_well_as_itself(any_scene):
    m = measured(any_scene, any_scene.sense(any_scene.kspace), any_scene.sense)
    assert m.heldout_ratio == pytest.approx(1)
    assert m.fit_ratio == pytest.approx(1)


def test_invented_structure_predicts_held_out_samples_worse(any_scene):
    def invents(kspace):
        image = any_scene.oracle(kspace).data.copy()
        image[:, 10:20, 15:25] *= -1
        return any_scene.series(image)

    m = measured(any_scene, invents(any_scene.kspace), invents)
    honest = measured(any_scene, any_scene.oracle(any_scene.kspace), any_scene.oracle)
    assert m.heldout_ratio > 1.5 * honest.heldout_ratio
    assert m.consistency > 2 * honest.consistency


def test_an_image_that_copies_every_sample_but_leaves_the_gaps_empty_is_found_out(any_scene):
    scene = any_scene

    def zero_filled(kspace):
        return scene.series(np.sum(scene.maps.data[0].conj() * centred_ifft(kspace.data), axis=1))

    m = measured(scene, zero_filled(scene.kspace), zero_filled)
    assert m.heldout_ratio > 0.95
    assert m.heldout_ratio > 2 * measured(scene, scene.oracle(scene.kspace), scene.oracle).heldout_ratio


def test_magnitude_images_borrow_the_phase_of_the_data(scene):
    truth = scene.oracle(scene.kspace)
    magnitude = scene.series(np.abs(truth.data))
    naive = np.linalg.norm(np.abs(truth.data) - truth.data) / np.linalg.norm(truth.data)
    assert measured(scene, magnitude).consistency < 0.5 * naive


def test_coil_maps_of_another_scan_leave_a_residual(scene):
    good = measured(scene, scene.oracle(scene.kspace)).map_residual
    turned = CoilMaps(data=scene.maps.data[:, ::-1], support=scene.maps.support)
    bad = measure(scene.kspace, turned, scene.oracle(scene.kspace)).map_residual
    assert good < 0.05
    assert bad > 0.3


@pytest.mark.parametrize("factor", [0.2, 0.5, 2.0, 5.0])
def test_a_wrong_brightness_shows_in_either_direction(scene, factor):
    truth = scene.oracle(scene.kspace).data
    found = max(factor, 1 / factor)
    assert measured(scene, scene.series(factor * truth)).peak_ratio == pytest.approx(found, rel=0.05)


def test_small_bright_things_that_calibration_blurs_are_no_wrong_brightness(scene, changed):
    rng = np.random.default_rng(3)
    dots = 8 * (rng.random(scene.truth.shape[1:]) < 0.06)
    truth = scene.truth * (1 + dots)
    full = centred_fft(scene.maps.data[0] * truth[:, None])
    _, ay, ax = scene.kspace.calibration.shape
    rows, columns = (central(size, part) for size, part in zip(full.shape[2:], (ay, ax), strict=True))
    detailed = changed(scene, calibration=full.mean(axis=0)[:, rows, columns].astype(np.complex64))
    assert measured(detailed, scene.series(truth)).peak_ratio == pytest.approx(1, abs=0.05)
    assert measured(detailed, scene.series(2 * truth)).peak_ratio == pytest.approx(2, rel=0.05)


def test_an_image_of_zeros_has_no_brightness_at_all(scene):
    assert measured(scene, scene.series(0 * scene.truth)).peak_ratio == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_measured_no_further(scene, bad):
    data = scene.truth.copy()
    data[0, 0, 0] = bad
    m = measured(scene, scene.series(data), scene.sense)
    assert not m.finite
    assert m.consistency is None


def test_a_network_that_fails_on_held_out_data_is_not_finite(scene):
    def fails(kspace):
        return scene.series(np.full((len(kspace.data), *scene.truth.shape[1:]), np.nan))

    assert not measured(scene, scene.oracle(scene.kspace), fails).finite


def test_without_calibration_lines_the_rest_is_still_measured(scene, changed):
    m = measured(changed(scene, calibration=None), scene.oracle(scene.kspace))
    assert m.map_residual is None
    assert m.peak_ratio is None
    assert m.consistency < 0.3


def test_held_out_samples_are_measured_ones_outside_the_acs(any_scene):
    kspace = any_scene.kspace
    held = hold_out(kspace, frames=4, fraction=0.2, seed=3)
    part = slice(1, 5)
    assert held.kspace.data.shape[0] == 4
    np.testing.assert_array_equal(held.kspace.mask | held.lines, kspace.mask[part])
    assert not (held.kspace.mask & held.lines).any()
    assert not held.lines[:, slice(*kspace.sampling.acs_ky), slice(*kspace.sampling.acs_kx)].any()
    assert not held.kspace.data[np.broadcast_to(held.lines[:, None], held.kspace.data.shape)].any()
    assert held.kspace.trigger_times_ms == kspace.trigger_times_ms[part]
    assert held.lines.any(axis=(1, 2)).all()


def test_phases_that_sample_the_same_lines_lose_the_same_lines(scene, changed):
    mask = np.broadcast_to(scene.kspace.mask[:1], scene.kspace.mask.shape)
    still = changed(scene, mask=mask, data=scene.kspace.data * mask[:, None])
    held = hold_out(still.kspace)
    assert held.lines.any()
    assert (held.lines == held.lines[:1]).all()
    other = hold_out(scene.kspace).lines
    assert (other != other[:1]).any()


def test_neighbouring_phases_give_nothing_away_where_all_sample_the_same(scene, changed):
    """A still object whose phases are averaged: perfect at lines held out of one phase, blind at others."""
    mask = np.broadcast_to(scene.kspace.mask[:1], scene.kspace.mask.shape)
    still = changed(scene, mask=mask, data=scene.kspace.data * mask[:, None])

    def shares(kspace):
        count = np.maximum(kspace.mask.sum(axis=0), 1)
        average = np.broadcast_to(kspace.data.sum(axis=0) / count, kspace.data.shape)
        return scene.series(np.sum(scene.maps.data[0].conj() * centred_ifft(average), axis=1))

    m = measure(still.kspace, scene.maps, shares(still.kspace), reconstruct=shares, reference=scene.sense)
    assert m.heldout_share > 0.9


def test_single_points_are_held_out_in_patches_as_wide_as_the_gaps(point_scene):
    held = hold_out(point_scene.kspace)
    for lines, mask in zip(held.lines, held.kspace.mask, strict=True):
        rows, columns = np.nonzero(lines)
        near = sum(mask[(rows + dy) % 48, (columns + dx) % 40] for dy in (-1, 0, 1) for dx in (-1, 0, 1))
        assert near.mean() < 9 * 0.4 * 0.7  # neighbours sampled less often than anywhere else


def test_an_image_that_knows_nothing_of_held_out_lines_misses_all_of_them(scene):
    def nothing(kspace):
        return scene.series(np.zeros((len(kspace.data), 48, 40)) + 1e-9j)

    truth = measured(scene, scene.oracle(scene.kspace), scene.oracle)
    assert measured(scene, scene.oracle(scene.kspace), nothing).heldout_share == pytest.approx(1, abs=0.01)
    assert truth.heldout_share < 0.3


def test_held_out_lines_of_noise_vouch_for_nothing(scene, changed):
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(2, *scene.kspace.data.shape)) / np.sqrt(2)
    data = ((noise[0] + 1j * noise[1]) * scene.kspace.mask[:, None]).astype(np.complex64)
    quiet = changed(scene, data=data)
    assert measured(quiet, scene.oracle(scene.kspace), scene.sense).heldout_share is None


def test_a_phase_keeps_its_only_line(scene, changed):
    mask = scene.kspace.mask.copy()
    mask[2:4] = False
    mask[2:4, 5] = True
    sparse = changed(
        scene,
        mask=mask,
        data=scene.kspace.data * mask[:, None],
        sampling=replace(scene.kspace.sampling, acs=0, acs_ky=(0, 0)),
    )
    held = hold_out(sparse.kspace, fraction=0.5)
    assert held.lines.any()
    assert held.kspace.mask.any(axis=(1, 2)).all()


def test_the_seed_decides_what_is_held_out(scene):
    one, same, other = (hold_out(scene.kspace, seed=s).lines for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_with_nothing_outside_the_acs_nothing_is_held_out(scene, changed):
    mask = np.zeros_like(scene.kspace.mask)
    mask[:, slice(*scene.kspace.sampling.acs_ky)] = True
    only = changed(scene, mask=mask, data=scene.kspace.data * mask[:, None])
    assert hold_out(only.kspace) is None
    m = measured(only, scene.oracle(scene.kspace), scene.sense)
    assert m.heldout_ratio is None
    assert m.consistency is not None


def test_an_error_of_the_method_is_passed_on(scene):
    def refuses(kspace):
        raise DataError("no")

    with pytest.raises(DataError):
        measured(scene, scene.oracle(scene.kspace), refuses)


def test_the_map_of_expected_errors_is_large_where_the_error_is(scene):
    def wrong_in_a_corner(kspace):
        first = (len(scene.truth) - len(kspace.data)) // 2
        part = scene.truth[first : first + len(kspace.data)].copy()
        missing = 1 - kspace.mask.mean()  # an error that grows with what is missing
        part[:, :20, :16] *= 1 + missing
        return scene.series(part)

    images = wrong_in_a_corner(scene.kspace)
    measures = measure(scene.kspace, scene.maps, images, reconstruct=wrong_in_a_corner, reference=scene.sense)
    assert measures.error_map.shape == scene.truth.shape[1:]
    inside, outside = measures.error_map[4:16, 4:12], measures.error_map[30:, 26:]
    assert inside.mean() > 20 * outside.mean()
    energy = np.mean(np.abs(images.data) ** 2)
    assert np.mean(measures.error_map**2) == pytest.approx(measures.predicted_nmse * energy, rel=1e-3)


def test_an_image_moves_by_what_the_held_out_samples_made_of_it(scene):
    """With half of its brightness gone where samples are missing, a quarter of its energy has moved."""
    whole = scene.kspace.mask.sum()

    def fades(kspace):
        first = (len(scene.truth) - len(kspace.data)) // 2
        part = scene.truth[first : first + len(kspace.data)]
        return scene.series(part if kspace.mask.sum() == whole else 0.5 * part)

    m = measured(scene, fades(scene.kspace), fades)
    assert m.moved == pytest.approx(0.25, rel=0.02)
    still = measured(scene, scene.oracle(scene.kspace), scene.oracle)
    assert still.moved == pytest.approx(0, abs=1e-9)


def test_more_lines_are_held_out_where_neighbouring_phases_have_others(scene, changed):
    kspace = scene.kspace
    mask = np.broadcast_to(kspace.mask[:1], kspace.mask.shape)
    still = changed(scene, mask=mask, data=kspace.data * mask[:, None])
    tenth, fifth = (hold_out(one, fraction=share) for one, share in ((still.kspace, 0.1), (kspace, 0.2)))
    assert np.array_equal(hold_out(still.kspace).lines, tenth.lines)
    assert np.array_equal(hold_out(kspace).lines, fifth.lines)
    assert hold_out(kspace).lines.sum() > hold_out(kspace, fraction=0.1).lines.sum()

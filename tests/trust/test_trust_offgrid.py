from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.trust import judge, measure


@pytest.fixture(scope="module")
def uniform(scene):
    """Every second line, and calibration lines that were sent apart from them."""
    full = centred_fft(scene.maps.data[0] * scene.truth[:, None]).astype(np.complex64)
    mask = np.zeros_like(scene.kspace.mask)
    mask[:, ::2] = True
    rows, columns = full.shape[2:]
    block = slice(rows // 2 - 6, rows // 2 + 6), slice(columns // 2 - 6, columns // 2 + 6)
    kspace = replace(
        scene.kspace,
        data=np.where(mask[:, None], full, 0).astype(np.complex64),
        mask=mask,
        calibration=np.ascontiguousarray(full[(slice(None), slice(None), *block)].mean(axis=0)),
        whitened=False,
    )
    return replace(scene, kspace=kspace)


def aliased(scene):
    """Coil images folded once, of the right brightness."""

    def reconstruct(kspace):
        return scene.series(2 * np.sum(scene.maps.data[0].conj() * centred_ifft(kspace.data), axis=1))

    return reconstruct


def measured(scene, reconstruct, kspace=None):
    k = kspace or scene.kspace
    return measure(k, scene.maps, reconstruct(k), reconstruct=reconstruct, reference=scene.sense)


def test_an_aliased_image_is_found_out_by_calibration_lines_beside_the_grid(uniform):
    folded = measured(uniform, aliased(uniform))
    assert folded.offgrid_ratio > 3
    verdict = judge(folded)
    assert verdict.verdict == "fallback"
    assert any("calibration lines" in reason for reason in verdict.reasons)


def test_a_true_image_predicts_them_as_well_as_parallel_imaging(uniform):
    assert measured(uniform, uniform.oracle).offgrid_ratio <= 1.1
    assert measured(uniform, uniform.sense).offgrid_ratio == pytest.approx(1)


def test_the_brightness_of_a_separate_calibration_scan_does_not_matter(uniform):
    brighter = replace(uniform.kspace, calibration=3 * uniform.kspace.calibration)
    assert measured(uniform, uniform.oracle, brighter).offgrid_ratio <= 1.1
    assert measured(uniform, aliased(uniform), brighter).offgrid_ratio > 3


def test_magnitude_images_are_measured_with_the_phase_of_the_reference(uniform):
    def magnitude(kspace):
        return uniform.series(np.abs(uniform.oracle(kspace).data))

    assert measured(uniform, magnitude).offgrid_ratio <= 1.1


def test_calibration_lines_among_the_imaging_lines_say_nothing_new(scene):
    assert measured(scene, scene.oracle).offgrid_ratio is None

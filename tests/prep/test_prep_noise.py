from __future__ import annotations

import numpy as np
import pytest
from prep_scanner import Line, acquire, block, coil_images, lines_of, make_header, noise_lines, prepare, white

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import DataError, InconsistentReadouts
from recon_node.core.types import KSpace

SHAPE = (48, 40)


def mixing(rng: np.random.Generator, coils: int) -> np.ndarray:
    return np.eye(coils) * rng.uniform(0.5, 4, coils)[:, None] + 0.3 * white(rng, (coils, coils))


def covariance(kspace: KSpace) -> np.ndarray:
    flat = np.moveaxis(kspace.data, 1, 0)[:, kspace.mask]
    return flat @ flat.conj().T / flat.shape[1]


@pytest.mark.parametrize("full_x", [40, 60, 80])
@pytest.mark.parametrize("dwell", [5.0, 2.5, 11.0])
@pytest.mark.parametrize("bandwidth", [None, 0.793])
def test_whitened_noise_has_unit_covariance_at_any_dwell_time_and_oversampling(
    full_x: int, dwell: float, bandwidth: float | None
) -> None:
    rng = np.random.default_rng(0)
    coils = 6
    mix = mixing(rng, coils)
    header = make_header(SHAPE, full_x=full_x, noise_bandwidth_ratio=bandwidth)
    # the noise scan lasts 5 us a sample; density at the centre of the spectrum is 1 / bandwidth of its mean
    image_noise = mix @ white(rng, (4, SHAPE[0], coils, full_x)) * np.sqrt(5.0 / dwell / (bandwidth or 1.0))
    lines = [
        Line(image_noise[p, ky], ky=ky, fields={"sample_time_us": dwell}, counters={"phase": p})
        for p in range(4)
        for ky in range(SHAPE[0])
    ]
    noise = noise_lines(mix @ white(rng, (coils, 65536)), readouts=64)
    (kspace,) = prepare(header, [block(noise), block(lines)], noise="auto")
    assert kspace.whitened
    deviation = np.abs(covariance(kspace) - np.eye(coils)).max()
    assert deviation < 6 / np.sqrt(kspace.mask.sum())


def test_dead_and_hot_coils_are_dropped_with_a_note() -> None:
    rng = np.random.default_rng(1)
    header = make_header(SHAPE)
    scale = np.array([1, 0, 1.5, 2000, 0.7])[:, None]
    noise = noise_lines(scale * white(rng, (5, 4096)), readouts=16)
    images = coil_images(rng, 1, 5, SHAPE)
    (kspace,) = prepare(header, [block(noise), block(lines_of(acquire(images, 40)))], noise="auto")
    assert kspace.data.shape[1] == 3
    notes = " ".join(kspace.notes)
    assert "dead (no noise): 1" in notes
    assert "hot: 3" in notes


def test_a_coil_that_is_zero_in_a_file_without_noise_scan_is_dropped_with_a_note() -> None:
    rng = np.random.default_rng(2)
    images = coil_images(rng, 1, 4, SHAPE)
    images[:, 2] = 0
    (kspace,) = prepare(make_header(SHAPE), [block(lines_of(acquire(images, 40)))])
    assert kspace.data.shape[1] == 3
    assert any("zero throughout: 2" in note for note in kspace.notes)


def test_without_noise_scan_the_noise_is_estimated_from_the_edges_and_said() -> None:
    rng = np.random.default_rng(3)
    scale = np.array([0.5, 2.0, 8.0])[:, None, None]
    images = 0.5 * coil_images(rng, 6, 3, (96, 80))
    kspace = acquire(images, 80) + scale * white(rng, (6, 3, 96, 80))
    (found,) = prepare(make_header((96, 80), limits={"phase": 5}), [block(lines_of(kspace))], noise="auto")
    assert found.whitened
    assert any("estimated from the edges" in note for note in found.notes)
    corner = found.data[:, :, :6, :6]
    np.testing.assert_allclose(np.mean(np.abs(corner) ** 2, axis=(0, 2, 3)), 1.0, rtol=0.2)


def test_noiseless_padding_cannot_be_whitened_and_says_so() -> None:
    kspace = np.zeros((1, 2, 48, 40), dtype=complex)
    kspace[:, :, 20:28, 16:24] = 1
    (found,) = prepare(make_header(SHAPE), [block(lines_of(kspace))], noise="auto")
    assert not found.whitened
    assert any("not whitened" in note for note in found.notes)


def test_data_whitened_before_to_unit_parts_end_at_the_same_scale() -> None:
    rng = np.random.default_rng(4)
    data = np.sqrt(2) * white(rng, (1, 4, *SHAPE))
    (found,) = prepare(make_header(SHAPE), [block(lines_of(data))], noise="unit-parts")
    assert found.whitened
    assert np.mean(np.abs(found.data) ** 2) == pytest.approx(1.0, rel=0.05)


def test_a_noise_scan_of_other_channels_is_not_used_and_said() -> None:
    rng = np.random.default_rng(5)
    images = coil_images(rng, 1, 4, SHAPE)
    noise = noise_lines(white(rng, (6, 1024)), readouts=4)
    (found,) = prepare(make_header(SHAPE), [block(noise), block(lines_of(acquire(images, 40)))], noise="auto")
    assert any("noise scan has 6 channels, the lines 4" in note for note in found.notes)


def test_few_noise_samples_fall_back_to_the_diagonal() -> None:
    rng = np.random.default_rng(6)
    images = coil_images(rng, 1, 4, SHAPE)
    few = noise_lines(white(rng, (4, 8)), readouts=1)
    (found,) = prepare(make_header(SHAPE), [block(few), block(lines_of(acquire(images, 40)))], noise="auto")
    assert any("only 8 samples" in note for note in found.notes)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("coils", [3, 4, 12, 32])
@pytest.mark.parametrize("relation", ["copy", "scaled copy", "sum of two"])
def test_coils_that_repeat_each_other_fall_back_to_the_diagonal_whatever_the_rounding(
    seed: int, coils: int, relation: str
) -> None:
    rng = np.random.default_rng(seed)
    noise = mixing(rng, coils) @ white(rng, (coils, 1024))
    repeats = {"copy": noise[0], "scaled copy": (0.3 - 7j) * noise[0], "sum of two": noise[0] + 1j * noise[1]}
    noise[-1] = repeats[relation]
    lines = [Line(white(rng, (coils, 40)), ky=ky) for ky in range(SHAPE[0])]
    (found,) = prepare(
        make_header(SHAPE), [block(noise_lines(noise, readouts=4)), block(lines)], noise="auto"
    )
    assert any("singular" in note for note in found.notes)
    assert np.isfinite(found.data).all()


def test_strongly_correlated_coils_of_unequal_gain_are_still_whitened() -> None:
    rng = np.random.default_rng(9)
    mix = np.array([[1, 0], [0.999, 0.0447]]) * np.array([[1.0], [1e-2]])
    noise = mix @ white(rng, (2, 32768))
    lines = [Line(mix @ white(rng, (2, 40)), ky=ky) for ky in range(SHAPE[0])]
    (found,) = prepare(
        make_header(SHAPE), [block(noise_lines(noise, readouts=4)), block(lines)], noise="auto"
    )
    assert not any("singular" in note for note in found.notes)
    assert np.abs(covariance(found) - np.eye(2)).max() < 0.1


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_noise_that_is_no_noise_is_a_clear_error(value: float) -> None:
    noise = noise_lines(np.full((3, 64), value, dtype=complex), readouts=1)
    imaging = block([Line(np.ones((3, 40)), ky=24)])
    with pytest.raises(DataError, match="noise scan"):
        prepare(make_header(SHAPE), [block(noise), imaging], noise="auto")


def test_noise_after_the_images_is_not_used_and_said() -> None:
    rng = np.random.default_rng(7)
    images = coil_images(rng, 1, 3, SHAPE)
    sent = lines_of(acquire(images, 40))
    late = [Line(white(rng, (3, 40)), flags=Flag.IS_NOISE_MEASUREMENT)]
    (found,) = prepare(make_header(SHAPE), [block(sent), block(late)], noise="auto")
    assert any("after imaging lines" in note for note in found.notes)


def test_a_noise_scan_without_dwell_time_is_taken_for_the_one_of_the_lines_and_said() -> None:
    rng = np.random.default_rng(8)
    noise = noise_lines(white(rng, (3, 4096)), readouts=8, dwell_us=0.0)
    lines = [Line(white(rng, (3, 40)), ky=ky) for ky in range(SHAPE[0])]
    (found,) = prepare(make_header(SHAPE), [block(noise), block(lines)], noise="auto")
    assert any("no dwell time" in note for note in found.notes)
    assert np.mean(np.abs(found.data) ** 2) == pytest.approx(1.0, rel=0.1)


def test_noise_scans_of_different_channels_contradict_each_other() -> None:
    first, second = (block(noise_lines(np.ones((n, 64)) + 0j, readouts=1)) for n in (3, 4))
    with pytest.raises(InconsistentReadouts, match="3 and 4 channels"):
        prepare(make_header(SHAPE), [first, second], noise="auto")

from __future__ import annotations

import numpy as np
import pytest
from prep_scanner import Line, acquire, block, coil_images, lines_of, make_header, prepare

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import InconsistentReadouts
from recon_node.core.fft import centred_fft


@pytest.mark.parametrize(
    ("shape", "full_x"),
    [
        ((32, 32), 32),
        ((32, 32), 64),
        ((32, 32), 48),
        ((30, 36), 40),
        ((24, 33), 66),
        ((25, 31), 62),
        ((24, 30), 45),
    ],
)
def test_oversampling_of_any_ratio_is_removed_exactly(shape: tuple[int, int], full_x: int) -> None:
    images = coil_images(np.random.default_rng(0), 2, 3, shape)
    header = make_header(shape, full_x=full_x, limits={"phase": 1})
    (kspace,) = prepare(header, [block(lines_of(acquire(images, full_x)))])
    assert kspace.data.shape == (2, 3, *shape)
    np.testing.assert_allclose(kspace.data, centred_fft(images), atol=2e-4)
    assert kspace.mask.all()
    assert kspace.geometry.fov_mm == pytest.approx((2.0 * shape[1], 2.0 * shape[0], 8.0))


def test_reversed_lines_are_turned_where_the_converter_keeps_the_centre_of_forward_ones() -> None:
    images = coil_images(np.random.default_rng(1), 1, 3, (32, 32))
    sent = lines_of(acquire(images, 64))
    for line in sent[1::5]:
        line.samples = line.samples[:, ::-1]
        line.flags |= Flag.IS_REVERSE
    (kspace,) = prepare(make_header((32, 32), full_x=64), [block(sent)])
    np.testing.assert_allclose(kspace.data, centred_fft(images), atol=2e-4)


def test_an_asymmetric_echo_lands_at_its_centre_also_when_reversed_and_with_discarded_samples() -> None:
    images = coil_images(np.random.default_rng(2), 1, 3, (32, 40))
    full = acquire(images, 40)
    sent = lines_of(full[..., 10:])
    for number, line in enumerate(sent):
        line.samples = np.pad(line.samples, ((0, 0), (4, 3)), constant_values=99)
        line.fields |= {"center_sample": 10 + 4, "discard_pre": 4, "discard_post": 3}
        if number % 5 == 1:
            line.samples = line.samples[:, ::-1]
            line.flags |= Flag.IS_REVERSE
            line.fields |= {"center_sample": 37 - 1 - 14, "discard_pre": 3, "discard_post": 4}
    (kspace,) = prepare(make_header((32, 40)), [block(sent)])
    assert not kspace.mask[..., :10].any()
    assert kspace.mask[..., 10:].all()
    np.testing.assert_allclose(kspace.data[..., 10:], centred_fft(images)[..., 10:], atol=2e-4)
    assert not kspace.data[..., :10].any()


def test_an_oversampled_asymmetric_echo_is_masked_where_nothing_was_measured() -> None:
    images = coil_images(np.random.default_rng(3), 1, 2, (32, 40))
    sent = lines_of(acquire(images, 80)[..., 24:])
    for line in sent:
        line.fields["center_sample"] = 40 - 24
    (kspace,) = prepare(make_header((32, 40), full_x=80), [block(sent)])
    np.testing.assert_array_equal(kspace.mask.any(axis=(0, 1)), np.arange(40) >= 12)
    assert not kspace.data[..., :12].any()
    truth = centred_fft(images)
    error = np.linalg.norm(kspace.data[..., 16:] - truth[..., 16:]) / np.linalg.norm(truth)
    assert error < 0.02


def test_lines_that_come_without_the_announced_oversampling_are_believed_and_said() -> None:
    images = coil_images(np.random.default_rng(4), 1, 3, (32, 32))
    (kspace,) = prepare(make_header((32, 32), full_x=64), [block(lines_of(centred_fft(images)))])
    np.testing.assert_allclose(kspace.data, centred_fft(images), atol=2e-4)
    assert any("removed before" in note for note in kspace.notes)


def test_lines_with_and_without_oversampling_in_one_scan_are_an_error() -> None:
    short, full = block([Line(np.ones((2, 32)), ky=3)]), block([Line(np.ones((2, 64)), ky=4)])
    with pytest.raises(InconsistentReadouts, match="64 samples came after lines of 32"):
        prepare(make_header((32, 32), full_x=64), [short, full])


def test_shorter_lines_after_full_ones_are_low_resolution_not_another_field_of_view() -> None:
    images = coil_images(np.random.default_rng(8), 1, 2, (32, 32))
    sent = lines_of(acquire(images, 64))
    short = lines_of(acquire(images, 64)[..., 16:48])[:4]
    (kspace,) = prepare(make_header((32, 32), full_x=64), [block(sent[4:]), block(short)])
    assert kspace.mask[0, :4].sum(axis=1).tolist() == [16] * 4


def test_samples_that_are_exactly_zero_in_every_coil_count_as_not_sampled() -> None:
    images = coil_images(np.random.default_rng(5), 2, 3, (32, 32))
    kspace = centred_fft(images)
    holes = np.random.default_rng(6).random((2, 1, 32, 32)) < 0.5
    holes[..., 12:20, 12:20] = False
    (found,) = prepare(
        make_header((32, 32), limits={"phase": 1}), [block(lines_of(np.where(holes, 0, kspace)))]
    )
    np.testing.assert_array_equal(found.mask, ~holes[:, 0])


def test_more_samples_than_the_encoded_matrix_contradict_the_header() -> None:
    with pytest.raises(InconsistentReadouts, match=r"100 samples.*matrix has 64"):
        prepare(make_header((32, 32), full_x=64), [block([Line(np.ones((2, 100)))])])


def test_a_centre_that_does_not_fit_is_an_error() -> None:
    line = Line(np.ones((2, 40)), fields={"center_sample": 39})
    with pytest.raises(InconsistentReadouts, match="do not fit"):
        prepare(make_header((32, 64)), [block([line])])


def test_discarding_everything_is_an_error() -> None:
    line = Line(np.ones((2, 32)), fields={"discard_pre": 20, "discard_post": 12})
    with pytest.raises(InconsistentReadouts, match="discarded"):
        prepare(make_header((32, 32)), [block([line])])


def test_a_centre_sample_that_was_never_set_is_taken_for_the_middle_and_said() -> None:
    images = coil_images(np.random.default_rng(7), 1, 2, (32, 32))
    sent = lines_of(centred_fft(images))
    for line in sent:
        line.fields["center_sample"] = 0
    (kspace,) = prepare(make_header((32, 32)), [block(sent)])
    np.testing.assert_allclose(kspace.data, centred_fft(images), atol=2e-4)
    assert any("no centre sample" in note for note in kspace.notes)

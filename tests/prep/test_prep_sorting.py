from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_scanner import Line, acquire, block, coil_images, lines_of, make_header, noise_lines, prepare, white

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import DataError, InconsistentReadouts, ReconNodeError, UnsupportedScan
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.scan import Limit, Waveform
from recon_node.prep import Preparation

SHAPE = (32, 24)


def cine(phases: int = 3, seed: int = 0, coils: int = 3) -> tuple[np.ndarray, np.ndarray]:
    images = coil_images(np.random.default_rng(seed), phases, coils, SHAPE)
    return images, centred_fft(images).astype(np.complex64)


def test_every_phase_and_slice_arrives_where_it_belongs() -> None:
    header = make_header(SHAPE, limits={"phase": 2, "slice": 1})
    both = [cine(seed=s)[1] for s in range(2)]
    sent = [line for s in range(2) for line in lines_of(both[s], slice=s)]
    found = prepare(header, [block(sent)])
    assert [k.index.slice for k in found] == [0, 1]
    for kspace, truth in zip(found, both, strict=True):
        np.testing.assert_allclose(kspace.data, truth, atol=2e-4)
        assert (kspace.lines_found, kspace.lines_expected) == (96, 96)
        assert kspace.sampling.pattern == "full"


@pytest.mark.parametrize("counter", ["contrast", "set", "repetition"])
def test_contrasts_sets_and_repetitions_are_kspaces_of_their_own(counter: str) -> None:
    parts = [cine(phases=1, seed=s)[1] for s in range(3)]
    sent = [line for number, part in enumerate(parts) for line in lines_of(part, **{counter: number})]
    found = prepare(make_header(SHAPE, limits={counter: 2}), [block(sent)])
    assert [getattr(k.index, counter) for k in found] == [0, 1, 2]
    for kspace, part in zip(found, parts, strict=True):
        np.testing.assert_allclose(kspace.data, part, atol=2e-4)


def test_repetitions_become_frames_when_asked() -> None:
    _, data = cine(phases=4)
    sent = [line for r in range(4) for line in lines_of(data[r : r + 1], repetition=r)]
    (kspace,) = prepare(make_header(SHAPE, limits={"repetition": 3}), [block(sent)], dynamic="repetition")
    np.testing.assert_allclose(kspace.data, data, atol=2e-4)


def test_many_repetitions_of_one_phase_come_with_the_way_to_make_them_one_series() -> None:
    sent = block(lines_of(cine(phases=1)[1]))
    many, few = make_header(SHAPE, limits={"repetition": 39}), make_header(SHAPE, limits={"repetition": 1})
    assert any("one phase and 40 repetitions" in note for note in prepare(many, [sent])[0].notes)
    for header, dynamic in ((few, "auto"), (many, "repetition")):
        notes = prepare(header, [sent], dynamic=dynamic)[0].notes
        assert not any("one phase and" in note for note in notes)


def test_phases_and_repetitions_cannot_share_the_phase_axis() -> None:
    sent = lines_of(cine()[1])
    with pytest.raises(UnsupportedScan, match="choose dynamic='phase'"):
        prepare(make_header(SHAPE), [block(sent)], dynamic="repetition")


def test_averages_are_averaged_and_segments_merged() -> None:
    rng = np.random.default_rng(3)
    _, data = cine(phases=1)
    noise = rng.standard_normal((2, *data.shape)).astype(np.float32)
    sent = []
    for average in range(2):
        lines = lines_of(data + (1 - 2 * average) * noise[0], average=average)
        for line in lines:
            line.counters["segment"] = line.ky % 4
        sent += lines
    header = make_header(SHAPE, limits={"average": 1, "segment": 3, "phase": 0})
    (kspace,) = prepare(header, [block(sent[:40]), block(sent[40:])])
    np.testing.assert_allclose(kspace.data, data, atol=2e-4)
    assert not any("more than once" in note for note in kspace.notes)
    assert kspace.lines_found == 32


def test_duplicate_lines_are_averaged_and_said() -> None:
    _, data = cine(phases=1)
    sent = lines_of(data)
    (kspace,) = prepare(make_header(SHAPE), [block([*sent, *sent[5:9], *sent[5:7]])])
    np.testing.assert_allclose(kspace.data, data, atol=2e-4)
    assert any(note.startswith("6 lines came more than once") for note in kspace.notes)


def test_missing_phases_are_named_and_left_out() -> None:
    _, data = cine(phases=5)
    sent = [line for line in lines_of(data) if line.counters["phase"] not in (1, 4)]
    (kspace,) = prepare(make_header(SHAPE, limits={"phase": 4}), [block(sent)])
    np.testing.assert_allclose(kspace.data, data[[0, 2, 3]], atol=2e-4)
    assert any("missing and left out: 1, 4 (found 3 of 5)" in note for note in kspace.notes)
    assert (kspace.lines_found, kspace.lines_expected) == (96, 160)


def test_a_phase_without_a_single_sample_is_left_out_and_not_made_up() -> None:
    _, data = cine(phases=4)
    data[2] = 0
    (kspace,) = prepare(make_header(SHAPE, limits={"phase": 3}), [block(lines_of(data))])
    np.testing.assert_allclose(kspace.data, data[[0, 1, 3]], atol=2e-4)
    assert any("missing and left out: 2 (found 3 of 4)" in note for note in kspace.notes)


def test_missing_lines_are_named_with_their_phase() -> None:
    _, data = cine(phases=3)
    lost = {(0, 5), (2, 20), (2, 31)}
    sent = [line for line in lines_of(data) if (line.counters["phase"], line.ky) not in lost]
    (kspace,) = prepare(make_header(SHAPE, limits={"phase": 2}), [block(sent)])
    assert kspace.sampling.pattern == "full"
    assert any("lines missing in phase 0: ky 5; phase 2: ky 20, 31" in note for note in kspace.notes)
    assert (kspace.lines_found, kspace.lines_expected) == (93, 96)


def test_fewer_lines_than_announced_are_counted() -> None:
    _, data = cine(phases=1)
    mask = (np.arange(32) % 4 == 0)[None]
    mask[:, 10:22] = True
    (kspace,) = prepare(make_header(SHAPE), [block(lines_of(data, mask))])
    assert any("found 17 of the 32 lines" in note for note in kspace.notes)
    (kspace,) = prepare(make_header(SHAPE, acceleration=(4.0, 1.0)), [block(lines_of(data, mask))])
    assert (kspace.lines_found, kspace.lines_expected) == (17, 17)
    assert not any("announces" in note for note in kspace.notes)


def test_phases_without_limits_are_found_all_the_same() -> None:
    _, data = cine(phases=7)
    (kspace,) = prepare(make_header(SHAPE), [block([line]) for line in lines_of(data)])
    np.testing.assert_allclose(kspace.data, data, atol=2e-4)
    assert not any("missing" in note for note in kspace.notes)


@pytest.mark.parametrize("centre", [16, 12, 20])
def test_lines_lie_around_the_centre_of_the_limits(centre: int) -> None:
    _, data = cine(phases=1)
    count = 24
    first = SHAPE[0] // 2 - centre
    header = make_header(SHAPE, centre=centre)
    places = [first + ky for ky in range(count) if 0 <= first + ky < SHAPE[0]]
    sent = [Line(data[0, :, place], ky=place - first) for place in places]
    (kspace,) = prepare(header, [block(sent)])
    np.testing.assert_allclose(kspace.data[0, :, places], data[0][:, places].swapaxes(0, 1), atol=2e-4)
    assert kspace.mask.any(axis=(0, 2)).sum() == len(places)


def test_a_centre_that_was_never_set_is_taken_for_the_middle_and_said() -> None:
    _, data = cine(phases=1)
    (kspace,) = prepare(make_header(SHAPE, centre=0), [block(lines_of(data))])
    np.testing.assert_allclose(kspace.data, data, atol=2e-4)
    assert any("centre of k-space at ky 0" in note for note in kspace.notes)


@pytest.mark.parametrize("centre", [14, 15, 17, 18])
def test_a_centre_that_does_not_fit_the_lines_is_moved_until_it_does_and_said(centre: int) -> None:
    _, data = cine(phases=1)
    (kspace,) = prepare(make_header(SHAPE, centre=centre), [block(lines_of(data))])
    np.testing.assert_allclose(kspace.data, data, atol=2e-4)
    assert any(
        f"ky {centre}, does not fit lines 0 to 31 of 32: 16 was taken" in note for note in kspace.notes
    )


def test_signal_cut_off_along_the_phase_encoding_is_said() -> None:
    _, data = cine(phases=1)
    narrow = make_header(SHAPE, recon_fov_mm=(2.0 * SHAPE[1], 0.6 * SHAPE[0], 8.0))
    usual = make_header(SHAPE, recon_fov_mm=(2.0 * SHAPE[1], 1.9 * SHAPE[0], 8.0))
    cut = [
        any(
            "along the phase encoding: it was cut off" in note
            for note in prepare(h, [block(lines_of(data))])[0].notes
        )
        for h in (narrow, usual)
    ]
    assert cut == [True, False]


def test_a_field_of_view_that_leaves_out_the_oversampling_is_said() -> None:
    header = make_header(SHAPE, recon_matrix=(SHAPE[1] // 2, SHAPE[0], 1))
    (kspace,) = prepare(header, [block(lines_of(cine(phases=1)[1]))])
    assert any("2.0 times as fine as pixels" in note for note in kspace.notes)


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1e6])
def test_a_noise_bandwidth_that_cannot_be_is_left_out_and_said(ratio: float) -> None:
    noise = noise_lines(white(np.random.default_rng(2), (3, 2400)), readouts=100)
    sent = [block(noise), block(lines_of(cine(phases=1)[1]))]
    (plain,) = prepare(make_header(SHAPE), sent, noise="auto")
    (kspace,) = prepare(make_header(SHAPE, noise_bandwidth_ratio=ratio), sent, noise="auto")
    np.testing.assert_array_equal(kspace.data, plain.data)
    assert any("noise bandwidth" in note for note in kspace.notes)


def test_a_centre_that_disagrees_with_the_energy_is_said() -> None:
    _, data = cine(phases=1)
    sent = lines_of(data)
    for line in sent:
        line.ky = min(line.ky + 5, 31)
    notes = prepare(make_header(SHAPE), [block(sent[:27])])[0].notes
    assert any("most energy lies at ky 21" in note for note in notes)
    assert not any("energy" in note for note in prepare(make_header(SHAPE), [block(lines_of(data))])[0].notes)


def test_other_acquisitions_never_enter_the_matrix_and_are_counted() -> None:
    _, data = cine(phases=1)
    flags = [
        Flag.IS_NAVIGATION_DATA,
        Flag.IS_PHASECORR_DATA,
        Flag.IS_DUMMYSCAN_DATA,
        Flag.IS_HPFEEDBACK_DATA,
        Flag.IS_RTFEEDBACK_DATA,
        Flag.IS_SURFACECOILCORRECTIONSCAN_DATA,
        Flag.IS_PHASE_STABILIZATION,
        Flag.IS_PHASE_STABILIZATION_REFERENCE,
    ]
    junk = [Line(np.full((3, 24), 1e6), ky=16, flags=flag) for flag in flags]
    (kspace,) = prepare(make_header(SHAPE), [block(junk), block(lines_of(data)), block(junk[:1])])
    np.testing.assert_allclose(kspace.data, data, atol=2e-4)
    left_out = next(note for note in kspace.notes if "left out" in note)
    for name in ("2 navigator", "1 phase correction", "1 dummy", "1 surface coil correction"):
        assert name in left_out


def test_separate_calibration_lines_calibrate_only_and_shared_ones_do_both() -> None:
    _, data = cine(phases=1)
    sent = []
    for ky in range(32):
        sampled, central = ky % 4 == 0, 8 <= ky < 24
        flag = Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING if sampled else Flag.IS_PARALLEL_CALIBRATION
        if sampled or central:
            sent.append(Line(data[0, :, ky], ky=ky, flags=flag if central else 0))
    (kspace,) = prepare(make_header(SHAPE), [block(sent)])
    assert kspace.lines_found == 8
    assert (kspace.sampling.pattern, kspace.sampling.acceleration) == ("uniform", 4)
    assert kspace.calibration is not None
    np.testing.assert_allclose(kspace.calibration, data[0, :, 8:24], atol=2e-4)


def test_calibration_lines_embedded_in_the_scan_belong_to_the_image_too() -> None:
    _, data = cine(phases=2)
    sent = []
    for phase, ky in np.ndindex(2, 32):
        sampled, central = ky % 4 == 0, 8 <= ky < 24
        flag = Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING if sampled else Flag.IS_PARALLEL_CALIBRATION
        if sampled or central:
            sent.append(
                Line(data[phase, :, ky], ky=ky, flags=flag if central else 0, counters={"phase": phase})
            )
    (kspace,) = prepare(make_header(SHAPE, limits={"phase": 1}, calibration_mode="embedded"), [block(sent)])
    measured = (np.arange(32) % 4 == 0) | ((np.arange(32) >= 8) & (np.arange(32) < 24))
    np.testing.assert_array_equal(kspace.mask.all(axis=2), np.broadcast_to(measured, (2, 32)))
    np.testing.assert_allclose(kspace.data, np.where(measured[:, None], data, 0), atol=2e-4)
    assert (kspace.sampling.pattern, kspace.sampling.acceleration, kspace.sampling.acs) == ("uniform", 4, 16)
    assert not any("more than once" in note for note in kspace.notes)
    np.testing.assert_allclose(kspace.calibration, data[:, :, 8:24].mean(axis=0), atol=2e-4)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("phases", [1, 9])
def test_the_noise_left_in_the_calibration_lines_is_known(separate: bool, phases: int) -> None:
    rng = np.random.default_rng(12)
    noise = white(rng, (phases, 6, 32, 24))
    flag = Flag.IS_PARALLEL_CALIBRATION if separate else 0
    sent = [
        Line(noise[p, :, ky], ky=ky, flags=flag, counters={"phase": p}) for p, ky in np.ndindex(phases, 32)
    ]
    imaging = [Line(noise[0, :, ky], ky=ky, counters={"phase": 0}) for ky in range(0, 32, 2)]
    blocks = [block(noise_lines(white(rng, (6, 65536)), readouts=64)), block(sent)]
    (kspace,) = prepare(make_header(SHAPE), [*blocks, block(imaging)] if separate else blocks, noise="auto")
    assert kspace.calibration is not None
    assert kspace.calibration_noise == pytest.approx(phases**-0.5, rel=1e-6)
    assert np.sqrt(np.mean(np.abs(kspace.calibration) ** 2)) == pytest.approx(phases**-0.5, rel=0.05)


def test_the_noise_of_data_that_were_not_whitened_is_not_known() -> None:
    _, data = cine(phases=1)
    (kspace,) = prepare(make_header(SHAPE), [block(lines_of(data))])
    assert kspace.calibration_noise is None


def test_embedded_calibration_is_the_mean_over_phases() -> None:
    _, data = cine(phases=6)
    rng = np.random.default_rng(5)
    mask = rng.random((6, 32)) < 0.25
    mask[:, 8:24] = True
    (kspace,) = prepare(make_header(SHAPE, limits={"phase": 5}), [block(lines_of(data, mask))])
    assert kspace.calibration is not None
    np.testing.assert_allclose(kspace.calibration, data[:, :, 8:24].mean(axis=0), atol=2e-4)
    np.testing.assert_array_equal(kspace.mask.any(axis=2), mask)


def test_interleaved_frames_calibrate_by_their_average() -> None:
    _, data = cine(phases=4)
    mask = (np.arange(32)[None] - np.arange(4)[:, None]) % 4 == 0
    (kspace,) = prepare(make_header(SHAPE, limits={"phase": 3}), [block(lines_of(data, mask))])
    assert kspace.calibration is not None
    assert (kspace.sampling.pattern, kspace.sampling.acceleration) == ("uniform", 4)
    assert any("average over phases calibrates" in note for note in kspace.notes)


def test_no_calibration_lines_are_said() -> None:
    _, data = cine(phases=1)
    mask = np.arange(32)[None] % 4 == 0
    (kspace,) = prepare(make_header(SHAPE), [block(lines_of(data, mask))])
    assert kspace.calibration is None
    assert any("no calibration lines" in note for note in kspace.notes)


def test_a_slab_gives_its_partitions_with_their_places() -> None:
    rng = np.random.default_rng(8)
    nz, (ny, nx) = 6, SHAPE
    volume = rng.standard_normal((2, nz, ny, nx)) + 1j * rng.standard_normal((2, nz, ny, nx))
    kspace = centred_fft(volume, (-3, -2, -1))
    header = make_header(
        SHAPE,
        encoded_matrix=(nx, ny, nz),
        recon_matrix=(nx, ny, nz),
        encoded_fov_mm=(2.0 * nx, 2.0 * ny, 30.0),
        recon_fov_mm=(2.0 * nx, 2.0 * ny, 30.0),
    )
    place = {"position": (1, 2, 3), "read_dir": (1, 0, 0), "phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1)}
    sent = [
        Line(kspace[:, kz, ky], ky=ky, counters={"kspace_encode_step_2": kz}, fields=place)
        for kz in range(nz)
        for ky in range(ny)
    ]
    found = prepare(header, [block(sent)])
    assert [k.index.partition for k in found] == list(range(nz))
    for z, piece in enumerate(found):
        np.testing.assert_allclose(centred_ifft(piece.data)[0], volume[:, z], atol=1e-3)
        assert piece.geometry.position_mm == pytest.approx((1, 2, 3 + (z - 2.5) * 5))
        assert piece.geometry.fov_mm[2] == 5.0
    with pytest.raises(UnsupportedScan, match="slice encoding"):
        prepare(header, [block([line for line in sent if line.counters["kspace_encode_step_2"] % 2])])


def test_times_come_from_the_time_stamps() -> None:
    _, data = cine(phases=4)
    sent = lines_of(data)
    for number, line in enumerate(sent):
        beat = number % 2
        wave = 1000 + 340 * beat
        after = 40 * line.counters["phase"] + 3
        line.fields["physiology_time_stamp"] = (after, 0, 0)
        line.fields["acquisition_time_stamp"] = wave + after
    (kspace,) = prepare(make_header(SHAPE, limits={"phase": 3}), [block(sent)])
    assert kspace.trigger_times_ms == pytest.approx([7.5, 107.5, 207.5, 307.5])
    assert kspace.rr_interval_ms == pytest.approx(850)
    assert kspace.acquisition_times_s is not None
    assert kspace.acquisition_times_s[0] == pytest.approx(1003 * 0.0025)


def test_without_time_stamps_there_are_no_times() -> None:
    (kspace,) = prepare(make_header(SHAPE), [block(lines_of(cine(phases=1)[1]))])
    assert (kspace.trigger_times_ms, kspace.acquisition_times_s, kspace.rr_interval_ms) == (None, None, None)


def test_siemens_data_with_directions_show_the_object_where_their_forward_transform_does() -> None:
    rng = np.random.default_rng(9)
    images = coil_images(rng, 1, 2, SHAPE)
    directions = {"read_dir": (1, 0, 0), "phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1)}
    raw = centred_fft(images)
    sent = lines_of(raw)
    for line in sent:
        line.fields |= directions
    forward = np.abs(centred_fft(raw))
    cases = {("SIEMENS", "auto"): True, ("GE", "auto"): False, ("GE", "conjugate"): True}
    for (vendor, orientation), turned in cases.items():
        header = make_header(SHAPE, vendor=vendor)
        (kspace,) = prepare(header, [block(sent)], orientation=orientation)
        expected = forward if turned else np.abs(images)
        np.testing.assert_allclose(np.abs(centred_ifft(kspace.data)), expected, atol=1e-3)
        assert kspace.geometry.known
        doubtful = (vendor, orientation) == ("GE", "auto")
        assert kspace.geometry.verified is not doubtful
        assert any("GE not verified, images may be mirrored" in note for note in kspace.notes) is doubtful
    for line in sent:
        line.fields.clear()
    (kspace,) = prepare(make_header(SHAPE, vendor="SIEMENS"), [block(sent)])
    np.testing.assert_allclose(np.abs(centred_ifft(kspace.data)), np.abs(images), atol=1e-3)
    assert not kspace.geometry.known
    assert kspace.geometry.verified
    assert any("no slice directions" in note for note in kspace.notes)


def test_two_encodings_become_two_scans() -> None:
    first, second = make_header(SHAPE), make_header((16, 24), encoding=1)
    data, other = cine(phases=1)[1], centred_fft(coil_images(np.random.default_rng(4), 1, 3, (16, 24)))
    sent = lines_of(data) + lines_of(other)
    for line in sent[32:]:
        line.fields["encoding_space_ref"] = 1
    preparation = Preparation((first, second), noise="none")
    found = preparation.feed(block(sent)) + preparation.finish()
    assert [(k.index.encoding, k.data.shape[-2:]) for k in found] == [(0, SHAPE), (1, (16, 24))]
    assert found[1].header is second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ky": 40}, "outside the encoded matrix"),
        ({"fields": {"encoding_space_ref": 3}}, "refer to encoding 3"),
        ({"samples": np.ones((5, 24))}, "5 channels, earlier ones 3"),
    ],
)
def test_contradicting_readouts_are_one_clear_error(change: dict[str, object], message: str) -> None:
    good = lines_of(cine(phases=1)[1])
    bad = Line(**{"samples": np.ones((3, 24)), "ky": 3} | change)  # type: ignore[arg-type]
    with pytest.raises(InconsistentReadouts, match=message):
        prepare(make_header(SHAPE), [block(good), block([bad])])


def test_lines_with_nan_are_left_out_and_said() -> None:
    _, data = cine(phases=1)
    sent = lines_of(data)
    sent[3].samples = sent[3].samples.copy()
    sent[3].samples[1, 5] = np.nan
    (kspace,) = prepare(make_header(SHAPE), [block(sent)])
    assert kspace.lines_found == 31
    assert np.isfinite(kspace.data).all()
    assert any("1 with NaN" in note for note in kspace.notes)


def test_readouts_without_samples_are_left_out_and_said() -> None:
    empty = block([Line(np.zeros((3, 0)))])
    (kspace,) = prepare(make_header(SHAPE), [empty, block(lines_of(cine(phases=1)[1]))])
    assert any("1 without samples" in note for note in kspace.notes)


def test_a_scan_without_imaging_lines_says_what_it_held() -> None:
    noise = block([Line(np.ones((3, 24)), flags=Flag.IS_NOISE_MEASUREMENT)] * 2)
    navigator = block([Line(np.ones((3, 24)), flags=Flag.IS_NAVIGATION_DATA)])
    with pytest.raises(DataError, match=r"no imaging lines.*navigator"):
        prepare(make_header(SHAPE), [noise, navigator], noise="auto")
    with pytest.raises(DataError, match="no imaging lines"):
        prepare(make_header(SHAPE), [])


@pytest.mark.parametrize("trajectory", ["radial", "spiral", "goldenangle", "epi", "other"])
def test_other_trajectories_are_refused_by_name(trajectory: str) -> None:
    with pytest.raises(UnsupportedScan, match=trajectory):
        Preparation((make_header(SHAPE, trajectory=trajectory),))


def test_compressed_samples_are_refused() -> None:
    line = Line(np.ones((2, 24)), flags=Flag.COMPRESSION2)
    with pytest.raises(UnsupportedScan, match="compressed"):
        prepare(make_header(SHAPE), [block([line])])


def test_the_matrix_of_the_image_is_given_where_it_differs_from_the_grid() -> None:
    sent = block(lines_of(cine(phases=1)[1]))
    assert prepare(make_header(SHAPE), [sent])[0].recon_shape is None
    other = make_header(SHAPE, recon_matrix=(48, 64, 1))
    assert prepare(other, [sent])[0].recon_shape == (64, 48)


def test_a_slab_oversampled_along_its_slices_gives_the_central_partitions() -> None:
    rng = np.random.default_rng(3)
    nz, (ny, nx) = 8, SHAPE
    kspace = rng.standard_normal((1, nz, ny, nx)) + 0j
    header = make_header(
        SHAPE,
        encoded_matrix=(nx, ny, nz),
        encoded_fov_mm=(2.0 * nx, 2.0 * ny, 40.0),
        recon_matrix=(nx, ny, 6),
        recon_fov_mm=(2.0 * nx, 2.0 * ny, 30.0),
    )
    sent = [
        Line(kspace[:, kz, ky], ky=ky, counters={"kspace_encode_step_2": kz})
        for kz in range(7)
        for ky in range(ny)
    ]
    found = prepare(header, [block(sent)])
    assert [k.index.partition for k in found] == list(range(6))
    assert all(k.geometry.fov_mm[2] == 5.0 for k in found)
    assert found[0].geometry.position_mm[2] == pytest.approx(-12.5)
    assert any("zero filled along kz" in note for note in found[0].notes)


def test_waveforms_pass_without_effect() -> None:
    waveform = Waveform(waveform_id=0, time_stamp=1, sample_time_us=2500, data=np.zeros((1, 4), np.uint32))
    assert Preparation((make_header(SHAPE),)).feed(waveform) == []


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_any_mix_of_flags_and_counters_gives_kspace_or_a_clear_error(data: st.DataObject) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(data.draw(st.integers(1, 12))):
        line = Line(rng.standard_normal((2, 24)), ky=data.draw(st.integers(0, 40)))
        line.flags = data.draw(st.integers(0, 2**32 - 1)) & data.draw(st.integers(0, 2**32 - 1))
        for name in ("phase", "slice", "average", "segment", "set", "repetition"):
            line.counters[name] = data.draw(st.sampled_from([0, 0, 0, 1, 5]))
        line.fields["center_sample"] = data.draw(st.sampled_from([12, 12, 0, 5, 23, 60]))
        line.fields["discard_pre"] = data.draw(st.sampled_from([0, 0, 3, 30]))
        line.fields["sample_time_us"] = data.draw(st.sampled_from([0.0, 5.0, float("nan")]))
        lines.append(line)
    limits = data.draw(st.sampled_from([{}, {"phase": 1}, {"phase": 3, "slice": 2}]))
    header = make_header(SHAPE, limits=limits, centre=data.draw(st.sampled_from([16, 0, 31])))
    try:
        found = prepare(header, [block([line]) for line in lines], noise="auto")
    except ReconNodeError as error:
        assert "\n" not in str(error)  # noqa: PT017 (most mixes give no error)
        return
    assert all(np.isfinite(kspace.data).all() for kspace in found)


def test_a_limit_that_announces_absurdly_many_phases_does_not_fill_the_memory() -> None:
    header = make_header(SHAPE, limits={"phase": 65535})
    (kspace,) = prepare(header, [block(lines_of(cine(phases=2)[1]))])
    assert kspace.data.shape[0] == 2
    assert isinstance(header.limits["phase"], Limit)


def test_a_phase_counter_that_cannot_be_does_not_fill_the_memory() -> None:
    sent = lines_of(cine(phases=1)[1])
    sent[5].counters["phase"] = 65535
    with pytest.raises(InconsistentReadouts, match="phase 65535 after 32 lines"):
        prepare(make_header(SHAPE), [block(sent)])
    sent[5].counters["phase"] = 80
    (kspace,) = prepare(make_header(SHAPE), [block(sent)])
    assert kspace.data.shape[0] == 2


def test_acquire_is_its_own_inverse() -> None:
    images, data = cine(phases=1)
    np.testing.assert_allclose(acquire(images, SHAPE[1]), data, atol=2e-4)

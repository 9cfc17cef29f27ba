"""Headers that contradict their lines: the right image, or a note that keeps the verdict from pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field_scans import Lines, Replayed, alike, axial, header, kspace_of, one_slice, phantom, replay, write

Capture = pytest.CaptureFixture[str]
MULTIBAND = (
    "<parallelImaging><accelerationFactor><kspace_encoding_step_1>1</kspace_encoding_step_1>"
    "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor><multiband><multiband_factor>{}"
    "</multiband_factor></multiband></parallelImaging>"
)
USER = (
    "<userParameters><userParameterLong><name>{}</name><value>{}</value></userParameterLong></userParameters>"
)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"parallel": MULTIBAND.format(2)}, "multiband"),
        ({"user": USER.format("MultiBandFactor", 3)}, "multiband"),
        ({"user": USER.format("SMSFactor", 2)}, "multiband"),
        ({"trajectory": "spiral"}, "spiral"),
        (
            {
                "trajectory": "cartesian</trajectory><trajectoryDescription><identifier>HargreavesVDS2000"
                "</identifier></trajectoryDescription><trajectory>cartesian"
            },
            "hargreavesvds2000",
        ),
        (
            {"measurement": "<measurementInformation><sequenceName>ep2d_diff</sequenceName>"
             "</measurementInformation>"},
            "echo planar",
        ),
    ],
)  # fmt: skip
def test_what_is_not_reconstructed_is_refused_by_its_name(
    values: dict[str, Any], word: str, tmp_path: Path, capsys: Capture
) -> None:
    found = replay(one_slice(tmp_path / "a.h5", header(**values)), tmp_path / "out", capsys)
    assert (found.code, found.series) == (1, [])
    assert word in found.errors


def test_a_multiband_factor_of_one_is_an_ordinary_scan(tmp_path: Path, capsys: Capture) -> None:
    xml = header(parallel=MULTIBAND.format(1), user=USER.format("MultiBandFactor", 1))
    assert replay(one_slice(tmp_path / "a.h5", xml), tmp_path / "out", capsys).verdicts == ["pass"]


def test_lines_read_in_both_directions_are_echo_planar_and_refused(tmp_path: Path, capsys: Capture) -> None:
    data = kspace_of(phantom())
    lines = Lines().add(data, range(0, 40, 2))
    lines.add(data[:, :, ::-1], range(1, 40, 2), flags=1 << 21)
    found = replay(write(tmp_path / "a.h5", header(), lines), tmp_path / "out", capsys)
    assert (found.code, found.series) == (1, [])
    assert "echo planar" in found.errors


def test_spokes_behind_a_cartesian_header_are_refused(tmp_path: Path, capsys: Capture) -> None:
    y, x = np.mgrid[:40, :40]
    angles = np.pi * np.arange(40) / 40
    along = np.arange(40) - 20
    image = phantom()
    spokes = np.zeros((3, 40, 40), complex)
    for number, angle in enumerate(angles):
        phase = np.exp(
            -2j * np.pi / 40 * (along[:, None, None] * ((x - 20) * np.cos(angle) + (y - 20) * np.sin(angle)))
        )
        spokes[:, number] = (phase * image).sum(axis=(1, 2)) / 40 * np.array([1, 1j, -1])[:, None]
    found = replay(
        write(tmp_path / "a.h5", header(), Lines().add(spokes.astype(np.complex64))), tmp_path / "out", capsys
    )
    assert (found.code, found.series) == (1, [])
    assert "non-Cartesian" in found.errors


@pytest.mark.parametrize("limited", [True, False])
def test_a_2d_scan_with_encoded_partitions_gives_one_image_of_its_thickness(
    limited: bool, tmp_path: Path, capsys: Capture
) -> None:
    limits = {"kspace_encoding_step_2": 0} if limited else {}
    xml = header(nz=2, fz=16, limits=limits)
    found = replay(one_slice(tmp_path / "a.h5", xml, **axial(30)), tmp_path / "out", capsys)
    (ds,) = found.instances
    assert float(ds.SliceThickness) == 8
    assert float(ds.ImagePositionPatient[2]) == 30
    assert ds.MRAcquisitionType == "2D"
    assert limited or found.verdicts == ["warn"]


def test_partitions_behind_a_2d_header_are_not_averaged(tmp_path: Path, capsys: Capture) -> None:
    lines = Lines()
    for partition in range(3):
        lines.add(kspace_of(phantom(shift=0.1 * partition)), kspace_encode_step_2=partition)
    found = replay(write(tmp_path / "a.h5", header(), lines), tmp_path / "out", capsys)
    assert (found.code, found.series) == (1, [])
    assert "partitions 0 to 2" in found.errors


@pytest.mark.parametrize("interleaved", [False, True])
def test_slices_whose_counter_was_lost_are_sorted_by_their_places(
    interleaved: bool, tmp_path: Path, capsys: Capture
) -> None:
    lines = Lines()
    truths = [phantom(shift=-0.2 * number) for number in range(3)]
    for rows in np.split(np.arange(40), 40 if interleaved else 1):
        for number, truth in enumerate(truths):
            lines.add(kspace_of(truth, seed=number), rows, **axial(10.0 * number))
    found = replay(write(tmp_path / "a.h5", header(limits={"slice": 2}), lines), tmp_path / "out", capsys)
    assert found.verdicts == ["warn"] * 3
    assert [float(ds.ImagePositionPatient[2]) for ds in found.instances] == [0, 10, 20]
    for number in range(3):
        likeness = [alike(found.image(number)[::-1, ::-1], np.roll(t, 1, (0, 1))) for t in truths]
        likeness = [max(one, alike(found.image(number), t)) for one, t in zip(likeness, truths, strict=True)]
        assert int(np.argmax(likeness)) == number


def test_a_few_lines_with_another_place_are_damaged_and_stay_with_their_slice(
    tmp_path: Path, capsys: Capture
) -> None:
    data = kspace_of(phantom())
    lines = Lines().add(data, range(36), **axial()).add(data, range(36, 40), **axial(55))
    found = replay(write(tmp_path / "a.h5", header(), lines), tmp_path / "out", capsys)
    assert found.verdicts == ["warn"]
    assert any("55 mm apart" in note for note in found.notes)


@pytest.mark.parametrize(
    ("places", "said"),
    [((0, 0), "one place"), ((0, 1.5), "mm apart"), ((0, 400), "mm apart"), ((0, 0.01), "one place")],
)
def test_slices_with_places_that_cannot_be_never_pass(
    places: tuple[float, float], said: str, tmp_path: Path, capsys: Capture
) -> None:
    lines = Lines()
    for number, place in enumerate(places):
        lines.add(kspace_of(phantom()), **{"slice": number, **axial(place)})
    found = replay(write(tmp_path / "a.h5", header(limits={"slice": 1}), lines), tmp_path / "out", capsys)
    assert "pass" not in found.verdicts
    assert any(said in note for note in found.notes)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"position": (40, 0, 0)}, "lie in one plane"),
        ({"position": (0, 0, 10), "slice_dir": (0, 0.5, 0.866)}, "not square to"),
    ],
)
def test_slices_beside_each_other_and_directions_that_contradict_never_pass(
    odd: dict[str, tuple[float, ...]], said: str, tmp_path: Path, capsys: Capture
) -> None:
    lines = Lines().add(kspace_of(phantom()), slice=0, **axial())
    lines.add(kspace_of(phantom()), slice=1, **(axial() | odd))
    found = replay(write(tmp_path / "a.h5", header(limits={"slice": 1}), lines), tmp_path / "out", capsys)
    assert found.verdicts[1] == "warn"
    assert any(said in note for note in found.notes)


@pytest.mark.parametrize("noise", [0.003, 0.01, 0.05])
def test_a_clean_scan_without_a_noise_scan_is_not_warned_of_its_noise(
    noise: float, tmp_path: Path, capsys: Capture
) -> None:
    lines = Lines()
    for number in range(2):
        lines.add(kspace_of(phantom(), noise=noise, seed=number), slice=number, **axial(10.0 * number))
    found = replay(write(tmp_path / "a.h5", header(limits={"slice": 1}), lines), tmp_path / "out", capsys)
    assert not [r for entry in found.series for r in entry["trust"]["reasons"] if "noise" in r]


def test_a_left_handed_slice_direction_contradicts_nothing(tmp_path: Path, capsys: Capture) -> None:
    lines = Lines().add(kspace_of(phantom()), **(axial() | {"slice_dir": (0, 0, -1)}))
    found = replay(write(tmp_path / "a.h5", header(), lines), tmp_path / "out", capsys)
    assert not any("not square" in note for note in found.notes)


def test_slices_without_any_place_have_no_position_in_dicom(tmp_path: Path, capsys: Capture) -> None:
    lines = Lines().add(kspace_of(phantom()), slice=0).add(kspace_of(phantom()), slice=1)
    found = replay(write(tmp_path / "a.h5", header(limits={"slice": 1}), lines), tmp_path / "out", capsys)
    assert found.verdicts == ["warn", "warn"]
    assert all("ImagePositionPatient" not in ds and "SliceLocation" not in ds for ds in found.instances)
    assert all(entry["geometry"] == {"known": False, "unknown": ["pitch"]} for entry in found.series)


METRES = {"fx": 0.32, "fy": 0.32, "fz": 0.008, "rfx": 0.32, "rfy": 0.32, "rfz": 0.008}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fx": 3200, "fy": 3200, "rfx": 3200, "rfy": 3200}, "wider than a bore"),
        ({"fx": 32, "fy": 32, "rfx": 32, "rfy": 32}, "smaller than a heart"),
        ({"field": 15000}, "no magnet"),
        ({"field": 0.0005}, "no magnet"),
        ({"field": 3.0}, "contradicts its resonance"),
        ({"rfx": 160, "fx": 160}, "wide and"),
        ({"fz": 8000, "rfz": 8000}, "thickness"),
    ],
)
def test_sizes_and_fields_that_no_scanner_has_are_told_and_never_pass(
    values: dict[str, Any], said: str, tmp_path: Path, capsys: Capture
) -> None:
    found = replay(one_slice(tmp_path / "a.h5", header(**values)), tmp_path / "out", capsys)
    assert found.verdicts == ["warn"]
    assert any(said in note for note in found.notes)


def test_fields_of_view_in_metres_are_millimetres_in_dicom(tmp_path: Path, capsys: Capture) -> None:
    found = replay(one_slice(tmp_path / "a.h5", header(**METRES)), tmp_path / "out", capsys)
    assert [float(value) for value in found.instances[0].PixelSpacing] == [8, 8]
    assert float(found.instances[0].SliceThickness) == 8
    assert found.verdicts == ["warn"]


def test_a_field_strength_in_gauss_is_that_of_the_resonance_frequency(
    tmp_path: Path, capsys: Capture
) -> None:
    found = replay(one_slice(tmp_path / "a.h5", header(field=14940)), tmp_path / "out", capsys)
    assert float(found.instances[0].MagneticFieldStrength) == pytest.approx(1.4947, abs=0.001)


@pytest.mark.parametrize("oversampled", [True, False])
def test_lines_that_fill_an_eighth_of_the_matrix_have_the_pixels_that_were_measured(
    oversampled: bool, tmp_path: Path, capsys: Capture
) -> None:
    image = phantom()
    if oversampled:  # the outer halves of the field of view are empty
        image = np.pad(phantom(40, 20), ((0, 0), (10, 10)))
    xml = header(nx=320, fx=640, rx=160)
    found = replay(
        write(tmp_path / "a.h5", xml, Lines().add(kspace_of(image), **axial())), tmp_path / "out", capsys
    )
    (ds,) = found.instances
    assert (ds.Rows, ds.Columns) == (40, 20 if oversampled else 40)
    assert [float(value) for value in ds.PixelSpacing] == [8, 16 if oversampled else 8]
    assert found.verdicts == ["warn"]
    assert any("40 samples where the header's matrix has 320" in note for note in found.notes)


@pytest.mark.parametrize("size", ["39.99996", "40.0", "40.00004"])
def test_matrices_that_are_not_whole_are_rounded(size: str, tmp_path: Path, capsys: Capture) -> None:
    found = replay(one_slice(tmp_path / "a.h5", header(ny=40, ry=size).replace("<y>40<", f"<y>{size}<")),
                   tmp_path / "out", capsys)  # fmt: skip
    assert (found.code, found.verdicts) == (0, ["pass"])
    assert found.instances[0].Rows == 40


def calibrated_by(encoding_fov: float, path: Path) -> Path:
    second = header(fx=encoding_fov, fy=encoding_fov, rfx=encoding_fov, rfy=encoding_fov)
    encoding = second[second.index("<encoding>") : second.index("</encoding>") + len("</encoding>")]
    xml = header(
        parallel="<parallelImaging><accelerationFactor><kspace_encoding_step_1>3</kspace_encoding_step_1>"
        "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor></parallelImaging>"
    ).replace("</encoding>", f"</encoding>{encoding}")
    data = kspace_of(phantom())
    lines = Lines().add(data, range(10, 30), flags=1 << 19, encoding_space_ref=1)
    return write(path, xml, lines.add(data, range(2, 40, 3)))


def test_calibration_lines_of_another_encoding_space_that_agrees_are_used(
    tmp_path: Path, capsys: Capture
) -> None:
    found = replay(calibrated_by(320, tmp_path / "a.h5"), tmp_path / "out", capsys)
    assert (found.code, len(found.instances)) == (0, 1)
    assert any("encoding space 1 calibrate space 0" in note for note in found.notes)


def test_calibration_lines_of_another_field_of_view_are_not_used_and_told(
    tmp_path: Path, capsys: Capture
) -> None:
    found = replay(calibrated_by(400, tmp_path / "a.h5"), tmp_path / "out", capsys)
    assert (found.code, found.series) == (1, [])
    assert "calibration" in found.errors


def test_too_few_calibration_lines_are_counted_beside_the_true_minimum(
    tmp_path: Path, capsys: Capture
) -> None:
    rows = sorted({*range(0, 40, 2), *range(17, 23)})
    lines = Lines().add(kspace_of(phantom()), rows)
    found = replay(write(tmp_path / "a.h5", header(), lines), tmp_path / "out", capsys)
    assert "found 6" in found.errors or "found 7" in found.errors
    assert "at least 8" in found.errors


@pytest.mark.parametrize("last", [65535, 511])
def test_many_missing_phases_are_one_short_note(last: int, tmp_path: Path, capsys: Capture) -> None:
    found: Replayed = replay(
        one_slice(tmp_path / "a.h5", header(limits={"phase": last})), tmp_path / "out", capsys
    )
    assert any("missing" in note and len(note) < 120 for note in found.notes)

"""Cases made after public reports, where they lie beside this repository: each as it should be."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from field_scans import Replayed, alike, replay

from recon_node.cli import run
from recon_node.offline.send import send_scan
from recon_node.online.serve import Running, serving
from recon_node.settings import Settings

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside this repository")


def whole_files(folder: Path) -> list[Path]:
    """DICOM files in their place; what is being written beside them may vanish meanwhile."""
    walk = os.walk(folder, onerror=lambda error: None)
    return [
        Path(root) / name
        for root, _, names in walk
        for name in names
        if name.endswith(".dcm") and ".writing-" not in root
    ]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Running]:
    folders = {"out": str(tmp_path / "served"), "deferred": str(tmp_path / "deferred")}
    settings = Settings().replace("recon", method="sense").replace("server", port=0, **folders)
    with serving(settings) as running:
        yield running


@pytest.fixture
def case(tmp_path: Path, capsys: Capture):
    def of(name: str, *options: str) -> Replayed:
        return replay(
            CASES / name, tmp_path / f"of {name} {' '.join(options)}".replace("/", "_"), capsys, *options
        )

    return of


def passed_like_the_plain_one(found: Replayed, case, number: int = 0) -> bool:
    return alike(found.image(number), case("17_plain.h5").image()) > 0.95


def test_a_single_coil_file_is_one_coil_of_four_times_three_slices(case) -> None:
    found = case("01_cine_sax_single.mat")
    assert [(entry["slice"], entry["phases"]) for entry in found.series] == [(0, 4), (1, 4), (2, 4)]
    assert set(found.verdicts) == {"warn"}
    assert not any("PixelSpacing" in ds for ds in found.instances)


def test_multiband_is_refused_by_name(case) -> None:
    found = case("02_sms.h5")
    assert (found.code, found.series) == (1, [])
    assert "multiband" in found.errors


@pytest.mark.parametrize("way", ["replay", "send", "deferred"])
def test_a_latin_1_name_arrives_unchanged_every_way(
    way: str, case, node: Running, tmp_path: Path, capsys: Capture
) -> None:
    if way == "replay":
        names = {(str(ds.PatientName), ds.PatientID) for ds in case("03_latin1_declared.h5").instances}
    else:
        properties = {"mode": "deferred"} if way == "deferred" else {}
        assert send_scan(CASES / "03_latin1_declared.h5", port=node.server.port, properties=properties).ok
        end = time.monotonic() + 60
        while not (found := whole_files(tmp_path / "served")) and time.monotonic() < end:
            time.sleep(0.05)
        read = [pydicom.dcmread(path) for path in found]
        names = {(str(ds.PatientName), ds.PatientID) for ds in read}
    (name, number) = next(iter(names))
    assert len(names) == 1
    assert "ü" in name or "ö" in name or "é" in name or "ä" in name
    assert "\ufffd" not in name + number


def test_a_2d_scan_with_two_encoded_partitions_is_one_image_at_its_place(case) -> None:
    found = case("04_pulseq_z2.h5")
    (ds,) = found.instances
    assert float(ds.ImagePositionPatient[2]) == pytest.approx(0.0, abs=1e-3)
    assert passed_like_the_plain_one(found, case)


def test_slices_whose_counter_was_lost_lie_at_their_places_and_do_not_pass(case) -> None:
    found = case("06_slice_counter_lost.h5")
    places = sorted(float(ds.ImagePositionPatient[2]) for ds in found.instances)
    assert np.diff(places) == pytest.approx([10, 10])
    assert "pass" not in found.verdicts


def test_coil_maps_are_left_out_and_told(case) -> None:
    found = case("07_coilmap.mat")
    assert (found.code, found.series) == (1, [])
    assert "no k-space" in found.errors


def test_both_scans_of_a_stream_are_there(case) -> None:
    found = case("08_two_streams.mrd")
    assert (found.code, len(found.series)) == (0, 2)


@pytest.mark.parametrize("realtime", [False, True])
def test_more_phases_than_announced_are_the_same_in_both_ways(realtime: bool, case, node: Running) -> None:
    sent = send_scan(CASES / "09_more_phases.h5", port=node.server.port, realtime=realtime)
    found = case("09_more_phases.h5")
    assert (sent.ok, sent.images, len(found.instances)) == (True, 8, 8)
    assert any("beyond" in note for note in found.notes)


def test_stamps_in_milliseconds_give_times_within_the_study(case) -> None:
    found = case("11_stamps_ms.h5")
    assert {str(ds.AcquisitionTime)[:2] for ds in found.instances} == {str(found.instances[0].StudyTime)[:2]}
    assert any("1 ms" in note for note in found.notes)


@pytest.mark.parametrize("name", ["12_matrix_y_39.99996.h5", "14_refs_in_encoding_1.h5", "17_nested.h5"])
def test_what_is_odd_in_form_only_gives_the_image(name: str, case) -> None:
    found = case(name)
    assert found.code == 0
    assert found.instances[0].pixel_array.shape == (40, 40)
    assert passed_like_the_plain_one(found, case)


def test_too_few_calibration_lines_are_counted_with_the_true_minimum(case) -> None:
    found = case("15_six_acs.h5")
    assert found.code == 1
    assert "found 6 fully sampled" in found.errors
    assert "at least 8" in found.errors


def test_lines_shorter_than_the_header_says_are_told_and_never_pass(case) -> None:
    found = case("16_header320_lines40.h5")
    assert "pass" not in found.verdicts
    assert any("40 samples" in note for note in found.notes)


def test_one_of_two_groups_is_chosen_with_and_without_its_slash(case, node: Running, capsys: Capture) -> None:
    told = case("17_two.h5")
    assert told.code == 1
    assert "--group" in told.errors
    for group in ("meas1", "/meas2", "meas2/"):
        found = case("17_two.h5", "--group", group)
        assert (found.code, len(found.instances)) == (0, 1)
        assert send_scan(CASES / "17_two.h5", port=node.server.port, dataset=group).images == 1
    assert case("17_plain.h5", "--group", "/dataset").code == 0
    assert run(["inspect", str(CASES / "17_two.h5"), "--group", "/meas1"]) == 0
    assert case("17_two.h5", "--group", "meas3").code == 1


def test_absurd_limits_and_tables_are_one_short_line(case) -> None:
    found = case("21_phase_limit_65535.h5")
    assert found.code == 0
    assert passed_like_the_plain_one(found, case)
    refused = case("22_table_2d.h5")
    assert refused.code == 1
    assert "(40, 1)" in refused.errors
    assert len(refused.errors.splitlines()) == 1

"""Folders that a person can read, and slices of a stack in one series."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from recon_node.cli import run
from recon_node.core.errors import ConfigError
from recon_node.core.folders import depth, filled, pseudonym, trouble_with
from recon_node.offline.replay import replay
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan

SETTINGS = Settings().replace("recon", method="view-sharing", check_trust=False)
READABLE = "{patient}/{date}-{protocol}/{slice}-{method}"


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("folders") / "heart.h5"
    simulate_scan(raw, acceleration=4, pattern="random", coils=4, slices=3, phases=6, matrix=64, seed=3)
    return raw


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("plain", "fields|parts"),
        ("{study}/{name}", "fields of study"),
        ("{study!r}/x", "fields of study"),
        ("{slice:3}", "fields of study"),
        ("{study}/../{series}", "begins with a dot"),
        ("/{study}", "empty"),
        ("{study}//{series}", "empty"),
        ("{study", "balanced"),
        ("{}", "fields"),
        ("{study}/a b", "letters"),
        ("/".join(["{study}"] * 9), "1 to 8 parts"),
    ],
)
def test_a_template_that_is_none_is_told_with_what_is_allowed(template: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        Settings().replace("dicom", folders=template)
    assert trouble_with(template) is not None


def test_what_a_template_leaves_the_same_is_told_apart_and_stays_below() -> None:
    values = dict.fromkeys(("study", "series", "date", "time", "slice", "number", "method"), "1")
    values |= {"patient": pseudonym("P1"), "protocol": "../../etc/passwd x"}
    one, other = (filled("{patient}/{protocol}", values, unique=unique) for unique in ("a", "b"))
    assert one != other
    assert one.parts[0] == other.parts[0] == pseudonym("P1")
    assert ".." not in one.parts
    assert "/" not in one.parts[1]
    assert filled("{study}/{series}", values, unique="a") == Path("1/1")
    assert len(filled("{study}/{series}", values, unique="a", whole_series=False).parts) == 3
    assert (depth("{study}/{series}", stack=False), depth("{study}/{series}", stack=True)) == (2, 3)


def test_folders_have_names_that_a_person_reads_and_nothing_of_the_patient(
    heart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_NODE__DICOM__FOLDERS", READABLE)
    command = ["replay", str(heart), "--out", str(tmp_path), "--method", "view-sharing"]
    assert run(command) == 0
    entries = json.loads((tmp_path / "summary.json").read_text())["series"]
    for entry in entries:
        (folder,) = entry["folders"]
        patient, scan, name = folder.split("/")
        assert len(patient) == 8
        assert name.startswith(f"{entry['slice'] + 1:02d}-view-sharing-")
        files = [pydicom.dcmread(path) for path in (tmp_path / folder).glob("*.dcm")]
        assert {one.SOPInstanceUID for one in files} == set(entry["instances"])
        assert f"slice {entry['slice'] + 1} " in files[0].SeriesDescription
        assert scan.startswith(f"{files[0].StudyDate or 'undated'}-")
        assert str(files[0].PatientName) not in folder
        assert str(files[0].PatientID) not in folder
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert run([*command, "--resume"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")} == before


def test_a_stack_is_one_series_whose_settings_are_part_of_its_name(heart: Path, tmp_path: Path) -> None:
    stacked = SETTINGS.replace("dicom", stack=True)
    replay([heart], tmp_path / "a", stacked)
    files = [pydicom.dcmread(path) for path in (tmp_path / "a").rglob("*.dcm")]
    assert len(files) == 18
    assert len({one.SeriesInstanceUID for one in files}) == len({one.SeriesNumber for one in files}) == 1
    assert sorted(int(one.InstanceNumber) for one in files) == list(range(1, 19))
    assert len({one.SOPInstanceUID for one in files}) == 18
    assert "slice" not in files[0].SeriesDescription
    replay([heart], tmp_path / "b", stacked.replace("coils", crop=0.7))
    others = {pydicom.dcmread(path).SeriesInstanceUID for path in (tmp_path / "b").rglob("*.dcm")}
    assert len(others) == 1
    assert others != {files[0].SeriesInstanceUID}
    with pytest.raises(ConfigError, match="format"):
        SETTINGS.replace("dicom", stack=True, format="enhanced-mr")


@pytest.mark.real
def test_dcm2niix_makes_one_stack_over_time_of_it(heart: Path, tmp_path: Path, component: object) -> None:
    program = component("dcm2niix")  # type: ignore[operator]
    replay([heart], tmp_path / "images", SETTINGS.replace("dicom", stack=True, folders=READABLE))
    dicom = tmp_path / "images"
    command = [program, "-o", tmp_path, "-d", "9", dicom]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (path,) = tmp_path.glob("*.nii")
    image = nibabel.load(path)
    assert image.shape == (64, 64, 3, 6)
    found = np.asarray(image.dataobj)
    for one in map(pydicom.dcmread, dicom.rglob("*.dcm")):
        spot = np.asarray(one.ImagePositionPatient, float) * [-1, -1, 1]
        index = np.linalg.inv(image.affine) @ [*spot, 1]
        place = round(float(index[2]))
        assert abs(index[2] - place) < 0.01
        frame = (int(one.InstanceNumber) - 1) // 3
        shown = found[:, :, place, frame].T[::-1]  # dcm2niix turns the rows
        stored = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
        np.testing.assert_allclose(shown, stored, rtol=1e-3, atol=1e-4)

"""Two folders of images: met by their place in the patient, on other pixels too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from recon_node.cli import run
from recon_node.core.errors import DataError, DicomError
from recon_node.dicom.read import read_slices
from recon_node.lab.compare.run import compare_folders
from recon_node.offline.replay import replay
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan

Vector = NDArray[np.float64]
SETTINGS = Settings().replace("recon", method="view-sharing", check_trust=False)
NORMAL = np.array([0.48, 0.6, 0.64])
ACROSS = np.cross([0.0, 0.0, 1.0], NORMAL) / np.linalg.norm(np.cross([0.0, 0.0, 1.0], NORMAL))
DOWN = np.cross(NORMAL, ACROSS)
CENTRE = np.array([10.0, -20.0, 30.0])


def body(points: Vector, time: float) -> Vector:
    """Something smooth in the patient, in mm, that moves with the heart's cycle."""
    wide = 20 + 4 * np.sin(2 * np.pi * time)
    one = np.exp(-np.sum((points - CENTRE - 8 * ACROSS) ** 2, axis=-1) / (2 * wide**2))
    return one + 0.6 * np.exp(-np.sum((points - CENTRE + 25 * DOWN) ** 2, axis=-1) / (2 * 14.0**2))


def write_series(
    folder: Path,
    *,
    size: int,
    spacing: float,
    turn: float = 0.0,
    shift: float = 0.0,
    frames: int = 4,
    gain: float = 1.0,
    kind: str = "M",
    description: str = "somebody's cine",
) -> None:
    """A slice of `body` as some scanner stores it; `turn` in degrees within its plane, `shift` mm across."""
    folder.mkdir(parents=True, exist_ok=True)
    angle = np.radians(turn)
    across, down = (
        np.cos(angle) * ACROSS + np.sin(angle) * DOWN,
        -np.sin(angle) * ACROSS + np.cos(angle) * DOWN,
    )
    corner = CENTRE + shift * NORMAL - (across + down) * spacing * (size - 1) / 2
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    points = corner + spacing * (rows[..., None] * down + columns[..., None] * across)
    series = generate_uid()
    for frame in range(frames):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, "1.2.3", "1.2.3.4"
        ds.SeriesDescription, ds.Modality, ds.ImageType = description, "MR", ["ORIGINAL", "PRIMARY", kind]
        ds.Rows = ds.Columns = size
        ds.InstanceNumber, ds.TriggerTime = frame + 1, 1000 * frame / frames
        ds.ImagePositionPatient = [round(float(x), 6) for x in corner]
        ds.ImageOrientationPatient = [round(float(x), 9) for x in (*across, *down)]
        ds.PixelSpacing, ds.SliceThickness = [spacing, spacing], 6
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        values = np.rint(gain * 4000 * body(points, frame / frames))
        ds.PixelData = values.astype("<u2").tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(folder / f"{frame}.dcm", enforce_file_format=True)


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("compare") / "heart.h5"
    simulate_scan(raw, acceleration=4, pattern="random", coils=4, slices=2, phases=5, matrix=48, seed=3)
    return raw


def test_a_series_on_other_pixels_turned_and_scaled_is_found_to_be_the_same(tmp_path: Path) -> None:
    write_series(tmp_path / "a", size=64, spacing=2.0)
    write_series(tmp_path / "b", size=90, spacing=1.7, turn=33.0, gain=3.7)
    (row,) = compare_folders(tmp_path / "a", tmp_path / "b").rows
    assert row["factor"] == pytest.approx(3.7, rel=1e-3)
    assert row["psnr"] > 55
    assert row["ssim"] > 0.999
    assert row["same_frame_of_reference"]
    (unscaled,) = compare_folders(tmp_path / "a", tmp_path / "b", scale=False).rows
    assert unscaled["factor"] == 1
    assert unscaled["psnr"] < 20


def test_images_meet_by_their_place_in_the_cycle(tmp_path: Path) -> None:
    write_series(tmp_path / "a", size=64, spacing=2.0, frames=4)
    write_series(tmp_path / "b", size=64, spacing=2.0, frames=12)
    (row,) = compare_folders(tmp_path / "a", tmp_path / "b").rows
    assert (row["frames"], row["frames_b"]) == (4, 12)
    assert row["psnr"] is None or row["psnr"] > 60


def test_a_difference_is_measured_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "a", size=64, spacing=2.0)
    write_series(tmp_path / "b", size=64, spacing=2.0)
    path = tmp_path / "a" / "2.dcm"
    ds = pydicom.dcmread(path)
    pixels = ds.pixel_array.copy()
    pixels[20:30, 20:30] += 1000
    ds.PixelData = pixels.tobytes()
    ds.save_as(path)
    out = tmp_path / "page"
    command = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]
    assert run(command) == 0
    (row,) = json.loads((out / "summary.json").read_text())["pairs"]
    assert row["worst_frame"] == 3
    peak = pydicom.dcmread(tmp_path / "b" / "0.dcm").pixel_array.max()
    assert row["largest"] == pytest.approx(1000 / peak, rel=0.2)
    with Image.open(out / row["picture"]) as picture:
        shown = np.asarray(picture.convert("L"))
    error = shown[:, -64:]
    assert error[22:28, 22:28].min() > 5 * error[40:, 40:].max()
    assert "pair-001.png" not in (out / "index.html").read_text().partition("<table")[0]
    assert (out / "table.csv").read_text().count("\n") == 2
    capsys.readouterr()
    assert run([*command, "--least-psnr", "80"]) == 1
    assert "expected 80 or more" in capsys.readouterr().err
    assert run([*command, "--least-ssim", "0.999999"]) == 1
    capsys.readouterr()
    assert run([*command[:3], "--least-psnr", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"]


def test_only_what_shows_the_same_meets(tmp_path: Path) -> None:
    write_series(tmp_path / "a" / "near", size=64, spacing=2.0, description="mine")
    write_series(tmp_path / "a" / "far", size=64, spacing=2.0, shift=40.0, description="far away")
    write_series(tmp_path / "b" / "phase", size=64, spacing=2.0, kind="P", description="phase")
    write_series(tmp_path / "b" / "beside", size=64, spacing=2.0, shift=2.0, description="2 mm beside")
    write_series(tmp_path / "b" / "same", size=64, spacing=2.0, description="same place")
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    assert [(row["a"], row["b"]) for row in found.rows] == [("mine", "same place")]
    assert "A: far away: nothing in B lies there" in found.notes
    assert any("phase" in note for note in found.notes)


def test_two_replays_of_one_scan_are_compared_slice_by_slice(heart: Path, tmp_path: Path) -> None:
    replay([heart], tmp_path / "a", SETTINGS)
    replay([heart], tmp_path / "b", SETTINGS)
    same = compare_folders(tmp_path / "a", tmp_path / "b")
    assert [(row["psnr"], row["ssim"], row["nmse"]) for row in same.rows] == [(None, 1.0, 0.0)] * 2
    replay([heart], tmp_path / "c", SETTINGS.replace("recon", method="zero-filled"))
    other = compare_folders(tmp_path / "c", tmp_path / "b")
    assert all(10 < row["psnr"] < 60 for row in other.rows)
    replay([heart], tmp_path / "d", SETTINGS.replace("dicom", format="enhanced-mr", turn="radiological"))
    turned = compare_folders(tmp_path / "d", tmp_path / "b")
    assert len(turned.rows) == 2
    assert all(row["psnr"] is None or row["psnr"] > 60 for row in turned.rows)
    assert len(read_slices(tmp_path / "d")[0][0]) == 5


def test_folders_that_cannot_be_compared_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path / "a", size=32, spacing=2.0)
    write_series(tmp_path / "b", size=32, spacing=2.0, shift=100)
    write_series(tmp_path / "zero", size=32, spacing=2.0, gain=0)
    write_series(tmp_path / "lost", size=32, spacing=2.0)
    for path in (tmp_path / "lost").iterdir():
        ds = pydicom.dcmread(path)
        del ds.PixelSpacing
        ds.save_as(path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    with pytest.raises(DicomError, match="is no folder"):
        compare_folders(tmp_path / "absent", tmp_path / "b")
    with pytest.raises(DicomError, match="no DICOM image lies here"):
        compare_folders(tmp_path / "a", tmp_path / "empty")
    with pytest.raises(DataError, match="none of 1 slices"):
        compare_folders(tmp_path / "a", tmp_path / "b")
    with pytest.raises(DataError, match="zero everywhere"):
        compare_folders(tmp_path / "a", tmp_path / "zero")
    with pytest.raises(DataError, match="pixel size: cannot be compared"):
        compare_folders(tmp_path / "lost", tmp_path / "b")
    ds = pydicom.dcmread(tmp_path / "a" / "1.dcm")
    ds.PixelData = ds.PixelData[:100]
    ds.save_as(tmp_path / "a" / "1.dcm")
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "a")]) == 1
    told = capsys.readouterr().err
    assert "1.dcm: its pixels cannot be read" in told
    assert told.count("\n") == 1


def test_frames_that_a_file_cannot_hold_are_not_counted(tmp_path: Path) -> None:
    write_series(tmp_path / "a", size=32, spacing=2.0)
    path = next((tmp_path / "a").rglob("*.dcm"))
    ds = pydicom.dcmread(path)
    ds.NumberOfFrames = 2**31 - 1
    ds.save_as(path)
    slices, unusable = read_slices(tmp_path / "a")
    assert len(unusable) == 1
    assert sum(len(one.frames) for one in slices) == 3


def test_damaged_values_cost_the_images_that_have_them(tmp_path: Path) -> None:
    write_series(tmp_path / "a", size=32, spacing=2.25)
    write_series(tmp_path / "b", size=32, spacing=2.25)
    one = tmp_path / "a" / "1.dcm"
    one.write_bytes(one.read_bytes().replace(rb"2.25\2.25", rb"2.25\2.T5"))
    two = pydicom.dcmread(tmp_path / "a" / "2.dcm")
    two.ImagePositionPatient = ["1e400", "0", "0"]
    two.save_as(tmp_path / "a" / "2.dcm")
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    assert [row["frames"] for row in found.rows] == [2]
    assert any("1.dcm: a value cannot be read (ValueError)" in note for note in found.notes)
    assert any("no position, orientation or pixel size" in note for note in found.notes)
    steep = pydicom.dcmread(tmp_path / "b" / "0.dcm")
    steep.RescaleSlope = "1e300"
    steep.save_as(tmp_path / "b" / "0.dcm")
    with pytest.raises(DicomError, match=r"0\.dcm: rescaled by 1e"):
        compare_folders(tmp_path / "a", tmp_path / "b")

"""Series as scanners store them: other pixels, directions and orders, classic and multi-frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from recon_node.cli import run
from recon_node.core.errors import DataError
from recon_node.dicom.read import read_slices
from recon_node.lab.compare.run import compare_folders

Vector = NDArray[np.float64]
NORMAL = np.array([0.48, 0.6, 0.64])
ACROSS = np.cross([0.0, 0.0, 1.0], NORMAL) / np.linalg.norm(np.cross([0.0, 0.0, 1.0], NORMAL))
DOWN = np.cross(NORMAL, ACROSS)
CENTRE = np.array([10.0, -20.0, 30.0])
RR_MS, PHASES, SLICES, GAP_MM = 800.0, 6, 3, 8.0
UNEVEN = (0.0, 40.0, 266.0 / 2, 266.0, 400.0, 533.0, 667.0)
"""Trigger times of a vendor's frames: 2 of them are between those of the node."""


def heart(points: Vector, time: float) -> Vector:
    """Different in every direction, and moving."""
    offset = points - CENTRE
    offset = offset - 0.6 * (offset @ NORMAL)[..., None] * DOWN
    wide = 18 + 5 * np.sin(2 * np.pi * time)
    one = np.exp(-np.sum((offset - 12 * ACROSS) ** 2, axis=-1) / (2 * wide**2))
    two = 0.7 * np.exp(-np.sum((offset + 30 * DOWN + 10 * ACROSS) ** 2, axis=-1) / (2 * 12.0**2))
    return one + two * (1 + 0.02 * offset @ NORMAL)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a scanner lays out its pixels."""

    across: Vector
    down: Vector
    size: tuple[int, int]
    spacing: tuple[float, float]
    times: tuple[float, ...]
    gain: float = 1.0
    backwards: bool = False

    def corner(self, place: int) -> Vector:
        rows, columns = self.size
        half = (
            self.down * self.spacing[0] * (rows - 1) / 2 + self.across * self.spacing[1] * (columns - 1) / 2
        )
        corner: Vector = CENTRE + (place - 1) * GAP_MM * NORMAL - half
        return corner

    def image(self, place: int, time: float) -> NDArray[np.uint16]:
        rows, columns = np.meshgrid(*map(np.arange, self.size), indexing="ij")
        points = (
            self.corner(place)
            + rows[..., None] * self.spacing[0] * self.down
            + columns[..., None] * self.spacing[1] * self.across
        )
        return np.rint(1000 * self.gain * heart(points, time / RR_MS)).astype(np.uint16)

    def order(self) -> list[tuple[int, float]]:
        places = range(SLICES)[:: -1 if self.backwards else 1]
        return [(place, time) for place in places for time in self.times]


NODE = Layout(
    across=ACROSS,
    down=DOWN,
    size=(64, 64),
    spacing=(2.5, 2.5),
    times=tuple(RR_MS * phase / PHASES for phase in range(PHASES)),
)
OTHERS = {
    "interpolated": Layout(across=ACROSS, down=DOWN, size=(128, 128), spacing=(1.25, 1.25), times=NODE.times),
    "rows are columns": Layout(across=DOWN, down=ACROSS, size=(60, 64), spacing=(2.5, 2.5), times=NODE.times),
    "mirrored, last slice first": Layout(
        across=-ACROSS, down=DOWN, size=(64, 64), spacing=(2.5, 2.5), times=NODE.times, backwards=True
    ),
    "oblong pixels": Layout(across=DOWN, down=-ACROSS, size=(96, 80), spacing=(1.5, 2.0), times=NODE.times),
    "triggered unevenly": Layout(across=ACROSS, down=DOWN, size=(64, 64), spacing=(2.5, 2.5), times=UNEVEN),
}


def base(layout: Layout, sop_class: str, description: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
    ds.StudyInstanceUID, ds.FrameOfReferenceUID, ds.Modality = "1.2.3", "1.2.3.4", "MR"
    ds.SeriesDescription, ds.ImageType = description, ["ORIGINAL", "PRIMARY", "M"]
    ds.Rows, ds.Columns = layout.size
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def place_of(layout: Layout, place: int) -> tuple[list[float], list[float]]:
    position = [round(float(value), 4) for value in layout.corner(place)]
    return position, [round(float(value), 6) for value in (*layout.across, *layout.down)]


def write_classic(folder: Path, layout: Layout, description: str) -> None:
    """One series of all slices, an image a file; the numbers run through the slices first."""
    folder.mkdir(parents=True)
    series = generate_uid()
    for number, (place, time) in enumerate(layout.order()):
        ds = base(layout, MRImageStorage, description)
        ds.SeriesInstanceUID = series
        ds.InstanceNumber = 1 + layout.times.index(time) * SLICES + place
        ds.TriggerTime = time
        ds.ImagePositionPatient, ds.ImageOrientationPatient = place_of(layout, place)
        ds.PixelSpacing, ds.SliceThickness = list(layout.spacing), 6
        ds.PixelData = layout.image(place, time).tobytes()
        ds.save_as(folder / f"IM{number:04d}", enforce_file_format=True)


def group(**values: object) -> Sequence:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return Sequence([item])


def write_enhanced(folder: Path, layout: Layout, description: str) -> None:
    """One file of all slices and times, magnitude and phase in turn, each frame with a scale of its own."""
    folder.mkdir(parents=True)
    ds = base(layout, EnhancedMRImageStorage, description)
    ds.SeriesInstanceUID, ds.InstanceNumber = generate_uid(), 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "CARDIAC", "NONE"]
    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=list(layout.spacing), SliceThickness=6)
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames, pixels = [], []
    for number, (place, time) in enumerate(layout.order()):
        for component in ("MAGNITUDE", "PHASE"):
            frame = Dataset()
            position, orientation = place_of(layout, place)
            frame.PlanePositionSequence = group(ImagePositionPatient=position)
            frame.PlaneOrientationSequence = group(ImageOrientationPatient=orientation)
            frame.CardiacSynchronizationSequence = group(NominalCardiacTriggerDelayTime=time)
            frame.MRImageFrameTypeSequence = group(ComplexImageComponent=component)
            slope = 1.0 + number % 2
            frame.PixelValueTransformationSequence = group(RescaleSlope=slope, RescaleIntercept=0)
            frames.append(frame)
            image = (
                layout.image(place, time) / slope if component == "MAGNITUDE" else np.full(layout.size, 2048)
            )
            pixels.append(np.rint(image).astype("<u2"))
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.NumberOfFrames, ds.PixelData = len(frames), np.stack(pixels).tobytes()
    ds.save_as(folder / "IM0001", enforce_file_format=True)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node") / "images"
    write_classic(folder, NODE, "recon-node")
    return folder


@pytest.mark.parametrize("write", [write_classic, write_enhanced], ids=["classic", "enhanced"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_scanners_series_of_the_same_heart_is_found_to_be_the_same(
    node: Path, tmp_path: Path, write: object, name: str
) -> None:
    assert callable(write)
    write(tmp_path / "vendor", OTHERS[name], "cine")
    found = compare_folders(node, tmp_path / "vendor")
    assert len(found.rows) == SLICES
    for row in found.rows:
        assert (row["frames"], row["frames_b"]) == (PHASES, len(OTHERS[name].times))
        assert row["psnr"] is None or row["psnr"] > 45
        assert row["shared"] > 0.8
    assert not found.failed
    assert all("nothing in A lies there" in note for note in found.notes)
    assert len(found.notes) == (SLICES if write is write_enhanced else 0), "the phase images have no partner"


def test_a_heart_that_is_a_slice_further_is_not_the_same(node: Path, tmp_path: Path) -> None:
    write_classic(tmp_path / "vendor", OTHERS["interpolated"], "cine")
    for path in (tmp_path / "vendor").iterdir():
        ds = pydicom.dcmread(path)
        moved = np.asarray(ds.ImagePositionPatient, float) + GAP_MM * NORMAL
        ds.ImagePositionPatient = [round(float(value), 4) for value in moved]
        ds.save_as(path)
    found = compare_folders(node, tmp_path / "vendor")
    assert len(found.rows) == SLICES - 1
    assert all(row["psnr"] < 45 for row in found.rows)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (["one", "two"], ["two", "three"], [("two", "two")]),
        (["one"], ["called otherwise"], [("one", "called otherwise")]),
        (["one", "two"], ["three"], []),
    ],
    ids=["the patient that both have", "one patient of two names", "nobody"],
)
def test_patients_at_the_same_place_are_not_confused(
    tmp_path: Path, ours: list[str], theirs: list[str], expected: list[tuple[str, str]]
) -> None:
    for side, patients in (("a", ours), ("b", theirs)):
        for patient in patients:
            write_classic(tmp_path / side / patient, NODE, patient)
            for path in (tmp_path / side / patient).iterdir():
                ds = pydicom.dcmread(path)
                ds.PatientID, ds.StudyInstanceUID = patient, f"1.2.3.{len(patient)}"
                ds.save_as(path)
    if not expected:
        with pytest.raises(DataError, match="expected images of"):
            compare_folders(tmp_path / "a", tmp_path / "b")
        return
    found = compare_folders(tmp_path / "a", tmp_path / "b")
    assert {(row["a"], row["b"]) for row in found.rows} == set(expected)
    assert len(found.rows) == SLICES


def test_colours_and_a_damaged_pair_do_not_end_the_others(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vendor = tmp_path / "vendor"
    write_classic(vendor, OTHERS["interpolated"], "cine")
    first = pydicom.dcmread(vendor / "IM0000")
    first.PixelData = first.PixelData[:100]
    first.save_as(vendor / "IM0000")
    shot = base(NODE, SecondaryCaptureImageStorage, "screenshot")
    shot.SeriesInstanceUID, shot.SamplesPerPixel, shot.PhotometricInterpretation = generate_uid(), 3, "RGB"
    shot.BitsAllocated = shot.BitsStored = 8
    shot.HighBit, shot.PlanarConfiguration, shot.PixelData = 7, 0, bytes(3 * 64 * 64)
    shot.save_as(vendor / "shot", enforce_file_format=True)
    assert run(["compare", str(node), str(vendor)]) == 1
    told = capsys.readouterr()
    assert told.out.count("PSNR") == SLICES - 1
    assert "IM0000: its pixels cannot be read" in told.err
    assert "B: screenshot: colours" in told.err


def test_a_trigger_time_of_zero_is_a_time(tmp_path: Path) -> None:
    write_classic(tmp_path / "vendor", OTHERS["triggered unevenly"], "cine")
    slices, notes = read_slices(tmp_path / "vendor")
    assert not notes
    assert len(slices) == SLICES
    for one in slices:
        assert one.cycle[0] == 0
        np.testing.assert_allclose(one.cycle[-1], UNEVEN[-1] / RR_MS, atol=0.02)

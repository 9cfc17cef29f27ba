"""DICOM images as slices that can be compared: real values, place in space, order in time."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from recon_node.core.errors import DicomError

_SAME_MM = 0.1
_SAME_DIRECTION = 1e-3
"""Images of one series whose places and directions differ by no more are one slice."""
_COMPONENTS = {"PHASE": "P", "REAL": "R", "IMAGINARY": "I"}
"""Complex Image Component (PS3.3 C.8.13.3.1.1) of a frame that is no magnitude."""
_TIMES = ("TriggerTime", "NominalCardiacTriggerDelayTime", "ActualCardiacTriggerDelayTime")
_OTHERS = {"P": "P", "PHASE": "P", "PHASE MAP": "P", "VELOCITY MAP": "VELOCITY MAP", "T1 MAP": "T1 MAP"}
_OTHERS |= {"T2 MAP": "T2 MAP", "R": "R", "REAL": "R", "I": "I", "IMAGINARY": "I"}
"""Value 3 of ImageType, as vendors write it, of what is no magnitude."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Where an image lies (PS3.3 C.7.6.2), in mm of the patient's coordinates (LPS)."""

    position: tuple[float, float, float]
    """Centre of the first pixel."""
    across: tuple[float, float, float]
    """Unit vector along a row."""
    down: tuple[float, float, float]
    """Unit vector along a column."""
    spacing: tuple[float, float]
    """Between rows, between columns."""
    shape: tuple[int, int]
    """Rows, columns."""
    thickness: float
    """Of the slice; 0 where it is not known."""

    def is_like(self, other: Plane) -> bool:
        """Whether pixels of the other lie on these."""
        turned = np.abs(np.subtract([*self.across, *self.down], [*other.across, *other.down])).max()
        moved = np.abs(np.subtract(self.position, other.position)).max()
        return self.shape == other.shape and bool(turned <= _SAME_DIRECTION and moved <= _SAME_MM)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector `(3,)` across the plane."""
        return np.cross(self.across, self.down)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    path: Path
    number: int | None
    """Within a multi-frame instance, from 0."""
    time_ms: float | None
    order: int
    plane: Plane


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomSlice:
    """The images of one slice of a series, in order of time."""

    series: str
    """SeriesInstanceUID."""
    description: str
    """SeriesDescription: no name of a patient, unless somebody typed one there."""
    quantity: str
    """``M`` for magnitude; else value 3 of ImageType, or a letter for the component."""
    frame_of_reference: str
    patient: str = field(repr=False)
    """PatientID; empty where there is none."""
    study: str
    """StudyInstanceUID."""
    plane: Plane
    frames: tuple[_Frame, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def cycle(self) -> NDArray[np.float64]:
        """Where in the series' time each image lies, `(frame,)` from 0 to below 1."""
        count = len(self.frames)
        times = [frame.time_ms for frame in self.frames]
        if count < 2 or any(time is None for time in times) or len(set(times)) < count:
            return np.arange(count) / max(count, 1)
        known = np.asarray(times, np.float64)
        step = float(np.median(np.diff(known)))
        return np.asarray((known - known[0]) / (known[-1] - known[0] + step))

    def pixels(self) -> NDArray[np.float32]:
        """Real values after the rescale, `(frame, y, x)` float32.

        Raises
        ------
        DicomError
            Pixels that cannot be read (a compression that is not installed, a damaged file).
        """
        read: dict[Path, Dataset] = {}
        images = []
        for frame in self.frames:
            try:
                if frame.path not in read:
                    read = {frame.path: pydicom.dcmread(frame.path)}
                ds = read[frame.path]
                stored = ds.pixel_array.reshape(-1, *frame.plane.shape)[frame.number or 0]
                slope = float(_value(ds, "RescaleSlope", frame.number, 1.0))
                intercept = float(_value(ds, "RescaleIntercept", frame.number, 0.0))
            except Exception as error:
                raise DicomError(f"{frame.path.name}: its pixels cannot be read ({error!s:.80})") from error
            if not max(abs(slope), abs(intercept)) < _MOST_RESCALED:
                raise DicomError(
                    f"{frame.path.name}: rescaled by {slope:g} and {intercept:g}: no usable values"
                )
            images.append(np.asarray(stored, np.float32) * np.float32(slope) + np.float32(intercept))
        return np.stack(images)


_MOST_RESCALED = 1e12
"""Slope and intercept: beyond, squares of differences are no single-precision numbers."""
_Members = list[tuple[Dataset, _Frame]]
"""Images of one slice."""


def read_slices(folder: Path) -> tuple[list[DicomSlice], list[str]]:
    """Every slice of the DICOM images below a folder; other files are passed over.

    Returns
    -------
    (list of DicomSlice, list of str)
        The slices, and a line for each series that has no place in space, or no values.

    Raises
    ------
    DicomError
        There is no folder, or no DICOM image in it.
    """
    if not folder.is_dir():
        raise DicomError(f"{folder}: is no folder, expected one with DICOM files")
    groups: dict[tuple[str, str], list[_Members]] = defaultdict(list)
    images = 0
    unusable: set[str] = set()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        ds = _head(path)
        if ds is None:
            continue
        images += 1
        try:
            unusable |= _sorted_in(ds, path, groups)
        except Exception as error:  # noqa: BLE001 - whatever a damaged value makes pydicom stumble over
            unusable.add(f"{path.name}: a value cannot be read ({type(error).__name__}): cannot be compared")
    if not images:
        raise DicomError(f"{folder}: no DICOM image lies here")
    found = [_slice(members, quantity) for (_, quantity), slices in groups.items() for members in slices]
    return found, sorted(unusable)


def _sorted_in(ds: Dataset, path: Path, groups: dict[tuple[str, str], list[_Members]]) -> set[str]:
    """Put the images of a file to those of their slices; what is wrong with those that have none."""
    name = str(ds.get("SeriesDescription", ds.SeriesInstanceUID))
    if ds.get("SamplesPerPixel", 1) != 1:
        return {f"{name}: colours, no values: cannot be compared"}
    unusable = set()
    for frame in _frames(ds, path):
        if frame is None:
            unusable.add(f"{name}: no position, orientation or pixel size: cannot be compared")
            continue
        slices = groups[str(ds.SeriesInstanceUID), _quantity(ds, frame.number)]
        mine = next((some for some in slices if some[0][1].plane.is_like(frame.plane)), None)
        if mine is None:
            slices.append(mine := [])
        mine.append((ds, frame))
    return unusable


def _slice(members: _Members, quantity: str) -> DicomSlice:
    ds = members[0][0]
    frames = sorted((frame for _, frame in members), key=lambda one: (one.time_ms or 0.0, one.order))
    return DicomSlice(
        series=str(ds.SeriesInstanceUID),
        description=str(ds.get("SeriesDescription", "") or "unnamed"),
        quantity=quantity,
        frame_of_reference=str(ds.get("FrameOfReferenceUID", "")),
        patient=str(ds.get("PatientID", "") or "").strip(),
        study=str(ds.get("StudyInstanceUID", "")),
        plane=frames[0].plane,
        frames=tuple(frames),
    )


def _head(path: Path) -> Dataset | None:
    """A file without its pixels, where it is an image of a series."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on values that nothing here looks at
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError, ValueError):
            return None
    return ds if "SeriesInstanceUID" in ds and "Rows" in ds else None


def _frames(ds: Dataset, path: Path) -> Iterator[_Frame | None]:
    numbers: Iterable[int | None] = [None]
    if "NumberOfFrames" in ds:
        count = int(ds.NumberOfFrames)
        numbers = range(count)
        if count > path.stat().st_size:  # a frame has bytes
            yield None
            return
    for number in numbers:
        plane = _plane(ds, number)
        times = (_value(ds, keyword, number, None) for keyword in _TIMES)
        time = next((one for one in times if one is not None), None)
        yield (
            None
            if plane is None
            else _Frame(
                path=path,
                number=number,
                time_ms=None if time is None else float(time),
                order=int(ds.get("InstanceNumber") or 0) if number is None else number,
                plane=plane,
            )
        )


def _plane(ds: Dataset, number: int | None) -> Plane | None:
    position = _value(ds, "ImagePositionPatient", number, None)
    orientation = _value(ds, "ImageOrientationPatient", number, None)
    spacing = _value(ds, "PixelSpacing", number, None)
    if not position or not orientation or not spacing:
        return None
    x, y, z = map(float, position)
    turned = tuple(map(float, orientation))
    if not np.isfinite([x, y, z, *turned]).all() or not all(0 < float(size) < np.inf for size in spacing):
        return None
    return Plane(
        position=(x, y, z),
        across=(turned[0], turned[1], turned[2]),
        down=(turned[3], turned[4], turned[5]),
        spacing=(float(spacing[0]), float(spacing[1])),
        shape=(int(ds.Rows), int(ds.Columns)),
        thickness=float(_value(ds, "SliceThickness", number, None) or 0.0),
    )


def _quantity(ds: Dataset, number: int | None) -> str:
    component = _COMPONENTS.get(str(_value(ds, "ComplexImageComponent", number, "")).upper())
    if component is not None:
        return component
    kind: Any = ds.get("ImageType") or ()
    word = str(kind[2]) if len(kind) > 2 else "M"
    return _OTHERS.get(word.upper(), "M")


def _value(ds: Dataset, keyword: str, number: int | None, default: Any) -> Any:
    """A value of a frame: its own group's, the shared group's, or the instance's."""
    if number is not None:
        groups = list(ds.get("PerFrameFunctionalGroupsSequence", ()))[number : number + 1]
        groups += list(ds.get("SharedFunctionalGroupsSequence", ()))[:1]
        for group in groups:
            for element in group:
                if element.VR == "SQ" and len(element.value) and keyword in element.value[0]:
                    return element.value[0][element.value[0][keyword].tag].value
    return ds.get(keyword, default)

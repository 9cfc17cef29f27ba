"""Cines in DICOM files: series of single frames, and multi-frame objects, parted into slices."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from recon_node.core.errors import DataError
from recon_node.lab.cines.matrix import check_finite, restored
from recon_node.simulate import NOMINAL_FIELDS_T
from recon_node.simulate.cine import Cine

_SEGMENTATIONS = ("SEG", "RTSTRUCT")
_VENDORS = {"siemens": "Siemens", "ge ": "GE", "philips": "Philips", "uih": "UIH", "united imaging": "UIH"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """The files of one DICOM series."""

    name: str
    """Folder of the first file and the series' place in it: no name of a patient."""
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Frame:
    pixels: NDArray[np.float32]
    where: tuple[float, ...]
    """Position and orientation: frames of one slice have the same."""
    order: tuple[float, float]
    """Trigger time (ms, 0 where not known) and number."""


def series_of(files: Iterable[Path], folder: Path) -> list[Series]:
    """DICOM files among `files`, put together by series; other files are passed over."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        try:
            head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        except (InvalidDicomError, OSError, EOFError, ValueError):
            continue
        groups[str(head.get("SeriesInstanceUID", path))].append(path)
    found: list[Series] = []
    seen: dict[str, int] = defaultdict(int)
    for paths in groups.values():
        place = paths[0].relative_to(folder).parent.as_posix()
        place = "series" if place == "." else place
        seen[place] += 1
        name = place if seen[place] == 1 else f"{place}-{seen[place]}"
        found.append(Series(name=name, files=tuple(paths)))
    return found


def read_series(series: Series) -> list[Cine]:
    """Read one series: a clip for each slice in it.

    Raises
    ------
    DataError
        A segmentation, colour, burned-in text, no pixel size, frames of mixed sizes, or one frame only.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on values that nothing here looks at
        try:
            return _clips(series)
        except DataError:
            raise
        except Exception as error:  # whatever a damaged value makes pydicom stumble over
            kind = type(error).__name__
            raise DataError(f"{series.name}: a value cannot be read ({kind}): copy the files anew") from error


def _clips(series: Series) -> list[Cine]:
    heads = [_read(path, series.name) for path in series.files]
    for head in heads:
        _check(head, series.name)
    frames = [frame for head in heads for frame in _frames(head, series.name)]
    first = heads[0]
    if len({frame.pixels.shape for frame in frames}) > 1:
        sizes = sorted({frame.pixels.shape for frame in frames})
        raise DataError(f"{series.name}: found frames of mixed sizes {sizes}, expected one size in a series")
    slices: dict[tuple[float, ...], list[_Frame]] = defaultdict(list)
    for frame in frames:
        slices[frame.where].append(frame)
    moving = {where: some for where, some in slices.items() if len(some) > 1}
    if not moving:
        raise DataError(f"{series.name}: found one frame for each slice, expected a cine of at least 2")
    return [
        _clip(first, some, series.name if len(moving) == 1 else f"{series.name}_slice{number + 1:02d}")
        for number, (_, some) in enumerate(sorted(moving.items()))
    ]


def _read(path: Path, name: str) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(path)
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{name}: {path.name} cannot be read ({type(error).__name__})") from error


def _check(head: pydicom.Dataset, name: str) -> None:
    if str(head.get("Modality", "")) in _SEGMENTATIONS or "SegmentSequence" in head:
        raise DataError(f"{name}: found a segmentation among the images, expected a cine: leave it out")
    grey = str(head.get("PhotometricInterpretation", "")).startswith("MONOCHROME")
    if int(head.get("SamplesPerPixel", 1)) != 1 or not grey:
        raise DataError(f"{name}: found colour or no image, expected grey values (MONOCHROME2)")
    if str(head.get("BurnedInAnnotation", "NO")).upper() == "YES":
        raise DataError(f"{name}: text is burned into the images, expected images without it")


def _frames(head: pydicom.Dataset, name: str) -> list[_Frame]:
    try:
        pixels = np.asarray(head.pixel_array, np.float32)
    except Exception as error:
        raise DataError(f"{name}: pixels cannot be decoded ({type(error).__name__})") from error
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    functional = head.get("PerFrameFunctionalGroupsSequence") or [pydicom.Dataset()] * len(pixels)
    return [
        _Frame(pixels=frame, where=_place(head, own), order=(_trigger(head, own), number + _number(head)))
        for number, (frame, own) in enumerate(zip(pixels, functional, strict=False))
    ]


def _shared(head: pydicom.Dataset) -> pydicom.Dataset:
    shared = head.get("SharedFunctionalGroupsSequence")
    return shared[0] if shared else pydicom.Dataset()


def _within(group: pydicom.Dataset, sequence: str, key: str) -> Any:
    inside = group.get(sequence)
    return inside[0].get(key) if inside else None


def _place(head: pydicom.Dataset, own: pydicom.Dataset) -> tuple[float, ...]:
    position = _within(own, "PlanePositionSequence", "ImagePositionPatient") or head.get(
        "ImagePositionPatient"
    )
    turn = _within(own, "PlaneOrientationSequence", "ImageOrientationPatient") or head.get(
        "ImageOrientationPatient"
    )
    return tuple(round(float(v), 2) for v in [*(position or ()), *(turn or ())])


def _along_normal(where: tuple[float, ...]) -> float | None:
    if len(where) != 9:
        return None
    return float(np.dot(where[:3], np.cross(where[3:6], where[6:])))


def _trigger(head: pydicom.Dataset, own: pydicom.Dataset) -> float:
    value = _within(own, "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
    value = head.get("TriggerTime") if value is None else value
    return 0.0 if value is None else float(value)


def _number(head: pydicom.Dataset) -> int:
    return int(head.get("InstanceNumber") or 0)


def _clip(head: pydicom.Dataset, frames: Sequence[_Frame], name: str) -> Cine:
    ordered = sorted(frames, key=lambda frame: frame.order)
    pixel = head.get("PixelSpacing") or _within(_shared(head), "PixelMeasuresSequence", "PixelSpacing")
    if pixel is None or len(pixel) != 2:
        raise DataError(f"{name}: no pixel size (PixelSpacing), expected mm")
    stack = np.stack([frame.pixels for frame in ordered])
    check_finite(name, stack)
    images, pixel_mm = restored(
        np.abs(stack), (float(pixel[0]), float(pixel[1])), matrix=_matrix(head, stack.shape[1:])
    )
    times = tuple(frame.order[0] for frame in ordered)
    rising = bool((np.diff(times) > 0).all())
    return Cine(
        images=images,
        pixel_mm=pixel_mm,
        name=name,
        trigger_times_ms=times if rising else None,
        field_t=_field(head),
        vendor=_vendor(head),
        slice_mm=_along_normal(frames[0].where),
        phase_axis={"ROW": 1, "COL": 0}.get(str(head.get("InPlanePhaseEncodingDirection", ""))),
    )


def _matrix(head: pydicom.Dataset, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(y, x) samples by Acquisition Matrix: frequency rows and columns, phase rows and columns."""
    given = head.get("AcquisitionMatrix")
    if given is None or len(given) != 4:
        return None
    rows, columns = (max(int(given[i]), int(given[i + 2])) for i in (0, 1))
    fits = 16 <= rows <= shape[0] and 16 <= columns <= shape[1]
    return (rows, columns) if fits else None


def _field(head: pydicom.Dataset) -> float | None:
    value = head.get("MagneticFieldStrength")
    if value is None:
        return None
    nearest = min(NOMINAL_FIELDS_T, key=lambda known: abs(known - float(value)))
    return nearest if abs(nearest - float(value)) < 0.3 else None


def _vendor(head: Mapping[Any, Any] | pydicom.Dataset) -> str | None:
    maker = f"{head.get('Manufacturer', '')} ".lower()
    return next((word for part, word in _VENDORS.items() if part in maker), None)

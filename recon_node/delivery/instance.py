"""What delivery needs to know of a DICOM file: its identity, and the properties that routing looks at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from recon_node.core.errors import DicomError

ROUTING_KEYWORDS = (
    "Modality",
    "BodyPartExamined",
    "StationName",
    "InstitutionName",
    "SeriesDescription",
    "ProtocolName",
    "StudyDescription",
    "ImageType",
)
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Identity of one SOP instance; holds no patient data, so it may be logged."""

    sop_class: str
    uid: str
    transfer_syntax: str
    study: str = ""
    series: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    """Values of `ROUTING_KEYWORDS` present in the file, several values joined by a backslash."""


def read_instance(source: Path | bytes) -> Instance:
    """Identity of a DICOM file (PS3.10) or of its bytes, pixels not read.

    Raises
    ------
    DicomError
        Not a DICOM file, cut off before the pixels, or without its UIDs.
    """
    what = source.name if isinstance(source, Path) else "the data"
    dataset = read_dataset(source, only=(*_IDENTITY, *ROUTING_KEYWORDS), what=what)
    meta = dataset.file_meta
    missing = [k for k in _IDENTITY[:2] if not dataset.get(k)]
    if "TransferSyntaxUID" not in meta:
        missing.append("TransferSyntaxUID")
    if missing:
        raise DicomError(f"{what} lacks {', '.join(missing)}: it cannot be sent")
    return Instance(
        sop_class=str(dataset.SOPClassUID),
        uid=str(dataset.SOPInstanceUID),
        transfer_syntax=str(meta.TransferSyntaxUID),
        study=str(dataset.get("StudyInstanceUID", "")),
        series=str(dataset.get("SeriesInstanceUID", "")),
        properties={k: _text(dataset.get(k)) for k in ROUTING_KEYWORDS if dataset.get(k)},
    )


def read_dataset(source: Path | bytes, *, only: Iterable[str] | None = None, what: str = "") -> FileDataset:
    """The data set of a file; with `only`, just those elements and no pixels.

    Raises
    ------
    DicomError
        Not a DICOM file, or not to be read.
    """
    what = what or (source.name if isinstance(source, Path) else "the data")
    tags = None if only is None else list(only)
    try:
        stream = BytesIO(source) if isinstance(source, bytes) else source
        return dcmread(stream, stop_before_pixels=tags is not None, specific_tags=tags)
    except FileNotFoundError as error:
        raise DicomError(f"{what} is not there any more") from error
    except (InvalidDicomError, EOFError, OSError, ValueError, AttributeError) as error:
        raise DicomError(f"{what} is not a readable DICOM file: {error}") from error


def _text(value: object) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return str(value)
    return "\\".join(str(part) for part in value)

"""What delivery needs to know of a DICOM file: its identity, and the properties that routing looks at."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import config, dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from recon_node.core.errors import DicomError
from recon_node.core.names import printable
from recon_node.delivery.structure import check_whole

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
_LONGEST_UID = 64
# What is read here is sent on as it is: pydicom's opinions of its values, which quote them, are nobody's.
config.settings.reading_validation_mode = config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Identity of one SOP instance; holds no patient data, so it may be logged."""

    sop_class: str
    uid: str
    transfer_syntax: str
    is_filed_as_itself: bool = True
    """The file's meta information names the same SOP class and instance as its data set."""
    study: str = ""
    series: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    """Values of `ROUTING_KEYWORDS` present in the file, several values joined by a backslash."""


def read_instance(source: Path | bytes) -> Instance:
    """Identity of a DICOM file (PS3.10) or of its bytes, pixels not read.

    Raises
    ------
    DicomError
        Not a DICOM file, cut off before the pixels, or without UIDs that it can be known by.
    """
    return _identified(source, _name(source))


def _identified(source: Path | bytes, what: str) -> Instance:
    dataset = read_dataset(source, only=(*_IDENTITY, *ROUTING_KEYWORDS), what=what)
    try:
        return _instance(dataset, what)
    except DicomError:
        raise
    except Exception as error:  # pydicom reads values when they are asked for, and raises what it likes
        raise DicomError(f"{what} holds values that are not DICOM ({type(error).__name__})") from error


def check_file(data: bytes, what: str = "the data") -> Instance:
    """Identity of the bytes of a DICOM file that is whole to its last pixel.

    Raises
    ------
    DicomError
        As `read_instance`; also cut off anywhere, or fewer pixels than rows, columns and frames say.
    """
    check_whole(data, what)
    return _identified(data, what)


def _name(source: Path | bytes) -> str:
    return printable(source.name) if isinstance(source, Path) else "the data"


def _instance(dataset: FileDataset, what: str) -> Instance:
    meta = dataset.file_meta
    missing = [k for k in _IDENTITY[:2] if not dataset.get(k)]
    if not meta.get("TransferSyntaxUID"):
        missing.append("TransferSyntaxUID")
    if missing:
        raise DicomError(f"{what} lacks {', '.join(missing)}: it cannot be sent")
    return Instance(
        sop_class=_uid(dataset.SOPClassUID, "SOPClassUID", what),
        uid=_uid(dataset.SOPInstanceUID, "SOPInstanceUID", what),
        transfer_syntax=_uid(meta.TransferSyntaxUID, "TransferSyntaxUID", what),
        is_filed_as_itself=(
            meta.get("MediaStorageSOPClassUID") == dataset.SOPClassUID
            and meta.get("MediaStorageSOPInstanceUID") == dataset.SOPInstanceUID
        ),
        study=_text(dataset.get("StudyInstanceUID") or ""),
        series=_text(dataset.get("SeriesInstanceUID") or ""),
        properties={k: _text(dataset.get(k)) for k in ROUTING_KEYWORDS if dataset.get(k)},
    )


def _uid(value: object, keyword: str, what: str) -> str:
    """A UID as it stands, odd characters and all; what no queue or protocol can carry is refused."""
    text = str(value).rstrip(" ") if isinstance(value, str) else ""
    if not 1 <= len(text) <= _LONGEST_UID or not text.isascii() or not text.isprintable():
        raise DicomError(
            f"{what} has a {keyword} of {len(str(value))} characters that is no UID: expected one value of 1 "
            f"to {_LONGEST_UID} printable characters, digits and dots by the standard"
        )
    return text


def read_dataset(source: Path | bytes, *, only: Iterable[str] | None = None, what: str = "") -> FileDataset:
    """The data set of a file; with `only`, just those elements and no pixels.

    Raises
    ------
    DicomError
        Not a DICOM file, or not to be read.
    """
    what = what or _name(source)
    tags = None if only is None else list(only)
    try:
        stream = BytesIO(source) if isinstance(source, bytes) else source
        return dcmread(stream, stop_before_pixels=tags is not None, specific_tags=tags)
    except FileNotFoundError as error:
        raise DicomError(f"{what} is not there any more") from error
    except OSError as error:
        raise DicomError(f"{what} cannot be read: {error.strerror or type(error).__name__}") from error
    except InvalidDicomError as error:
        raise DicomError(f"{what} is not a readable DICOM file: it lacks the DICM mark") from error
    except Exception as error:  # pydicom raises what it likes on damaged data, and quotes it
        raise DicomError(f"{what} is not a readable DICOM file ({type(error).__name__})") from error


def _text(value: object) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return str(value)
    return "\\".join(str(part) for part in value)

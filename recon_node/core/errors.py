"""Every error this package raises on purpose.

The class decides what happens next (retry or not, which exit code), never the text.

    ReconNodeError
    ├── ConfigError                 wrong usage or settings (exit 2)
    ├── SourceError                 raw data cannot be read
    │   ├── TruncatedStream         the bytes end before the scan does
    │   ├── ProtocolError           the peer broke the MRD protocol
    │   └── UnsupportedScan         read well, but of a kind this node does not reconstruct
    │       └── NoKSpace            coil maps, masks or images, which lie beside k-space
    ├── DataError                   raw data was read, but contradicts itself
    │   ├── InconsistentReadouts    counters, channels or matrix disagree
    │   └── CalibrationError        no usable calibration lines for coil maps
    ├── ModelError
    │   ├── WeightsError            weights missing, misshapen, or for another encoder
    │   └── DeviceError             the device failed or is full (retryable)
    ├── LimitReached                more than this node allows; the text names the limit and its setting
    │   └── NodeBusy                too much at this moment (retryable)
    ├── DiskFull                    too little room left to take a scan (retryable)
    ├── DicomError                  an instance cannot be built as the standard wants it
    └── DeliveryError
        ├── SpoolCorrupt            the spool's index or a file in it is damaged
        ├── PacsUnreachable         no route, refused, timed out (retryable)
        ├── PacsMisconfigured       AE title, presentation context or TLS refused
        └── PacsRejected            the PACS answered with a failure status
"""

from __future__ import annotations

import re
import traceback
from pathlib import PurePath
from typing import ClassVar

LONGEST = 300
"""Characters of a message: the rest helps nobody."""


def shown(name: object) -> str:
    """A name, of a file for example, as it can be printed whatever its bytes are."""
    return str(name).encode("utf-8", "replace").decode("utf-8")


def one_line(message: str, longest: int = LONGEST) -> str:
    """A message as it is told: one line that can be printed, of at most `longest` characters."""
    line = shown(re.sub(r"\s*[\r\n]+\s*", " ", message).strip())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


class ReconNodeError(Exception):
    """Base of every error raised on purpose; `str()` is one line for the user."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class ConfigError(ReconNodeError):
    """Wrong usage or configuration."""

    exit_code = 2


class SourceError(ReconNodeError):
    """Raw data cannot be read."""


class TruncatedStream(SourceError):
    """The bytes end before the scan does."""


class ProtocolError(SourceError):
    """The peer broke the MRD protocol."""


class UnsupportedScan(SourceError):
    """The data is well formed, but of a kind this node does not reconstruct."""


class DataError(ReconNodeError):
    """Raw data was read, but contradicts itself."""


class NoKSpace(UnsupportedScan):
    """The file holds something else that lies beside k-space: coil maps, masks, images."""


class InconsistentReadouts(DataError):
    """Counters, channel counts or matrix sizes disagree."""


class CalibrationError(DataError):
    """No usable calibration lines to estimate coil maps from."""


class ModelError(ReconNodeError):
    """The network cannot be made or run."""


class WeightsError(ModelError):
    """Weights are missing, misshapen, or were trained with another text encoder."""


class DeviceError(ModelError):
    """The compute device failed or is out of memory."""

    retryable = True


class LimitReached(ReconNodeError):
    """A peer asks for more than this node allows; the text names the limit and its setting."""


class NodeBusy(LimitReached):
    """A peer asks for more than this node has room for at this moment."""

    retryable = True


class DiskFull(ReconNodeError):
    """Too little room is left on a disk to take a scan."""

    retryable = True


class DicomError(ReconNodeError):
    """An instance cannot be built as the DICOM standard wants it."""


class DeliveryError(ReconNodeError):
    """An instance could not be delivered."""


class SpoolCorrupt(DeliveryError):
    """The spool's index, or a file in it, is damaged."""


class PacsUnreachable(DeliveryError):
    """No route, connection refused, or timed out."""

    retryable = True


class PacsMisconfigured(DeliveryError):
    """AE title, presentation context or TLS was refused: a person must change a setting."""


class PacsRejected(DeliveryError):
    """The PACS answered with a failure status.

    Attributes
    ----------
    status : int
        DICOM status code (PS3.7 Annex C), for example 0xA700; for STOW-RS the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def where_it_failed(error: BaseException) -> str:
    """Type and places of an unforeseen exception, without its text, which might quote a header."""
    places = traceback.extract_tb(error.__traceback__)
    names = [f"{PurePath(place.filename).name}:{place.lineno}" for place in places[::-1]]
    return " at ".join(filter(None, (type(error).__name__, " < ".join(names))))

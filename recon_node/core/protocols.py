"""Where other implementations plug in; everything else in this package is a plain function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding


class Source(Protocol):
    """Raw data of one scan, from a file or a connection."""

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding, index = `ScanHeader.encoding`."""

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """Readouts in the order of acquisition, in runs of one shape."""


class OpenSource(Source, Protocol):
    """A source that holds a file open, and is a context manager."""

    def close(self) -> None:
        """Let go of the file; harmless when closed already."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class TextEncoder(Protocol):
    """Turns sentences into feature vectors (frozen; never trained here)."""

    @property
    def name(self) -> str:
        """Short name, for example ``minilm``."""

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the vectors."""

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """`(sentence, feature)` float32."""


class Reconstructor(Protocol):
    """Makes images from one slice."""

    @property
    def name(self) -> str:
        """Method name as `MadeBy.method` shows it."""

    def reconstruct(self, kspace: KSpace, maps: CoilMaps, text: TextEmbedding | None) -> ImageSeries:
        """Images on the grid of `kspace`; maps and text may be ignored."""


class Destination(Protocol):
    """Where instances go. Returning from `send` means: safe at the other end."""

    @property
    def name(self) -> str:
        """Name from the settings, or the address."""

    def send(self, files: Sequence[Path]) -> None:
        """Deliver DICOM files; raises a `DeliveryError` for the first one that is not accepted."""

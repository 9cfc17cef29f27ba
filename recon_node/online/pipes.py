"""Raw data from a pipe and images into one: the protocols that ``recon-node stream`` speaks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np

from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.errors import ConfigError, DataError, ProtocolError, SourceError
from recon_node.core.protocols import Source
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.files.open import open_source
from recon_node.mrd.frames import FrameReader, WireLimits
from recon_node.mrd.header import parse_header
from recon_node.mrd.messages import (
    Close,
    HeaderXml,
    ImageMessage,
    MessageId,
    close_bytes,
    image_bytes,
    text_bytes,
)
from recon_node.mrd.v2.encode import MAGIC
from recon_node.mrd.v2.source import MrdV2Source
from recon_node.mrd.v2.writer import MrdV2Writer, installed_schema
from recon_node.mrd.wire import decode

Protocols = Literal["ismrmrd", "mrd2"]
PROTOCOLS: tuple[Protocols, ...] = ("ismrmrd", "mrd2")
_STARTS = frozenset(range(1, 9)) | {MessageId.ACQUISITION}
"""First message ids of an ISMRMRD stream."""
_PATIENT = WireLimits(idle_seconds=12 * 3600.0, message_seconds=12 * 3600.0)
"""Whoever fills a pipe may take hours; its end is always seen."""
_LINES = 256
"""Noise readouts that stand for a covariance, at least."""


class ImageSink(Protocol):
    """Where images go."""

    def image(self, message: ImageMessage) -> None:
        """Write one image, at once."""

    def close(self) -> None:
        """End the stream."""


class _Pushback:
    """A stream whose first bytes were looked at; reads what is there and waits for no more."""

    def __init__(self, stream: BinaryIO, first: bytes) -> None:
        self._stream = stream
        self._first = first

    def readinto(self, room: memoryview) -> int:
        """Bytes that are there, without waiting for all that have room."""
        if self._first:
            data, self._first = self._first[: len(room)], self._first[len(room) :]
            room[: len(data)] = data
            return len(data)
        read = getattr(self._stream, "readinto1", None) or self._stream.readinto  # type: ignore[attr-defined]
        return int(read(room) or 0)

    def receive(self, room: memoryview, deadline: float) -> int:
        """As `recon_node.mrd.frames.ByteSource`."""
        del deadline
        return self.readinto(room)

    def close(self) -> None:
        self._stream.close()


class IsmrmrdPipe:
    """One scan in an ISMRMRD stream that is read once, as a `Source`.

    Raises
    ------
    SourceError
        No header before the data.
    TruncatedStream, ProtocolError
        The bytes end within a message, or are no messages.
    """

    def __init__(self, stream: _Pushback) -> None:
        self._reader = FrameReader(stream, limits=_PATIENT)
        self.last_data = time.monotonic()
        """When bytes came last, `time.monotonic()` seconds."""
        self.images = 0
        self._headers = parse_header(self._header())

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding."""
        return self._headers

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """Readouts and waveforms in the order of the stream; images are counted and passed over."""
        readouts = 0
        for frame in self._reader:
            self.last_data = time.monotonic()
            message = decode(frame)
            if isinstance(message, Readouts | Waveform):
                readouts += isinstance(message, Readouts)
                yield message
            self.images += isinstance(message, ImageMessage)
        if self.images and not readouts:
            raise SourceError(_swapped(self.images))

    def _header(self) -> bytes | str:
        for frame in self._reader:
            message = decode(frame)
            if isinstance(message, HeaderXml):
                return message.xml
            if isinstance(message, ImageMessage):
                raise SourceError(_swapped(1))
            if isinstance(message, Readouts | Waveform | Close):
                break
        raise SourceError("the stream has no header before its data, expected an ISMRMRD header first")


def _swapped(images: int) -> str:
    return f"the input holds images ({images} seen) and no raw data: are input and output swapped?"


class IsmrmrdSink:
    """Images as an ISMRMRD stream, behind the header of the scan."""

    def __init__(self, stream: BinaryIO, header: bytes) -> None:
        self._stream = stream
        self._start = text_bytes(MessageId.HEADER, header)

    def image(self, message: ImageMessage) -> None:
        """Write one image, at once."""
        self._put(image_bytes(message))

    def close(self) -> None:
        """End the stream; the file stays open."""
        self._put(close_bytes())

    def _put(self, data: bytes | bytearray | memoryview) -> None:
        start, self._start = self._start, b""
        self._stream.write(start + data)
        self._stream.flush()


def open_pipe(stream: BinaryIO) -> MrdV2Source | IsmrmrdPipe:
    """The scan in a stream, of whichever protocol its first bytes show.

    Raises
    ------
    ProtocolError
        Of none.
    """
    first = b""
    while len(first) < len(MAGIC) and (more := stream.read(len(MAGIC) - len(first))):
        first += more
    whole = _Pushback(stream, first)
    if first == MAGIC:
        return MrdV2Source(whole)  # type: ignore[arg-type]
    if len(first) >= 2 and int.from_bytes(first[:2], "little") in _STARTS:
        return IsmrmrdPipe(whole)
    if first[:2] == MessageId.IMAGE.to_bytes(2, "little"):
        raise SourceError(_swapped(1))
    found = f"starts with {first.hex(' ')}" if first else "is empty"
    raise ProtocolError(f"the input {found}: expected an ISMRMRD stream or an MRD 2 stream")


def open_sink(stream: BinaryIO, source: MrdV2Source | IsmrmrdPipe, protocol: Protocols | None) -> ImageSink:
    """Where the images of a scan go: in the protocol of its input, or another.

    Raises
    ------
    ConfigError
        MRD 2 for an ISMRMRD stream, and nothing here that says which version.
    """
    same: Protocols = "mrd2" if isinstance(source, MrdV2Source) else "ismrmrd"
    if (protocol or same) == "ismrmrd":
        return IsmrmrdSink(stream, source.headers[0].xml)
    if isinstance(source, MrdV2Source):
        return MrdV2Writer(stream, source.schema, header=source.header_bytes)
    return MrdV2Writer(stream, installed_schema())


class NoiseFirst:
    """A source behind the readouts of a noise scan that came apart from it."""

    def __init__(self, source: MrdV2Source | IsmrmrdPipe, noise: list[Readouts]) -> None:
        self._source = source
        self._noise = noise

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding."""
        return self._source.headers

    @property
    def last_data(self) -> float:
        """When bytes came last."""
        return self._source.last_data

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        yield from self._noise
        for item in self._source:
            yield item if isinstance(item, Waveform) else _without_noise(item)


def _without_noise(block: Readouts) -> Readouts:
    """The scan's own noise readouts give way to those that were handed in."""
    noise = block.head["flags"] & np.uint64(AcquisitionFlag.IS_NOISE_MEASUREMENT) != 0
    return block.select(~noise) if noise.any() else block


def read_noise(path: Path) -> list[Readouts]:
    """Noise readouts from a file: a noise scan in any format that can be read, or a covariance (``.npy``).

    Parameters
    ----------
    path : Path
        A scan whose readouts are all noise, or of which some are flagged so; or a Hermitian
        `(coil, coil)` matrix, the mean of ``n n^H`` over complex samples of the scan's dwell time.

    Raises
    ------
    SourceError, DataError
        It cannot be read, has no readouts, or is no covariance.
    """
    if path.suffix == ".npy":
        return [_standing_for(_covariance(path))]
    found: list[Readouts] = []
    with ExitStack() as stack:
        if path.is_file():
            source: Source = stack.enter_context(open_source(path))
        else:  # a pipe: its bytes come once
            source = open_pipe(stack.enter_context(path.open("rb")))
        blocks = [block for block in source if isinstance(block, Readouts) and len(block)]
    flag = np.uint64(AcquisitionFlag.IS_NOISE_MEASUREMENT)
    flagged = any((block.head["flags"] & flag).any() for block in blocks)
    for block in blocks:
        kept = block.select(block.head["flags"] & flag != 0) if flagged else block
        head = kept.head.copy()
        head["flags"] |= flag
        if len(kept):
            found.append(Readouts(head=head, samples=kept.samples))
    if not found:
        raise DataError(f"{path.name}: no readouts, expected a noise scan")
    return found


def _covariance(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.complex128]]:
    try:
        matrix = np.asarray(np.load(path, allow_pickle=False), np.complex128)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise SourceError(f"{path.name}: is no numpy array of numbers") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise DataError(f"{path.name}: found an array {matrix.shape}, expected a (coil, coil) covariance")
    if not np.allclose(matrix, matrix.conj().T, atol=1e-6 * np.abs(matrix).max(initial=0)):
        raise DataError(f"{path.name}: is not Hermitian, expected a (coil, coil) covariance")
    return matrix


def _standing_for(covariance: np.ndarray[tuple[int, ...], np.dtype[np.complex128]]) -> Readouts:
    """Readouts whose sample covariance is the one given: its root times rows of a Fourier matrix."""
    coils = len(covariance)
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise DataError(
            "the noise covariance is not positive definite: is a coil dead or doubled?"
        ) from error
    count = max(_LINES, 4 * coils)
    places = np.outer(np.arange(1, coils + 1), np.arange(count))
    samples = (root @ np.exp(2j * np.pi * places / count)).astype(np.complex64)
    head = np.zeros(1, ACQUISITION_HEADER)
    head["version"] = 1
    head["flags"] = np.uint64(AcquisitionFlag.IS_NOISE_MEASUREMENT)
    head["number_of_samples"] = count
    head["active_channels"] = head["available_channels"] = coils
    return Readouts(head=head, samples=samples[None])


def with_noise(source: MrdV2Source | IsmrmrdPipe, noise: Path | None) -> Source:
    """The scan, behind a noise scan of its own where one is given."""
    if noise is None:
        return source
    if not noise.exists():
        raise ConfigError(f"--noise {noise}: no such file")
    return NoiseFirst(source, read_noise(noise))

"""MRD stream files: what would travel over a connection, written to disk.

Acquisitions are scattered by the operating system straight from the file into the arrays of a run, one copy
in all; every other message goes through the frame reader, as on a connection.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.errors import SourceError
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.sources.frames import FrameReader, WireLimits
from recon_node.sources.header import parse_header
from recon_node.sources.messages import ID, MessageId
from recon_node.sources.rows import SHAPE_FIELDS, START
from recon_node.sources.wire import Close, HeaderXml, Message, decode

_RUN_BYTES = 1 << 20
"""Acquisitions read together, unless one is larger: so small that memory is used again."""
_ROWS_AT_ONCE = 256
"""Acquisitions per call of ``preadv``, which takes at most 1024 pieces."""


class MrdFileSource:
    """One scan in an MRD stream file, as a `Source`.

    Raises
    ------
    SourceError
        The file is empty or has no header before its data.
    TruncatedStream, ProtocolError
        The bytes end within a message, or are no messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._limits = WireLimits()
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise SourceError(f"{path.name}: no such file") from error
        except (OSError, ValueError) as error:
            raise SourceError(f"{path.name}: cannot be read ({error})") from error
        try:
            self._headers = parse_header(self._header_xml())
        except BaseException:
            self.close()
            raise

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding."""
        return self._headers

    def close(self) -> None:
        """Release the file; harmless when closed already or while an iterator still runs."""
        try:
            self._map.close()
        except BufferError:  # an abandoned iterator still looks at it: freed together with that
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """Readouts and waveforms in the order of the stream; other messages are passed over."""
        for message in self._messages():
            if isinstance(message, Readouts | Waveform):
                yield message

    def _header_xml(self) -> bytes | str:
        for message in self._messages():
            if isinstance(message, HeaderXml):
                return message.xml
            if isinstance(message, Readouts):
                break
        raise SourceError(f"{self._path.name}: MRD stream without a header before its data")

    def _messages(self) -> Iterator[Message]:
        memory, at = memoryview(self._map), 0
        with _Runs(self._path) as runs:
            while at < len(memory):
                block = runs.read(at, memory[at : at + START.itemsize])
                if block is not None:
                    at += runs.bytes_read
                    yield block
                    continue
                frame = FrameReader(memory[at:], limits=self._limits, close_optional=True).next_frame()
                if frame is None:
                    return
                at += len(frame.raw)
                message = decode(frame)
                yield message
                if isinstance(message, Close):
                    return


class _Runs:
    """Reads runs of acquisitions of one shape: as many as may be, fewer after a run that ended early."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._size = os.fstat(self._descriptor).st_size
        self._rows = _RUN_BYTES // START.itemsize
        self.bytes_read = 0
        """Length of the last run in the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def read(self, at: int, start: memoryview) -> Readouts | None:
        """The run that begins at byte `at`; None where this is for the frame reader.

        That is anything but a whole acquisition that fits a run, and everything where the system has no
        ``preadv``.

        Parameters
        ----------
        at : int
            Offset of a message in the file.
        start : memoryview
            Its first bytes.
        """
        if (
            not hasattr(os, "preadv")
            or len(start) < START.itemsize
            or ID.unpack_from(start)[0] != MessageId.ACQUISITION
        ):
            return None
        first = np.frombuffer(start, START)["head"][0]
        samples, coils, dimensions = (int(first[name]) for name in SHAPE_FIELDS)
        trajectory, body = 4 * samples * dimensions, 8 * samples * coils
        size = START.itemsize + trajectory + body
        rows = min(self._rows, _RUN_BYTES // size, (self._size - at) // size)
        if rows < 1 or not body:
            return None
        starts = np.empty((rows, START.itemsize + trajectory), np.uint8)
        data = np.empty((rows, coils, samples), np.complex64)
        self._scatter(at, starts, data.reshape(rows, -1).view(np.uint8))
        fields = np.ascontiguousarray(starts[:, : START.itemsize]).view(START)[:, 0]
        same = fields["id"] == MessageId.ACQUISITION
        for name in SHAPE_FIELDS:
            same &= fields["head"][name] == first[name]
        kept = rows if same.all() else int(np.argmin(same))
        self._rows = min(2 * self._rows, _RUN_BYTES) if kept == rows else max(1, kept)
        self.bytes_read = kept * size
        head = np.ascontiguousarray(starts[:kept, ID.size : START.itemsize]).view(ACQUISITION_HEADER)
        return Readouts(head=head[:, 0], samples=data[:kept])

    def _scatter(self, at: int, starts: NDArray[np.uint8], bodies: NDArray[np.uint8]) -> None:
        for first in range(0, len(starts), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            pieces = [part for row in zip(starts[rows], bodies[rows], strict=True) for part in row]
            at += os.preadv(self._descriptor, pieces, at)

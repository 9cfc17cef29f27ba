"""MRD stream files: what would travel over a connection, written to disk.

The file is mapped into memory. A run of acquisitions of one shape is one strided array over the map, its
headers apart; no sample is copied before whoever takes the run copies it to where it belongs. Every other
message goes through the frame reader, as on a connection.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from recon_node.core.errors import SourceError, TruncatedStream
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.files.plain import open_plain
from recon_node.mrd.frames import FrameReader, WireLimits
from recon_node.mrd.header import parse_header
from recon_node.mrd.messages import ID, MessageId
from recon_node.mrd.rows import START, run_length, run_view, shape_of
from recon_node.mrd.wire import Close, ConfigFile, ConfigText, HeaderXml, Message, decode

_LEAST_BYTES = 8
"""Behind a scan that can be another: fewer are some writer's padding."""
_RUN_BYTES = 4 << 20
"""Acquisitions handed on together, unless one is larger: what is made of a run stays small."""


class MrdFileSource:
    """One scan in an MRD stream file, as a `Source`; the file may hold others behind it.

    Parameters
    ----------
    path : Path
    start : int
        Byte at which the scan begins.

    The samples of its runs lie in the file's map, read-only and not aligned: copies of them are plain arrays.

    Raises
    ------
    SourceError
        The file is empty or has no header before its data.
    TruncatedStream, ProtocolError
        The bytes end within a message, or are no messages; the file became shorter while it was read.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        self._path = path
        self._start = start
        self._next: int | None = None
        self._limits = WireLimits()
        try:
            with open_plain(path) as file:
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

    def following(self) -> MrdFileSource | None:
        """The scan behind this one; None where there is none.

        Raises
        ------
        SourceError
            What lies behind is no scan.
        """
        if self._next is None:
            with contextlib.suppress(SourceError):  # that this scan is cut was told by whoever read it
                for _ in self:
                    pass
        if self._next is None or len(self._map[self._next :].strip(b"\0 \r\n")) < _LEAST_BYTES:
            return None
        return MrdFileSource(self._path, start=self._next)

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """Readouts and waveforms in the order of the stream; other messages are passed over."""
        begun = False
        for at, message in self._messages():
            if begun and isinstance(message, ConfigFile | ConfigText | HeaderXml):
                self._next = at  # a scan that did not end with CLOSE
                return
            if isinstance(message, Readouts | Waveform):
                begun |= isinstance(message, Readouts)
                yield message

    def _header_xml(self) -> bytes | str:
        for _, message in self._messages():
            if isinstance(message, HeaderXml):
                return message.xml
            if isinstance(message, Readouts):
                break
        where = f" (at byte {self._start}, behind another scan)" if self._start else ""
        raise SourceError(f"{self._path.name}: MRD stream without a header before its data{where}")

    def _messages(self) -> Iterator[tuple[int, Message]]:
        """Each message, or run of acquisitions, and the byte at which it begins."""
        memory, at = memoryview(self._map), self._start
        runs = _Runs(self._map, self._limits.acquisition_bytes)
        while at < len(memory):
            self._check_length()
            block = runs.view(at)
            if block is not None:
                yield at, block
                runs.forget()
                at = runs.end
                continue
            frame = FrameReader(memory[at:], limits=self._limits, close_optional=True).next_frame()
            if frame is None:
                return
            begin, at = at, at + len(frame.raw)
            message = decode(frame)
            if isinstance(message, Close):
                self._next = at
                return
            yield begin, message

    def _check_length(self) -> None:
        """Refuse to go on in a file that was cut: to touch its lost pages would end the process."""
        mapped, left = len(self._map), self._map.size()
        if left < mapped:
            raise TruncatedStream(f"{self._path.name}: went from {mapped} to {left} bytes while it was read")


class _Runs:
    """Views runs of acquisitions of one shape: as many as may be, fewer after a run that ended early."""

    def __init__(self, file: mmap.mmap, most_bytes: int) -> None:
        self._map = file
        self._bytes = np.frombuffer(file, np.uint8)  # keeps the map open for as long as views of it live
        self._most_bytes = most_bytes
        self._rows = _RUN_BYTES
        self._forgotten = 0
        self.end = 0
        """Byte behind the last run."""
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            file.madvise(mmap.MADV_SEQUENTIAL)

    def view(self, at: int) -> Readouts | None:
        """The run that begins at byte `at`; None where no whole acquisition with samples does.

        Parameters
        ----------
        at : int
            Offset of a message in the file.
        """
        start = self._bytes[at : at + START.itemsize].data
        if len(start) < START.itemsize or ID.unpack_from(start)[0] != MessageId.ACQUISITION:
            return None
        samples, coils, dimensions = shape_of(start)
        body = 8 * samples * coils
        size = START.itemsize + 4 * samples * dimensions + body
        wanted = min(self._rows, max(1, _RUN_BYTES // size), (len(self._bytes) - at) // size)
        if wanted < 1 or not body or size > self._most_bytes:
            return None
        starts = np.ndarray((wanted, START.itemsize), np.uint8, self._bytes, at, (size, 1))
        kept = run_length(starts)
        self._rows = 2 * kept if kept == wanted else kept
        self.end = at + kept * size
        return run_view(self._bytes.data, at, kept)

    def forget(self) -> None:
        """Take pages before the end of the last run off this process; read again, they come back."""
        whole = self.end // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and whole > self._forgotten:
            self._map.madvise(mmap.MADV_DONTNEED, self._forgotten, whole - self._forgotten)
            self._forgotten = whole

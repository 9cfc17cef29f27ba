"""MRD stream files: what would travel over a connection, written to disk."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from recon_node.core.errors import SourceError
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.sources.header import parse_header
from recon_node.sources.wire import HeaderXml, read_messages


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
        for message in read_messages(memoryview(self._map), close_optional=True):
            if isinstance(message, Readouts | Waveform):
                yield message

    def _header_xml(self) -> bytes | str:
        for message in read_messages(memoryview(self._map), close_optional=True):
            if isinstance(message, HeaderXml):
                return message.xml
            if isinstance(message, Readouts):
                break
        raise SourceError(f"{self._path.name}: MRD stream without a header before its data")

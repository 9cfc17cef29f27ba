"""An MRD 2 stream as a scan: read once, from beginning to end, with bounded memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from recon_node.core.errors import ProtocolError, SourceError, TruncatedStream, UnsupportedScan
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.mrd.header import parse_header
from recon_node.mrd.v2.buffers import Buffers
from recon_node.mrd.v2.bulk import BulkReader, tag_of
from recon_node.mrd.v2.decode import decoder
from recon_node.mrd.v2.encode import MAGIC
from recon_node.mrd.v2.header import header_xml
from recon_node.mrd.v2.items import AcquisitionReader, waveform
from recon_node.mrd.v2.primitives import MOST_ITEM_BYTES, Decoder, Short, text, varint
from recon_node.mrd.v2.schema import Record, Schema, Vector, parse_schema

_CHUNKS = (1 << 16, 2 << 20)
"""Bytes that are read at once, at least and at most: as a pipe holds, and as stays in a processor's cache."""
_RUN_BYTES = 2 << 20
_RUN = "run"
"""Tag of acquisitions that were read together; no kind of item has this name."""
_BUCKET = (("data", "acquisition"), ("ref", "acquisition"), ("waveforms", "waveformuint32"))
_SORTED = {"recondata", "acquisitionprototype"}
"""Items that hold imaging data which nothing here reads: to pass them over would lose lines."""


class MrdV2Source:
    """One scan in an MRD 2 stream, as a `Source`.

    Parameters
    ----------
    stream : binary stream
        A file, a pipe, a socket's file; never sought in.
    name : str
        For messages.

    Raises
    ------
    ProtocolError
        No MRD 2 stream, or a schema that cannot be understood.
    SourceError
        The stream has no header.
    TruncatedStream
        The bytes end within the header.
    """

    def __init__(self, stream: BinaryIO, name: str = "stream") -> None:
        self._stream = stream
        self._name = name
        self._data = bytearray()
        self._buffers = Buffers()
        self._at = 0
        self._taken = 0
        self._chunk = _CHUNKS[0]
        self.last_data = time.monotonic()
        """When bytes came last, `time.monotonic()` seconds."""
        self.passed: Counter[str] = Counter()
        """Items that are no raw data, by kind."""
        self._need(len(MAGIC))
        if self._data[: len(MAGIC)] != MAGIC:
            raise ProtocolError(f"{name}: no MRD 2 stream (starts with {self._data[:9].hex(' ')})")
        self._at = len(MAGIC)
        self.schema, header, self._item = _decoders(self._take(text))
        record = self._take(header)
        self.header_bytes = bytes(self._data[self._taken : self._at])
        """The header as it stands in the stream, for an answer."""
        kind = self.schema.header.cases[0][1]
        if record is None or not isinstance(kind, Record):
            raise SourceError(f"{name}: an MRD 2 stream without a header, expected one before its data")
        self._headers = parse_header(header_xml(kind, record))

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding."""
        return self._headers

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """Readouts and waveforms in the order of the stream, in runs of one shape."""
        kinds = dict(self.schema.item.cases)
        reader = AcquisitionReader(_record_of(kinds, "acquisition"))
        run: list[tuple[Any, ...]] = []
        for tag, record in self._records(kinds, reader):
            if run and (tag != "acquisition" or not reader.fits(run, record, _RUN_BYTES)):
                yield reader.run(run)
                run = []
            if tag == "acquisition":
                run.append(record)
            elif tag == _RUN:
                yield record
            elif tag == "waveformuint32":
                yield waveform(_record_of(kinds, tag), record)
        if run:
            yield reader.run(run)

    def _records(self, kinds: Mapping[str, Any], reader: AcquisitionReader) -> Iterator[tuple[str, Any]]:
        """Acquisitions, runs of them, and waveforms; an empty tag before more bytes are waited for."""
        union = self.schema.item
        kind, tag = _record_of(kinds, "acquisition"), tag_of(union.cases, nullable=union.nullable)
        bulk = BulkReader(reader, kind, tag, most_bytes=_RUN_BYTES)
        for item in self._items(bulk):
            if item is None:
                yield "", None
            elif item[0] == _RUN:
                yield item
            else:
                yield from self._flat(item, kinds)

    def _flat(self, item: tuple[str, Any], kinds: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Acquisitions and waveforms of one item; others are counted, or refused by name."""
        tag, record = item[0].lower(), item[1]
        if tag in ("acquisition", "waveformuint32"):
            yield tag, record
        elif tag == "acquisitionbucket":
            index = _record_of(kinds, tag).index
            for name, part in _BUCKET:
                yield from ((part, inner) for inner in (record[index[name]] if name in index else ()))
        elif tag in _SORTED:
            raise UnsupportedScan(
                f"{self._name}: holds {item[0]} items, whose lines this node does not read: send acquisitions"
            )
        else:
            self.passed[item[0]] += 1

    def _items(self, bulk: BulkReader) -> Iterator[tuple[str, Any] | None]:
        """Items of the stream, or runs of acquisitions; None each time before more bytes are waited for."""
        left = 0
        while True:
            try:
                if not left:
                    left, self._at = varint(self._data, self._at)
                    if not left:
                        break
                found = bulk.read(self._data, self._at, left)
                if found is not None:
                    block, self._at, left = found
                    yield _RUN, block
                    continue
                begin = self._at
                value, self._at = self._item(self._data, begin)
            except Short as short:
                yield None
                self._more(short.wanted)
                continue
            left -= 1
            if value[0].lower() == "acquisition":
                bulk.learn(self._data, begin, self._at, value[1])
            yield value
        self._check_end()

    def _check_end(self) -> None:
        """Refuse to be silent about what follows."""
        if len(self._data) == self._at:
            self._fill(1)
        if len(self._data) > self._at:
            raise SourceError(
                f"{self._name}: more follows the end of its first scan, which was read: give each scan a "
                "stream of its own"
            )

    def _take(self, read: Any) -> Any:
        while True:
            self._taken = self._at
            try:
                value, self._at = read(self._data, self._at)
            except Short as short:
                self._more(short.wanted)
            else:
                return value

    def _need(self, size: int) -> None:
        while len(self._data) - self._at < size:
            self._more(size - (len(self._data) - self._at))

    def _more(self, wanted: int) -> None:
        before = len(self._data) - self._at
        if before + wanted > 2 * MOST_ITEM_BYTES:
            raise ProtocolError(f"{self._name}: an item of over {MOST_ITEM_BYTES} bytes: data damaged?")
        if not self._fill(wanted):
            raise TruncatedStream(f"{self._name}: ends in the middle of an MRD 2 stream")

    def _fill(self, wanted: int) -> bool:
        """At least one byte more; as many as are wanted where the stream has them."""
        left = len(self._data) - self._at
        room = self._buffers.take(max(self._chunk, left + wanted))
        room[:left] = memoryview(self._data)[self._at :]
        end = left
        while end - left < wanted:
            try:
                got = _read_into(self._stream, memoryview(room)[end:])
            except OSError as error:
                raise TruncatedStream(f"{self._name}: cannot be read on ({error.strerror})") from error
            if not got:
                break
            end += got
        self.last_data = time.monotonic()
        self._chunk = (
            min(2 * self._chunk, _CHUNKS[1]) if end == len(room) else max(self._chunk // 2, _CHUNKS[0])
        )
        del room[end:]
        self._buffers.keep(self._data)
        self._data, self._at = room, 0
        return end > left


@lru_cache(maxsize=2)
def _decoders(schema: str) -> tuple[Schema, Decoder, Decoder]:
    """A schema, and what reads its header and its items: the files of an archive share one."""
    parsed = parse_schema(schema)
    return parsed, decoder(parsed.header), decoder(parsed.item)


def _read_into(stream: Any, room: memoryview) -> int:
    """Bytes that are there, without waiting for all that have room."""
    read = getattr(stream, "readinto1", stream.readinto)
    return int(read(room) or 0)


def _record_of(kinds: Mapping[str, Any], tag: str) -> Record:
    for name, kind in kinds.items():
        inner = kind.items if isinstance(kind, Vector) else kind
        if name.lower() == tag and isinstance(inner, Record):
            return inner
    raise ProtocolError(f"MRD 2 stream: its schema has no {tag}")


def open_v2(path: Path) -> MrdV2Source:
    """An MRD 2 stream in a file.

    Raises
    ------
    SourceError
        It cannot be read, or see `MrdV2Source`.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path.name}: cannot be read ({error.strerror})") from error
    try:
        return MrdV2Source(stream, path.name)
    except BaseException:
        stream.close()
        raise

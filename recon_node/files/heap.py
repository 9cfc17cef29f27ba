"""Rows of a chunked HDF5 table and their variable-length data, straight from the file's bytes.

HDF5 File Format Specification 3.0, III.E "Global Heap" (collection: ``GCOL``, version, size; objects:
index, reference count, reserved, size, data padded to 8) and IV.B "variable-length" references (length,
collection address, object index).
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.errors import InconsistentReadouts, TruncatedStream

REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
OBJECT = np.dtype([("index", "<u2"), ("count", "<u2"), ("reserved", "<u4"), ("size", "<u8")])
COLLECTION_BYTES = 16


_SIGNATURE = b"GCOL\1\0\0\0"
MOST_SEARCHED = 64 << 20
"""Bytes of a file in which `heaps_end` looks for heaps: half at its start and half at its end."""


def heaps_end(path: Path) -> bool:
    """Whether the heap collections found in a file lead to their ends, as `heap_ends`."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        half = MOST_SEARCHED // 2
        for start in {0, max(half, size - half)}:
            file.seek(start)
            data = file.read(half)
            at = data.find(_SIGNATURE)
            while at >= 0:
                if not _ends(file, start + at, size):
                    return False
                at = data.find(_SIGNATURE, at + 8)
    return True


def heap_ends(path: Path, address: int) -> bool:
    """Whether the objects of the heap collection at `address` of a file lead to its end; true without one.

    HDF5's library goes round for ever where free space claims to have no size.
    """
    with path.open("rb") as file:
        return _ends(file, address, file.seek(0, os.SEEK_END))


def _ends(file: BinaryIO, address: int, size: int) -> bool:
    if address + COLLECTION_BYTES > size:
        return True
    file.seek(address)
    head = file.read(COLLECTION_BYTES)
    total = int.from_bytes(head[8:16], "little")
    if head[:4] != _SIGNATURE[:4] or total > size:
        return True
    place = COLLECTION_BYTES
    while place + OBJECT.itemsize <= total:
        file.seek(address + place)
        item = file.read(OBJECT.itemsize)
        length = int.from_bytes(item[8:16], "little")
        free = item[:2] == b"\0\0"
        if free and length < OBJECT.itemsize:
            return False
        place += length if free else OBJECT.itemsize + (length + 7) // 8 * 8
    return True


class DirectTable:
    """The acquisition table of a file, opened a second time for plain reads.

    Use `DirectTable.open`, which returns None where the layout is not the plain one.
    """

    def __init__(self, path: Path, heads: NDArray[Any], references: NDArray[Any]) -> None:
        self._name = path.name
        self.heads = heads
        """`(row,)` of dtype ACQUISITION_HEADER."""
        self._references = references
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._size = os.fstat(self._descriptor).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    @classmethod
    def open(cls, path: Path, table: h5py.Dataset) -> DirectTable | None:
        """The table of `path`, or None where filters, layout or number sizes are not the plain ones."""
        layout = _row_layout(table)
        if layout is None:
            return None
        rows = _read_rows(path, table, layout)
        if rows is None:
            return None
        heads = np.ascontiguousarray(rows["head"]).astype(ACQUISITION_HEADER, copy=False)
        return cls(path, heads, np.ascontiguousarray(rows["data"]))

    def samples(self, rows: slice, shape: tuple[int, int, int]) -> NDArray[np.complex64]:
        """`(row, channel, sample)` complex64 of a run of rows.

        Raises
        ------
        InconsistentReadouts
            A row holds more or fewer numbers than its header says.
        TruncatedStream
            A reference points outside the file, or not at a heap object.
        """
        references = self._references[rows]
        wanted = 2 * shape[1] * shape[2]
        wrong = np.flatnonzero(references["length"] != wanted)
        if len(wrong):
            raise InconsistentReadouts(
                f"{self._name}: acquisition {rows.start + int(wrong[0])} holds "
                f"{int(references['length'][wrong[0]])} numbers, its header says {shape[1]} channels of "
                f"{shape[2]} samples"
            )
        out = np.empty(shape, dtype=np.complex64)
        if wanted:
            self._fill(out.reshape(shape[0], -1).view(np.uint8), references)
        return out

    def _fill(self, out: NDArray[np.uint8], references: NDArray[Any]) -> None:
        head = bytearray(OBJECT.itemsize)
        size = out.shape[1]
        descriptor, preadv = self._descriptor, os.preadv
        addresses, indices = references["address"].tolist(), references["index"].tolist()
        for row, address, index in zip(out, addresses, indices, strict=True):
            place = address + COLLECTION_BYTES
            got = preadv(descriptor, (head, row), place)
            if index != 1 or head[:2] != b"\x01\x00" or got != OBJECT.itemsize + size:
                place = self._object(address, index, size)
                if preadv(descriptor, (row,), place) != size:
                    raise TruncatedStream(f"{self._name}: samples end at byte {self._size} of the file")

    def _object(self, address: int, index: int, size: int) -> int:
        """Offset in the file of the data of a heap object that is not the first of its collection."""
        start = os.pread(self._descriptor, COLLECTION_BYTES, address) if address < self._size else b""
        end = address + int.from_bytes(start[8:16], "little")
        place = address + COLLECTION_BYTES
        while start[:4] == b"GCOL" and place + OBJECT.itemsize <= min(end, self._size):
            item = np.frombuffer(os.pread(self._descriptor, OBJECT.itemsize, place), dtype=OBJECT)[0]
            length = int(item["size"])
            if int(item["index"]) == index and length >= size:
                return place + OBJECT.itemsize
            if int(item["index"]) == 0:
                break
            place += OBJECT.itemsize + (length + 7) // 8 * 8
        raise TruncatedStream(f"{self._name}: no samples at byte {address}; the file is damaged or truncated")


def _row_layout(table: h5py.Dataset) -> np.dtype[Any] | None:
    """How a row lies in the file; None where it is not what plain reading needs."""
    kind = table.id.get_type()
    plist = table.id.get_create_plist()
    sizes = table.file.id.get_create_plist().get_sizes()
    plain = (
        plist.get_layout() == h5py.h5d.CHUNKED
        and plist.get_nfilters() == 0
        and tuple(sizes) == (8, 8)
        and table.file.userblock_size == 0
        and table.file.driver in {"sec2", "stdio"}
        and hasattr(table.id, "chunk_iter")
        and hasattr(os, "preadv")
    )
    if not plain:
        return None
    names = [kind.get_member_name(i).decode() for i in range(kind.get_nmembers())]
    index = {name: i for i, name in enumerate(names)}
    head, data = index["head"], index["data"]
    stored = kind.get_member_type(head).dtype
    if not _vlen_of_floats(kind.get_member_type(data)) or stored.hasobject:
        return None
    packed = _file_offsets(kind, names)
    return np.dtype(
        {
            "names": ["head", "data"],
            "formats": [stored, REFERENCE],
            "offsets": [packed["head"], packed["data"]],
            "itemsize": packed[""],
        }
    )


def _vlen_of_floats(kind: Any) -> bool:
    return isinstance(kind, h5py.h5t.TypeVlenID) and kind.get_super().dtype == np.dtype("<f4")


def _file_offsets(kind: Any, names: list[str]) -> dict[str, int]:
    """Offsets of the members in the file, where a variable-length member takes 16 bytes, and the row's size.

    In memory it takes ``sizeof(hvl_t)``, 16 bytes too where pointers have 8.
    """
    offsets = {name: int(kind.get_member_offset(i)) for i, name in enumerate(names)}
    return offsets | {"": int(kind.get_size())}


def _read_rows(path: Path, table: h5py.Dataset, layout: np.dtype[Any]) -> NDArray[Any] | None:
    per_chunk, total = int(table.chunks[0]), int(table.shape[0])
    offsets = np.full(-(-total // per_chunk), -1, dtype=np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[0] // per_chunk] = chunk.byte_offset

    table.id.chunk_iter(note)
    size = per_chunk * layout.itemsize
    if offsets.min() < 0 or int(offsets.max()) + size > path.stat().st_size:
        return None
    raw = np.empty((len(offsets), size), dtype=np.uint8)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        for row, offset in zip(raw, offsets.tolist(), strict=True):
            os.preadv(descriptor, [row.data], offset)
    finally:
        os.close(descriptor)
    return raw.reshape(-1).view(layout)[:total]

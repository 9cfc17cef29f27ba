"""What lies in an HDF5 file, without following it elsewhere and without believing its sizes.

Links into other files, data kept outside and virtual data are passed over: such a file says what else this
process opens, a named pipe that never answers included. Sizes are compared with what is stored before
anything of them is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recon_node.core.errors import SourceError, TruncatedStream, UnsupportedScan
from recon_node.files.heap import REFERENCE, heap_ends, heaps_end
from recon_node.mrd.xml_tree import MAX_BYTES

MOST_CHUNK_BYTES = 256 << 20
"""Of one chunk, unfolded: more is no chunk that a writer makes."""
MOST_FRAME_BYTES = 4 << 30
"""Of what is read of an array at once."""
_DEEPEST = 8
_MOST_GROUPS = 1000
_LEAST_OVER = 2.0
"""Rows in unallocated chunks over rows stored, from which a table's length is not believed."""


def members(group: h5py.Group) -> dict[str, Any]:
    """The groups and arrays of a group that lie in its own file, by name."""
    found = {}
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            continue
        node = group.get(name)
        if isinstance(node, h5py.Group) or (isinstance(node, h5py.Dataset) and _is_local(node)):
            found[name] = node
    return found


def _is_local(array: h5py.Dataset) -> bool:
    return not array.is_virtual and not array.external


def datasets(file: h5py.File) -> dict[str, h5py.Group]:
    """Every group that has acquisitions, at whatever depth, by its path without the first slash."""
    return {
        path: group
        for path, group, inside in _groups(file)
        if "data" in inside and ("xml" in inside or "header" not in inside)
    }


def _groups(file: h5py.File) -> Iterator[tuple[str, h5py.Group, dict[str, Any]]]:
    waiting: list[tuple[str, h5py.Group, int]] = [("", file["/"], 0)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_GROUPS:
        path, group, depth = waiting.pop(0)
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        inside = members(group)
        yield path, group, inside
        if depth < _DEEPEST:
            waiting += [
                (f"{path}/{name}".lstrip("/"), node, depth + 1)
                for name, node in inside.items()
                if isinstance(node, h5py.Group)
            ]


def check_table(table: h5py.Dataset, path: Path) -> None:
    """See that a table holds about as many rows as it claims, in chunks of a usual size.

    Raises
    ------
    TruncatedStream
        Most of its rows are stored nowhere.
    UnsupportedScan
        A chunk is larger than any writer makes them.
    """
    row = table.id.get_type().get_size()
    claimed = int(table.shape[0])
    if table.chunks is None:
        stored = table.id.get_storage_size() // row
    else:
        check_chunks(table, path)
        stored = table.id.get_num_chunks() * table.chunks[0]
    if claimed > _LEAST_OVER * stored + 1:
        raise TruncatedStream(f"{path.name}: {table.name} claims {claimed} rows, about {stored} are stored")


def check_chunks(array: h5py.Dataset, path: Path) -> None:
    """See that one chunk of an array unfolds to a usual size.

    Raises
    ------
    UnsupportedScan
        It does not.
    """
    if array.chunks is None:
        return
    unfolded = math.prod(array.chunks) * array.dtype.itemsize
    if unfolded > MOST_CHUNK_BYTES:
        raise UnsupportedScan(
            f"{path.name}: {array.name[:60]} is stored in chunks of {unfolded >> 20} MiB, expected at most "
            f"{MOST_CHUNK_BYTES >> 20} MiB"
        )


def check_frame(array: h5py.Dataset, path: Path, axes: int) -> None:
    """See that the last `axes` of an array, which are read at once, fit into memory, and are stored.

    Raises
    ------
    UnsupportedScan
        They do not.
    TruncatedStream
        The file holds much less than the array claims.
    """
    check_chunks(array, path)
    frame = math.prod(array.shape[-axes:]) * 8
    if frame > MOST_FRAME_BYTES:
        raise UnsupportedScan(
            f"{path.name}: a frame of {array.name[:60]} has {frame >> 20} MiB, expected at most "
            f"{MOST_FRAME_BYTES >> 20} MiB"
        )
    whole = math.prod(array.shape) * array.dtype.itemsize
    plain = array.id.get_create_plist().get_nfilters() == 0
    if plain and whole > _LEAST_OVER * array.id.get_storage_size() + 1:
        raise TruncatedStream(
            f"{path.name}: {array.name[:60]} claims {whole >> 20} MiB, "
            f"{array.id.get_storage_size()} bytes are stored"
        )


def text_of(array: h5py.Dataset, path: Path) -> bytes:
    """The first text of an array, as it is stored.

    Raises
    ------
    SourceError
        There is none, or it is absurdly long.
    """
    if not array.size:
        raise SourceError(f"{path.name}: dataset {array.parent.name} has an empty XML header")
    length = _stored_length(array, path)
    if length is not None and length > MAX_BYTES:
        raise SourceError(f"{path.name}: an XML header of {length} bytes, at most {MAX_BYTES} are read")
    text = np.asarray(array[()], dtype=object).reshape(-1)[0]
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)


def _stored_length(array: h5py.Dataset, path: Path) -> int | None:
    """Bytes of the first text of an array, without reading it; None where its layout does not tell."""
    if h5py.check_vlen_dtype(array.dtype) is None and h5py.check_string_dtype(array.dtype) is None:
        return int(array.dtype.itemsize * array.size)
    info = h5py.check_string_dtype(array.dtype)
    if info is not None and info.length is not None:
        return int(info.length * array.size)
    if array.id.get_create_plist().get_nfilters():
        check_heaps(path)
        return int(array.id.get_storage_size()) * 1000
    reference = _first_reference(array, path)
    if reference is None:
        check_heaps(path)
        return None
    length, address = int(reference["length"]), int(reference["address"])
    if not heap_ends(path, array.file.userblock_size + address):
        raise _endless(path)
    return length


def _first_reference(array: h5py.Dataset, path: Path) -> Any:
    """Where the first text of an array is stored; None where its layout does not tell."""
    if array.chunks is not None:
        _, stored = array.id.read_direct_chunk((0,) * array.ndim)
    elif (offset := array.id.get_offset()) is not None:
        with path.open("rb") as file:
            file.seek(offset)
            stored = file.read(REFERENCE.itemsize)
    else:
        return None
    return np.frombuffer(stored[: REFERENCE.itemsize], REFERENCE)[0]


def check_heaps(path: Path) -> None:
    """See that HDF5's library will come to an end in the heaps of a file, before it reads from them.

    Raises
    ------
    SourceError
        It would not.
    """
    if not heaps_end(path):
        raise _endless(path)


def _endless(path: Path) -> SourceError:
    return SourceError(f"{path.name}: the HDF5 file is damaged (a heap without end)")

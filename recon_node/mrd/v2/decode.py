"""Types to decoders: functions from bytes and an offset to a value and the offset behind it.

Encoding after yardl's reference of its binary format: integers as variable-length groups of seven bits
(signed ones zigzag), floating point as it lies in memory, records and arrays as their parts one after the
other. A record becomes a tuple in the order of its fields.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ProtocolError
from recon_node.mrd.v2.primitives import (
    GROUPED,
    MOST_ITEM_BYTES,
    PLAIN,
    PRIMITIVES,
    Bytes,
    Decoder,
    Short,
    varint,
)
from recon_node.mrd.v2.schema import Array, Enum, Map, Primitive, Record, Type, Union, Vector

_MOST_LIST = 1 << 24
_SMALL = 64
"""Numbers that are read as a tuple, not as an array."""


def decoder(kind: Type) -> Decoder:
    """The function that reads a value of one type.

    A union becomes a pair of tag and value, or None; an optional its value or None. Lists and short vectors
    of fixed length become sequences, other arrays of numbers numpy arrays, where possible views of the bytes.
    """
    if isinstance(kind, Primitive):
        return PRIMITIVES[kind.name]
    if isinstance(kind, Enum):
        return PRIMITIVES[kind.base.name]
    if isinstance(kind, Record):
        return _record(kind)
    if isinstance(kind, Union):
        return _union(kind)
    if isinstance(kind, Vector):
        return _vector(kind)
    if isinstance(kind, Map):
        return _map(kind)
    return _array(kind)


def _record(kind: Record) -> Decoder:
    steps = [
        (_side_by_side(group) if together else decoder(group[0]), together)
        for together, group in _grouped([part for _, part in kind.fields])
    ]

    def decode(data: Bytes, at: int) -> tuple[tuple[Any, ...], int]:
        values: list[Any] = []
        add = values.append
        for step, several in steps:
            if step is _optional_varint and data[at : at + 1] == b"\0":  # most counters are absent
                add(None)
                at += 1
                continue
            value, at = step(data, at)
            if several:
                values += value
            else:
                add(value)
        return tuple(values), at

    return decode


def _grouped(parts: list[Type]) -> Iterator[tuple[bool, list[Type]]]:
    """Neighbouring fields of small fixed arrays together, others alone."""
    for together, group in itertools.groupby(parts, lambda part: _fixed_size(part) > 0):
        if together:
            yield True, list(group)
        else:
            yield from ((False, [part]) for part in group)


def _fixed_size(kind: Type) -> int:
    """How many plain real numbers, where that is fixed and small; else 0."""
    if not isinstance(kind, Array) or kind.rank != 1 or kind.shape is None or _code(kind.items) is None:
        return 0
    return kind.shape[0] if kind.shape[0] <= _SMALL else 0


def _side_by_side(parts: list[Type]) -> Decoder:
    """Small fixed arrays that lie side by side, read at once."""
    arrays = [part for part in parts if isinstance(part, Array)]
    pattern = struct.Struct("<" + "".join(f"{_fixed_size(a)}{_code(a.items)}" for a in arrays))
    ends = list(itertools.accumulate(map(_fixed_size, arrays)))
    places = [slice(end - size, end) for end, size in zip(ends, map(_fixed_size, arrays), strict=True)]

    def decode(data: Bytes, at: int) -> tuple[list[Any], int]:
        if len(data) - at < pattern.size:
            raise Short(at + pattern.size - len(data))
        flat = pattern.unpack_from(data, at)
        return [flat[place] for place in places], at + pattern.size

    return decode


def _union(kind: Union) -> Decoder:
    if kind.nullable and len(kind.cases) == 1:
        part = decoder(kind.cases[0][1])
        return _optional_varint if part is varint else _optional(part)
    parts = [(tag, decoder(part)) for tag, part in kind.cases]
    offset = int(kind.nullable)

    def decode(data: Bytes, at: int) -> tuple[tuple[str, Any] | None, int]:
        if at >= len(data):
            raise Short
        case = data[at]
        if offset and not case:
            return None, at + 1
        if case - offset >= len(parts):
            raise ProtocolError(
                f"MRD 2 stream: an item of kind {case}, expected at most {len(parts) - 1 + offset}: damaged?"
            )
        tag, part = parts[case - offset]
        value, at = part(data, at + 1)
        return (tag, value), at

    return decode


def _optional(part: Decoder) -> Decoder:
    def decode(data: Bytes, at: int) -> tuple[Any, int]:
        if at >= len(data):
            raise Short
        if not data[at]:
            return None, at + 1
        return part(data, at + 1)

    return decode


def _optional_varint(data: Bytes, at: int) -> tuple[int | None, int]:
    """What most fields of an acquisition's head are, without a further call."""
    try:
        if not data[at]:
            return None, at + 1
        byte = data[at + 1]
    except IndexError:
        raise Short from None
    return (byte, at + 2) if byte < 128 else varint(data, at + 1)


@lru_cache(maxsize=64)
def _struct(code: str, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{code}")


def _small(code: str, count: int, data: Bytes, at: int) -> tuple[tuple[Any, ...], int]:
    """A few numbers as they lie in memory."""
    pattern = _struct(code, count)
    if len(data) - at < pattern.size:
        raise Short(at + pattern.size - len(data))
    return pattern.unpack_from(data, at), at + pattern.size


def _vector(kind: Vector) -> Decoder:
    part, length = decoder(kind.items), kind.length
    code = _code(kind.items)

    def decode(data: Bytes, at: int) -> tuple[Any, int]:
        count, at = (length, at) if length is not None else varint(data, at)
        if not count:
            return (), at
        if code is not None and count <= _SMALL:
            return _small(code, count, data, at)
        if count > _MOST_LIST:
            raise ProtocolError(f"MRD 2 stream: a list of {count} items, expected at most {_MOST_LIST}")
        items = []
        for _ in range(count):
            value, at = part(data, at)
            items.append(value)
        return items, at

    return decode


def _map(kind: Map) -> Decoder:
    keys, values = decoder(kind.keys), decoder(kind.values)

    def decode(data: Bytes, at: int) -> tuple[dict[Any, Any], int]:
        count, at = varint(data, at)
        pairs: dict[Any, Any] = {}
        for _ in range(count):
            key, at = keys(data, at)
            pairs[key], at = values(data, at)
        return pairs, at

    return decode


def _array(kind: Array) -> Decoder:
    part, plain, integer = decoder(kind.items), _plain(kind.items), _integer(kind.items)
    code, size = _code(kind.items), _fixed_size(kind)
    if code is not None and size:
        return lambda data, at: _small(code, size, data, at)

    def decode(data: Bytes, at: int) -> tuple[NDArray[Any], int]:
        shape, at = _shape(kind, data, at)
        if plain is not None:
            return _view(data, at, shape, plain)
        if integer is not None:
            return _varints(data, at, shape, integer)
        flat = np.empty(math.prod(shape), object)
        for place in range(flat.size):
            flat[place], at = part(data, at)
        return flat.reshape(shape), at

    return decode


def _shape(kind: Array, data: Bytes, at: int) -> tuple[tuple[int, ...], int]:
    if kind.shape is not None:
        return kind.shape, at
    rank, at = (kind.rank, at) if kind.rank is not None else varint(data, at)
    if rank > 32:
        raise ProtocolError(f"MRD 2 stream: an array of {rank} dimensions: the data are damaged")
    sizes = []
    for _ in range(rank):
        size, at = varint(data, at)
        sizes.append(size)
    if math.prod(sizes) > MOST_ITEM_BYTES:
        raise ProtocolError(
            f"MRD 2 stream: an array of {' x '.join(map(str, sizes))}, over {MOST_ITEM_BYTES} bytes"
        )
    return tuple(sizes), at


def _code(kind: Type) -> str | None:
    """How `struct` writes a plain real number."""
    dtype = _plain(kind)
    return None if dtype is None or dtype.kind == "c" else dtype.char


def _plain(kind: Type) -> np.dtype[Any] | None:
    return PLAIN.get(kind.name) if isinstance(kind, Primitive) else None


def _integer(kind: Type) -> np.dtype[Any] | None:
    return GROUPED.get(kind.name) if isinstance(kind, Primitive) else None


def _view(data: Bytes, at: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size > MOST_ITEM_BYTES:
        raise ProtocolError(f"MRD 2 stream: an array of {size} bytes, expected at most {MOST_ITEM_BYTES}")
    if len(data) - at < size:
        raise Short(at + size - len(data))
    return np.frombuffer(data, dtype, count, at).reshape(shape), at + size


def _varints(data: Bytes, at: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    """All integers of an array at once."""
    count = math.prod(shape)
    if not count:
        return np.zeros(shape, dtype), at
    groups = np.frombuffer(data, np.uint8, min(len(data) - at, 10 * count), at)
    (ends,) = np.nonzero(groups < 128)
    if len(ends) < count:
        if len(groups) == 10 * count:
            raise ProtocolError("MRD 2 stream: an integer of over 64 bits: the data are damaged")
        raise Short(count - len(ends))
    ends = ends[:count]
    starts = np.concatenate([[0], ends[:-1] + 1])
    values = np.zeros(count, np.uint64)
    for group in range(int((ends - starts).max()) + 1):
        has = starts + group <= ends
        bits = groups[np.minimum(starts + group, ends)].astype(np.uint64) & np.uint64(127)
        values |= np.where(has, bits << np.uint64(7 * group), np.uint64(0))
    if dtype.kind == "i":
        values = (values >> np.uint64(1)) ^ (np.uint64(0) - (values & np.uint64(1)))
        return values.astype(np.int64).astype(dtype).reshape(shape), at + int(ends[-1]) + 1
    return values.astype(dtype).reshape(shape), at + int(ends[-1]) + 1

"""Types to encoders, the other way round from `decode`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from recon_node.mrd.v2.primitives import EPOCH, PLAIN
from recon_node.mrd.v2.schema import Array, Enum, Map, Primitive, Record, Type, Union, Vector

Encoder = Callable[[Any], bytes]

MAGIC = b"yardl" + struct.pack("<i", 1)


def varint(value: int) -> bytes:
    """An unsigned integer."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> bytes:
    """A signed integer."""
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def text(value: str) -> bytes:
    """A string."""
    data = value.encode()
    return varint(len(data)) + data


def _fixed(name: str) -> Encoder:
    dtype = PLAIN[name]
    return lambda value: np.asarray(value, dtype).tobytes()


_PRIMITIVES: dict[str, Encoder] = {
    **{name: _fixed(name) for name in PLAIN},
    **dict.fromkeys(("uint16", "uint32", "uint64", "size"), varint),
    **dict.fromkeys(("int16", "int32", "int64", "time", "datetime"), zigzag),
    "string": text,
    "date": lambda value: zigzag((value - EPOCH).days),
}


def encoder(kind: Type) -> Encoder:
    """The function that writes a value of one type.

    Records take a mapping of field names: what it leaves out is written as nothing, an empty list, an empty
    array or zero. Unions take a pair of tag and value, or None.
    """
    if isinstance(kind, Primitive | Enum):
        return _PRIMITIVES[kind.base.name if isinstance(kind, Enum) else kind.name]
    if isinstance(kind, Record):
        return _record(kind)
    if isinstance(kind, Union):
        return _union(kind)
    if isinstance(kind, Vector):
        return _vector(kind)
    if isinstance(kind, Map):
        return _map(kind)
    return _array(kind)


def nothing(kind: Type) -> Any:
    """The value that stands for an absent one."""
    if isinstance(kind, Record):
        return {}
    if isinstance(kind, Union):
        return None if kind.nullable else (kind.cases[0][0], nothing(kind.cases[0][1]))
    if isinstance(kind, Vector):
        return [nothing(kind.items)] * (kind.length or 0)
    if isinstance(kind, Map):
        return {}
    if isinstance(kind, Array):
        return np.zeros(kind.shape or (0,) * (kind.rank or 0))
    if isinstance(kind, Enum):
        return kind.values[0][1] if kind.base.name == "int32" else 0
    return {"string": "", "date": EPOCH}.get(kind.name, 0)


def _record(kind: Record) -> Encoder:
    parts = [(name, encoder(part), part) for name, part in kind.fields]

    def encode(value: Mapping[str, Any]) -> bytes:
        return b"".join(
            part(nothing(absent) if value.get(name) is None else value[name]) for name, part, absent in parts
        )

    return encode


def _union(kind: Union) -> Encoder:
    parts = {tag: (at + kind.nullable, encoder(part)) for at, (tag, part) in enumerate(kind.cases)}
    optional = kind.nullable and len(kind.cases) == 1

    def encode(value: Any) -> bytes:
        if value is None and kind.nullable:
            return b"\0"
        tag, inner = (kind.cases[0][0], value) if optional else value
        index, part = parts[tag]
        return bytes([index]) + part(inner)

    return encode


def _vector(kind: Vector) -> Encoder:
    part = encoder(kind.items)

    def encode(value: Sequence[Any]) -> bytes:
        head = b"" if kind.length is not None else varint(len(value))
        return head + b"".join(part(item) for item in value)

    return encode


def _map(kind: Map) -> Encoder:
    keys, values = encoder(kind.keys), encoder(kind.values)

    def encode(value: Mapping[Any, Any]) -> bytes:
        return varint(len(value)) + b"".join(keys(key) + values(inner) for key, inner in value.items())

    return encode


def _array(kind: Array) -> Encoder:
    part = encoder(kind.items)
    plain = PLAIN.get(kind.items.name) if isinstance(kind.items, Primitive) else None

    def encode(value: Any) -> bytes:
        array = np.asarray(value)
        head: bytes = b""
        if kind.shape is None:
            rank = b"" if kind.rank is not None else varint(array.ndim)
            head = rank + b"".join(varint(size) for size in array.shape)
        if plain is not None:
            return head + array.astype(plain).tobytes()
        return head + b"".join(part(item) for item in array.ravel().tolist())

    return encode

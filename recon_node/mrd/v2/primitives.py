"""Numbers, texts and times of MRD 2: what every other type is made of.

Integers stand as variable-length groups of seven bits (signed ones zigzag), fractions as they lie in memory.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from recon_node.core.errors import ProtocolError

Bytes = bytes | bytearray
Decoder = Callable[[Bytes, int], tuple[Any, int]]

MOST_ITEM_BYTES = 1 << 30
"""Arrays that claim more are refused before they are read."""
EPOCH = dt.date(1970, 1, 1)
PLAIN: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "complexfloat32": np.dtype("<c8"),
    "complexfloat64": np.dtype("<c16"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
"""What lies in the stream as in memory."""
GROUPED: dict[str, np.dtype[Any]] = {
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "size": np.dtype("<u8"),
}
"""What is written as groups of seven bits."""


class Short(Exception):
    """The bytes end within a value."""

    def __init__(self, wanted: int = 1) -> None:
        self.wanted = wanted
        """Bytes that are missing at least."""


def varint(data: Bytes, at: int) -> tuple[int, int]:
    """An unsigned integer."""
    try:
        byte = data[at]
        if byte < 128:
            return byte, at + 1
        value, shift = byte & 127, 7
        while True:
            at += 1
            byte = data[at]
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at + 1
            shift += 7
            if shift > 63:
                raise ProtocolError("MRD 2 stream: an integer of over 64 bits: the data are damaged")
    except IndexError:
        raise Short from None


def _zigzag(data: Bytes, at: int) -> tuple[int, int]:
    value, at = varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _fixed(form: str) -> Decoder:
    pattern = struct.Struct(form)
    size, unpack = pattern.size, pattern.unpack_from

    def decode(data: Bytes, at: int) -> tuple[Any, int]:
        if len(data) - at < size:
            raise Short(size)
        return unpack(data, at)[0], at + size

    return decode


def _complex(form: str) -> Decoder:
    pattern = struct.Struct(form)

    def decode(data: Bytes, at: int) -> tuple[complex, int]:
        if len(data) - at < pattern.size:
            raise Short(pattern.size)
        return complex(*pattern.unpack_from(data, at)), at + pattern.size

    return decode


def text(data: Bytes, at: int) -> tuple[str, int]:
    """A string: its length in bytes, then UTF-8."""
    size, at = varint(data, at)
    if size > MOST_ITEM_BYTES:
        raise ProtocolError(f"MRD 2 stream: a text of {size} bytes, expected at most {MOST_ITEM_BYTES}")
    if len(data) - at < size:
        raise Short(at + size - len(data))
    try:
        return data[at : at + size].decode(), at + size
    except UnicodeDecodeError as error:
        raise ProtocolError("MRD 2 stream: a text is not UTF-8: the data are damaged") from error


def _date(data: Bytes, at: int) -> tuple[dt.date, int]:
    days, at = _zigzag(data, at)
    try:
        return EPOCH + dt.timedelta(days=days), at
    except OverflowError as error:
        raise ProtocolError(f"MRD 2 stream: a date {days} days after 1970") from error


PRIMITIVES: dict[str, Decoder] = {
    "bool": _fixed("<?"),
    "int8": _fixed("<b"),
    "uint8": _fixed("<B"),
    "float32": _fixed("<f"),
    "float64": _fixed("<d"),
    "complexfloat32": _complex("<ff"),
    "complexfloat64": _complex("<dd"),
    "string": text,
    "date": _date,
    "time": _zigzag,
    "datetime": _zigzag,
    **dict.fromkeys(("uint16", "uint32", "uint64", "size"), varint),
    **dict.fromkeys(("int16", "int32", "int64"), _zigzag),
}

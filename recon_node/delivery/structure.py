"""Whether the bytes of a DICOM file are whole (PS3.5 Section 7, PS3.10 Section 7): no element is cut off.

pydicom gives back what is there of a value that ends too early; a file cut off in its pixels would count
as an image. Here only the skeleton is read: where each element begins and ends.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from recon_node.core.errors import DicomError

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_DEEPEST = 64
_INFLATED_BYTES = 1 << 30
_LONG = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)
_TRANSFER_SYNTAX, _SOP_CLASS = 0x00020010, 0x00080016
_ROWS, _COLUMNS, _BITS = 0x00280010, 0x00280011, 0x00280100
_SAMPLES, _FRAMES, _PHOTOMETRIC = 0x00280002, 0x00280008, 0x00280004


@dataclass(slots=True)
class _Skeleton:
    """Top-level elements of one data set."""

    data: bytes
    explicit: bool = True
    order: str = "<"
    at: int = 0
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Tag to where its value begins and ends."""
    fragments: int = -1
    """Of encapsulated pixels; -1 where they are not encapsulated."""

    def value(self, tag: int) -> bytes:
        start, end = self.places.get(tag, (0, 0))
        return self.data[start:end]

    def number(self, tag: int, default: int) -> int:
        value = self.value(tag)
        if len(value) == 2 and tag != _FRAMES:
            return int.from_bytes(value, "little" if self.order == "<" else "big")
        digits = value.strip(b" \0")
        return int(digits) if digits.isdigit() else default


def check_whole(data: bytes, what: str) -> None:
    """See that a DICOM file ends where its elements do, and holds all of its pixels.

    Raises
    ------
    DicomError
        No DICOM file, cut off, or with fewer pixels than its rows, columns and frames ask for.
    """
    if data[128:132] != b"DICM":
        raise DicomError(f"{what} has no DICM mark at byte 128: it is no DICOM file")
    meta = _Skeleton(data, at=132)
    while int.from_bytes(data[meta.at : meta.at + 2], "little") == 2 and meta.at + 8 <= len(data):
        _element(meta, what)
    syntax = meta.value(_TRANSFER_SYNTAX).strip(b" \0").decode("ascii", "replace")
    body = _Skeleton(data, at=meta.at)
    if syntax == DeflatedExplicitVRLittleEndian:
        body = _Skeleton(_inflated(data[meta.at :], what))
    body.order = ">" if syntax == ExplicitVRBigEndian else "<"
    body.explicit = syntax != ImplicitVRLittleEndian and _looks_explicit(body)
    while len(body.data) - body.at >= 8:
        _element(body, what)
    if body.data[body.at :].strip(b"\0"):
        raise _cut_off(what)
    _check_pixels(body, what)


def _cut_off(what: str) -> DicomError:
    return DicomError(f"{what} is cut off: an element ends after the end of the file")


def _inflated(data: bytes, what: str) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data, _INFLATED_BYTES)
    except zlib.error as error:
        raise DicomError(f"{what} is deflated, but damaged") from error
    if stream.unconsumed_tail:
        raise DicomError(f"{what} unfolds to more than {_INFLATED_BYTES >> 20} MiB")
    if not stream.eof:
        raise _cut_off(what)
    return inflated


def _looks_explicit(body: _Skeleton) -> bool:
    vr = body.data[body.at + 4 : body.at + 6]
    return vr.isalpha() and vr.isupper()


def _header(body: _Skeleton, what: str) -> tuple[int, bytes, int]:
    """Tag, value representation (empty where implicit) and length; moves to the value."""
    raw = body.data[body.at : body.at + 8]
    if len(raw) < 8:
        raise _cut_off(what)
    group, element = struct.unpack(body.order + "HH", raw[:4])
    tag, vr = group << 16 | element, raw[4:6]
    body.at += 8
    if group == 0xFFFE or not body.explicit or not (vr.isalpha() and vr.isupper()):
        return tag, b"", struct.unpack(body.order + "L", raw[4:])[0]
    if vr not in _LONG:
        return tag, vr, struct.unpack(body.order + "H", raw[6:])[0]
    body.at += 4
    if body.at > len(body.data):
        raise _cut_off(what)
    return tag, vr, struct.unpack(body.order + "L", body.data[body.at - 4 : body.at])[0]


def _element(body: _Skeleton, what: str, depth: int = 0) -> int:
    """Pass one element; its tag."""
    tag, vr, length = _header(body, what)
    start = body.at
    if length != _UNDEFINED:
        body.at += length
        if body.at > len(body.data):
            raise _cut_off(what)
    elif tag in _PIXELS:
        body.fragments = _fragments(body, what)
    else:
        _items(body, what, depth + 1, implicit=vr == b"UN")
    if depth == 0:
        body.places[tag] = (start, body.at)
    return tag


def _items(body: _Skeleton, what: str, depth: int, *, implicit: bool) -> None:
    """Pass the items of a sequence of undefined length (PS3.5 Section 7.5; 6.2.2 for UN)."""
    if depth > _DEEPEST:
        raise DicomError(f"{what} has sequences nested more than {_DEEPEST} deep")
    explicit, body.explicit = body.explicit, body.explicit and not implicit
    while (item := _header(body, what))[0] != _SEQUENCE_END:
        tag, _, length = item
        if tag != _ITEM:
            raise DicomError(f"{what} has an element in the place of a sequence's item: it is damaged")
        if length != _UNDEFINED:
            body.at += length
            if body.at > len(body.data):
                raise _cut_off(what)
        else:
            while _element(body, what, depth) != _ITEM_END:
                pass
    body.explicit = explicit


def _fragments(body: _Skeleton, what: str) -> int:
    """Pass encapsulated pixels (PS3.5 Annex A.4); how many fragments hold something."""
    count = -1  # the first item is the offset table
    while (item := _header(body, what))[0] != _SEQUENCE_END:
        tag, _, length = item
        body.at += length
        if tag != _ITEM or body.at > len(body.data):
            raise _cut_off(what)
        count += 1 if length or count < 0 else 0
    return max(count, 0)


def _check_pixels(body: _Skeleton, what: str) -> None:
    tag = next((t for t in _PIXELS if t in body.places), None)
    frames = max(1, body.number(_FRAMES, 1))
    if tag is None:
        sop_class = UID(body.value(_SOP_CLASS).strip(b" \0").decode("ascii", "replace"))
        if body.number(_ROWS, 0) or sop_class.name.endswith("Image Storage"):
            raise DicomError(f"{what} is an image without pixels: it is cut off")
        return
    if body.fragments >= 0:
        if body.fragments < frames:
            raise DicomError(f"{what} has {body.fragments} compressed frames, expected {frames}")
        return
    bits = {0x7FE00008: 32, 0x7FE00009: 64}.get(tag) or body.number(_BITS, 8)
    samples = body.number(_SAMPLES, 1)
    if body.value(_PHOTOMETRIC).strip(b" \0").startswith((b"YBR_FULL_422", b"YBR_PARTIAL_42")):
        samples = 2
    pixels = body.number(_ROWS, 0) * body.number(_COLUMNS, 0) * samples * frames
    start, end = body.places[tag]
    if end - start < (pixels * bits + 7) // 8:
        raise DicomError(
            f"{what} has {end - start} bytes of pixels, expected {(pixels * bits + 7) // 8}: it is cut off"
        )

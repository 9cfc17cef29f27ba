"""A series encoded once: constant bytes between the few elements that differ by instance.

Building and encoding a data set costs far more than writing its pixels, and the instances of a
series differ in a handful of short elements. So the shared elements are encoded once by pydicom,
cut where the others belong, and each instance is the constant pieces with its own between them.
The bytes are those pydicom writes for the same data set.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID

from recon_node.core.errors import DicomError
from recon_node.dicom.build import SeriesTemplate, Slot
from recon_node.dicom.compress import compressed_frame

Buffer = bytes | memoryview
_PREAMBLE = b"\x00" * 128 + b"DICM"
_PIXEL_DATA = struct.Struct("<HH2sHI")
_SEQUENCE_DELIMITER = bytes.fromhex("feffdde000000000")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedInstance:
    """The bytes of one file, in pieces to write one after the other."""

    sop_instance_uid: str
    pieces: tuple[Buffer, ...]

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)


def encode_series(template: SeriesTemplate) -> Iterator[EncodedInstance]:
    """The instances of a series as DICOM files (PS3.10), in the order of phases.

    Raises
    ------
    DicomError
        Where a value cannot be encoded.
    """
    constants, slots = _cut(template)
    columns = [_elements(slot) for slot in slots]
    pixels = _pixel_pieces(template)
    for uid, own, pieces in zip(template.instance_uids, zip(*columns, strict=True), pixels, strict=True):
        head = [constants[0]]
        for element, constant in zip(own, constants[1:], strict=True):
            head += (element, constant)
        head.append(pieces[0])
        yield EncodedInstance(sop_instance_uid=uid, pieces=(b"".join(head), *pieces[1:]))


def _pixel_pieces(template: SeriesTemplate) -> Iterator[tuple[bytes, *tuple[Buffer, ...]]]:
    """The pixel data element of each phase: its head, then its value."""
    syntax = UID(template.meta.TransferSyntaxUID)
    if syntax.is_compressed:
        head = _PIXEL_DATA.pack(0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        for frame in template.pixels:
            yield head, compressed_frame(frame, syntax), _SEQUENCE_DELIMITER
        return
    frames = np.ascontiguousarray(template.pixels, "<u2").view(np.uint8).ravel().data
    size = template.pixels[0].nbytes
    head = _PIXEL_DATA.pack(0x7FE0, 0x0010, b"OW", 0, size)
    for start in range(0, len(frames), size):
        yield head, frames[start : start + size]


def _cut(template: SeriesTemplate) -> tuple[list[bytes], list[Slot]]:
    """Constant pieces, one more than there are slots between them."""
    uid = Slot(tag=0x00020003, vr="UI", values=template.instance_uids)
    try:
        before, after = _encoded_meta(template, _elements(uid)[0])
        runs = _encoded_runs(template.shared, [slot.tag for slot in template.slots])
    except (ValueError, TypeError, NotImplementedError, UnicodeError, struct.error, OverflowError) as error:
        # NotImplementedError is pydicom's own, for value representations it cannot write.
        raise DicomError(f"the series cannot be encoded: {error}") from error
    return [before, after + runs[0], *runs[1:]], [uid, *template.slots]


def _encoded_meta(template: SeriesTemplate, uid: bytes) -> tuple[bytes, bytes]:
    """Preamble and file meta information, before and after the SOP instance UID."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, template.file_meta(0), enforce_standard=True)
    before, after = buffer.getvalue().split(uid)
    return _PREAMBLE + before, after


def _encoded_runs(shared: Dataset, cuts: list[int]) -> list[bytes]:
    """The elements of `shared`, encoded, cut before each tag of `cuts` (ascending)."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    encodings = convert_encodings(shared.SpecificCharacterSet)
    ends: list[int] = []
    for element in shared:
        while len(ends) < len(cuts) and element.tag > cuts[len(ends)]:
            ends.append(buffer.tell())
        write_data_element(buffer, element, encodings)
    ends += [buffer.tell()] * (len(cuts) - len(ends))
    content = buffer.getvalue()
    return [content[start:end] for start, end in pairwise([0, *ends, len(content)])]


def _elements(slot: Slot) -> list[bytes]:
    """Explicit VR little endian, short form (PS3.5 section 7.1.2), one a phase."""
    padding = b"\x00" if slot.vr == "UI" else b" "
    head = struct.pack("<HH2s", slot.tag >> 16, slot.tag & 0xFFFF, slot.vr.encode())
    values = (value.encode("ascii") for value in slot.values)
    padded = (value + padding * (len(value) % 2) for value in values)
    return [head + len(value).to_bytes(2, "little") + value for value in padded]

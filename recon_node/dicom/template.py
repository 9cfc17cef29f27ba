"""A series encoded once: constant bytes between the few elements that differ by instance.

Building and encoding a data set costs far more than writing its pixels, and the instances of a
series differ in a handful of short elements. So the shared elements are encoded once by pydicom,
cut where the others belong, and each instance is the constant pieces with its own between them.
The bytes are those pydicom writes for the same data set.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info

from recon_node.core.errors import DicomError
from recon_node.dicom.build import SeriesTemplate, Slot

Buffer = bytes | memoryview
_PREAMBLE = b"\x00" * 128 + b"DICM"
_PIXEL_DATA = struct.Struct("<HH2sHI")


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
    frames = np.ascontiguousarray(template.pixels, "<u2").view(np.uint8).ravel().data
    size = template.pixels[0].nbytes
    pixel_head = _PIXEL_DATA.pack(0x7FE0, 0x0010, b"OW", 0, size)
    for phase, uid in enumerate(template.instance_uids):
        head = [constants[0]]
        for slot, constant in zip(slots, constants[1:], strict=True):
            head += (_element(slot, phase), constant)
        head.append(pixel_head)
        pixels = frames[phase * size : (phase + 1) * size]
        yield EncodedInstance(sop_instance_uid=uid, pieces=(b"".join(head), pixels))


def _cut(template: SeriesTemplate) -> tuple[list[bytes], list[Slot]]:
    """Constant pieces, one more than there are slots between them."""
    try:
        meta = _encoded_meta(template)
        tags = sorted(template.shared.keys())
        encoding = template.shared.SpecificCharacterSet
        uid = Slot(tag=0x00020003, vr="UI", values=template.instance_uids)
        constants, slots = list(meta), [uid]
        start = 0
        for slot in template.slots:
            run = [tag for tag in tags if start < tag < slot.tag]
            constants[-1] += _encoded(template.shared, run, encoding)
            slots.append(slot)
            constants.append(b"")
            start = slot.tag
        constants[-1] += _encoded(template.shared, [tag for tag in tags if tag > start], encoding)
    except (ValueError, TypeError, NotImplementedError, UnicodeError, struct.error, OverflowError) as error:
        raise DicomError(f"the series cannot be encoded: {error}") from error
    return constants, slots


def _encoded_meta(template: SeriesTemplate) -> tuple[bytes, bytes]:
    """Preamble and file meta information, before and after the SOP instance UID."""
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, template.file_meta(0), enforce_standard=True)
    element = _element(Slot(tag=0x00020003, vr="UI", values=template.instance_uids), 0)
    before, after = buffer.getvalue().split(element)
    return _PREAMBLE + before, after


def _encoded(shared: Dataset, tags: Sequence[int], encoding: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    run = Dataset()
    for tag in tags:
        run[tag] = shared[tag]
    write_dataset(buffer, run, encoding)
    return bytes(buffer.getvalue())


def _element(slot: Slot, phase: int) -> bytes:
    """Explicit VR little endian, short form (PS3.5 section 7.1.2)."""
    value = slot.values[phase].encode("ascii")
    if len(value) % 2:
        value += b"\x00" if slot.vr == "UI" else b" "
    return struct.pack("<HH2sH", slot.tag >> 16, slot.tag & 0xFFFF, slot.vr.encode(), len(value)) + value

"""Lengths of the messages with nested arrays: Gadgetron's own types and the plain ISMRMRD array.

They carry no total length, so it is summed up from the lengths inside. Layouts: Gadgetron 4
(core readers for buckets, buffers and image arrays), as recorded from a real server in the tests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.errors import ProtocolError
from recon_node.mrd.messages import ID, IMAGE_HEADER, LENGTH64, PIXEL_TYPES, WAVEFORM_HEADER, MessageId

Peek = Callable[[int], memoryview]

SAMPLING_DESCRIPTION = np.dtype(
    [
        ("encoded_fov", "<f4", (3,)),
        ("recon_fov", "<f4", (3,)),
        ("encoded_matrix", "<u2", (3,)),
        ("recon_matrix", "<u2", (3,)),
        ("limits", [("min", "<u2"), ("center", "<u2"), ("max", "<u2")], (3,)),
    ]
)
"""Gadgetron's SamplingDescription (54 bytes of fields, packed to 4)."""
SAMPLING_BYTES = 56

BUCKET_META = np.dtype(
    [
        (name, [(part, "<u8") for part in parts])
        for name, parts in (
            ("data", ("count", "header_bytes", "data_bytes", "trajectory_bytes")),
            ("reference", ("count", "header_bytes", "data_bytes", "trajectory_bytes")),
            ("data_stats", ("bytes",)),
            ("reference_stats", ("bytes",)),
            ("waveforms", ("count", "header_bytes", "data_bytes")),
        )
    ]
)
"""What a BUCKET starts with."""

_MAX_RANK = 32


class Walk:
    """Walks over a message while it arrives; every step is checked against the limit first."""

    def __init__(self, peek: Peek, limit: int) -> None:
        self._peek = peek
        self._limit = limit
        self.position = ID.size

    def skip(self, size: int) -> int:
        """Step over `size` bytes; returns where they start."""
        at = self.position
        if at + size > self._limit:
            raise ProtocolError(f"message announces {at + size} bytes, more than the limit of {self._limit}")
        self.position = at + size
        return at

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        at = self.skip(size)
        return self._peek(self.position)[at:]

    def count(self) -> int:
        """A uint64."""
        return int(LENGTH64.unpack(self.take(LENGTH64.size))[0])

    def present(self) -> bool:
        """The flag before an optional part."""
        return self.take(1)[0] != 0

    def shape(self) -> tuple[int, ...]:
        """The sizes before an array."""
        rank = self.count()
        if rank > _MAX_RANK:
            raise ProtocolError(f"array has {rank} dimensions, expected at most {_MAX_RANK}")
        return tuple(np.frombuffer(self.take(8 * rank), "<u8").tolist())

    def array(self, itemsize: int) -> tuple[int, tuple[int, ...]]:
        """Step over an array; returns where its items start and its shape."""
        shape = self.shape()
        items = 1
        for size in shape:
            items *= size
        return self.skip(items * itemsize), shape


def walk_buffer(walk: Walk) -> dict[str, tuple[int, tuple[int, ...]] | None]:
    """Where the parts of one ReconData buffer are: offset from the message id, and shape."""
    parts: dict[str, tuple[int, tuple[int, ...]] | None] = {"data": walk.array(8)}
    parts["trajectory"] = walk.array(4) if walk.present() else None
    parts["density"] = walk.array(4) if walk.present() else None
    parts["headers"] = walk.array(ACQUISITION_HEADER.itemsize)
    parts["sampling"] = (walk.skip(SAMPLING_BYTES), ())
    return parts


def _recon_data(peek: Peek, limit: int) -> int:
    walk = Walk(peek, limit)
    for _ in range(walk.count()):
        walk_buffer(walk)
        if walk.present():
            walk_buffer(walk)
    return walk.position


def _bucket(peek: Peek, limit: int) -> int:
    walk = Walk(peek, limit)
    meta = np.frombuffer(walk.take(BUCKET_META.itemsize), BUCKET_META)[0]
    for acquisitions, stats in (("data", "data_stats"), ("reference", "reference_stats")):
        for part in ("header_bytes", "trajectory_bytes", "data_bytes"):
            walk.skip(int(meta[acquisitions][part]))
        walk.skip(int(meta[stats]["bytes"]))
    walk.skip(int(meta["waveforms"]["header_bytes"]))
    walk.skip(int(meta["waveforms"]["data_bytes"]))
    return walk.position


def _image_array(peek: Peek, limit: int) -> int:
    walk = Walk(peek, limit)
    walk.array(8)
    walk.array(IMAGE_HEADER.itemsize)
    for _ in range(walk.count()):
        walk.skip(walk.count())
    if walk.present():
        for _ in range(walk.count()):
            head = np.frombuffer(walk.take(WAVEFORM_HEADER.itemsize), WAVEFORM_HEADER)[0]
            walk.skip(4 * int(head["channels"]) * int(head["number_of_samples"]))
    if walk.present():
        walk.array(ACQUISITION_HEADER.itemsize)
    return walk.position


def _plain_array(peek: Peek, limit: int) -> int:
    walk = Walk(peek, limit)
    code, _version, rank = np.frombuffer(walk.take(6), "<u2").tolist()
    if code not in PIXEL_TYPES or rank > _MAX_RANK:
        raise ProtocolError(f"array has type {code} and {rank} dimensions, expected a type from 1 to 8")
    items = 1
    for size in np.frombuffer(walk.take(8 * rank), "<u8").tolist():
        items *= size
    walk.skip(items * PIXEL_TYPES[code].itemsize)
    return walk.position


GADGET_LENGTHS: dict[MessageId, Callable[[Peek, int], int]] = {
    MessageId.RECON_DATA: _recon_data,
    MessageId.BUCKET: _bucket,
    MessageId.IMAGE_ARRAY: _image_array,
    MessageId.NDARRAY: _plain_array,
}

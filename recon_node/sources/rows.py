"""Room for a run of acquisitions of one shape, into which the system can scatter what a socket holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.scan import Readouts
from recon_node.sources.messages import ID

START = np.dtype([("id", "<u2"), ("head", ACQUISITION_HEADER)])
"""How an ACQUISITION message starts."""
SHAPE_FIELDS = ("number_of_samples", "active_channels", "trajectory_dimensions")
_PROBE = np.zeros(1, START)
for _name in SHAPE_FIELDS:
    _PROBE["head"][_name] = 0xFFFF
_ALIKE = np.r_[: ID.size, np.flatnonzero(_PROBE.view(np.uint8))]
"""Columns of a message's start that acquisitions of one shape have in common."""


class Rows:
    """Acquisitions as they are sent, their starts and their samples apart.

    Parameters
    ----------
    first : memoryview
        Id and header (342 bytes) of the first one: all have its shape.
    count : int
        How many there is room for.
    """

    def __init__(self, first: memoryview, count: int) -> None:
        samples, coils, dimensions = shape_of(first)
        self.count = count
        self.starts = np.empty((count, START.itemsize + 4 * samples * dimensions), np.uint8)
        self.samples = np.empty((count, coils, samples), np.complex64)
        self._bodies = self.samples.reshape(count, -1).view(np.uint8)
        self.size = self.starts.shape[1] + self._bodies.shape[1]
        """Bytes of one message."""

    def pieces(self, filled: int) -> list[NDArray[np.uint8]]:
        """The room behind the first `filled` bytes, in the order of the stream."""
        row, at = divmod(filled, self.size)
        rows = zip(self.starts[row:], self._bodies[row:], strict=True)
        pieces: list[NDArray[np.uint8]] = [part for pair in rows for part in pair]
        width = self.starts.shape[1]
        if at >= width:
            del pieces[0]
            at -= width
        if at:
            pieces[0] = pieces[0][at:]
        return pieces

    def put(self, raw: memoryview) -> None:
        """Copy the first bytes of the stream, less than one message, to their places."""
        width = self.starts.shape[1]
        content = np.frombuffer(raw, np.uint8)
        start, body = content[:width], content[width:]
        self.starts[0, : len(start)] = start
        self._bodies[0, : len(body)] = body

    def alike(self, count: int) -> int:
        """How many of the first `count` messages make one run: see `run_length`."""
        return run_length(self.starts[:count])

    def taken(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of the stream."""
        row, at = divmod(start, self.size)
        last = -(-end // self.size)
        rows = zip(self.starts[row:last], self._bodies[row:last], strict=True)
        whole = b"".join(part.tobytes() for pair in rows for part in pair)
        return whole[at : at + end - start]

    def readouts(self, count: int) -> Readouts:
        """The first `count` as values. They share memory with this room where they fill most of it."""
        samples = self.samples[:count]
        starts = np.ascontiguousarray(self.starts[:count, ID.size : START.itemsize])
        head = starts.view(ACQUISITION_HEADER)[:, 0]
        return Readouts(head=head, samples=samples if 2 * count > self.count else samples.copy())


def shape_of(first: memoryview) -> tuple[int, int, int]:
    """(samples, coils, trajectory dimensions) of an ACQUISITION message by its first 342 bytes."""
    head = np.frombuffer(first[: START.itemsize], START)["head"][0]
    samples, coils, dimensions = (int(head[name]) for name in SHAPE_FIELDS)
    return samples, coils, dimensions


def run_length(starts: NDArray[np.uint8]) -> int:
    """How many of consecutive messages are acquisitions of the first one's shape.

    Parameters
    ----------
    starts : `(message, byte)` uint8
        Id and header of each, or more; the first is an acquisition.
    """
    same = (starts[:, _ALIKE] == starts[0, _ALIKE]).all(axis=1)
    return len(starts) if same.all() else int(np.argmin(same))

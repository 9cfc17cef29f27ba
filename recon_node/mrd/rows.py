"""How ACQUISITION messages start, and which of them make a run of one shape."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.scan import Readouts
from recon_node.mrd.messages import ID

START = np.dtype([("id", "<u2"), ("head", ACQUISITION_HEADER)])
"""How an ACQUISITION message starts."""
_SIZE = struct.Struct("<H")
_SAMPLES, _COILS, _DIMENSIONS = (
    ID.size + ACQUISITION_HEADER.fields[name][1]  # type: ignore[index]
    for name in ("number_of_samples", "active_channels", "trajectory_dimensions")
)
"""Where in a message these uint16 are."""
_ALIKE = np.array([n for at in (0, _SAMPLES, _COILS, _DIMENSIONS) for n in (at, at + 1)])
"""Bytes of a message's start that acquisitions of one shape have in common."""


def shape_of(start: memoryview) -> tuple[int, int, int]:
    """(samples, coils, trajectory dimensions) of an ACQUISITION message that begins with `start`."""
    samples, coils, dimensions = (
        int(_SIZE.unpack_from(start, at)[0]) for at in (_SAMPLES, _COILS, _DIMENSIONS)
    )
    return samples, coils, dimensions


def run_length(starts: NDArray[np.uint8]) -> int:
    """How many of consecutive messages are acquisitions of the first one's shape.

    Parameters
    ----------
    starts : `(message, byte)` uint8
        Id and header of each, or more; the first is an acquisition.
    """
    same = (starts.take(_ALIKE, axis=1) == starts[0].take(_ALIKE)).all(axis=1)
    return len(starts) if same.all() else int(np.argmin(same))


def run_view(memory: memoryview, at: int, count: int) -> Readouts:
    """The run of `count` acquisitions that begins at byte `at`: a view of its samples, a copy of its headers.

    The samples are neither aligned nor contiguous: whoever takes the run copies them to where they belong.
    """
    samples, coils, dimensions = shape_of(memory[at : at + START.itemsize])
    before = START.itemsize + 4 * samples * dimensions
    size = before + 8 * samples * coils
    heads = np.ndarray((count, ACQUISITION_HEADER.itemsize), np.uint8, memory, at + ID.size, (size, 1))
    strides = (size, 8 * samples, 8)
    data = np.ndarray((count, coils, samples), np.complex64, memory, at + before, strides)
    return Readouts(head=heads.copy().view(ACQUISITION_HEADER)[:, 0], samples=data)

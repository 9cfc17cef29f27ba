"""How ACQUISITION messages start, and which of them make a run of one shape."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.sources.messages import ID

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

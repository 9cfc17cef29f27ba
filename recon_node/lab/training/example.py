"""One training example."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One undersampled clip with its truth, rows along readout and columns along phase encoding."""

    kspace: Tensor
    """`(frame, coil, row, column)` complex64, zero where not sampled."""
    mask: Tensor
    """`(frame, row, column)` bool."""
    maps: Tensor
    """`(coil, row, column)` complex64."""
    target: Tensor
    """`(frame, row, column)` float32 magnitude."""
    first: Tensor | None
    """`(frame, row, column)` complex64 first estimate, for networks that start from one."""
    motion: Tensor | None
    """`(frame, count, 2, row, column)` displacements to neighbouring frames, for networks that align them."""
    still: Tensor | None = None
    """`(row, column)` complex64, the true time average as these maps combine it."""
    heart: Tensor | None = None
    """Four whole numbers: first and last row, first and last column (exclusive) around the heart."""
    metadata: str
    undersampling: str
    periodic: bool
    """Whether the last frame is followed by the first."""

"""Calibration lines: a separate reference scan, or the fully sampled centre of the imaging lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.prep.line_patterns import central_run
from recon_node.prep.point_patterns import central_square

LEAST_LINES = 8


class CalibrationSum:
    """Sum of the calibration lines of one slice, whatever their phase, average or repetition."""

    def __init__(self, coils: int, rows: int, columns: int) -> None:
        self._sum = np.zeros((coils, rows, columns), dtype=np.complex64)
        self._count = np.zeros((rows, columns), dtype=np.int32)

    @property
    def shape(self) -> tuple[int, ...]:
        """(coil, row, kx)."""
        return self._sum.shape

    def add(self, rows: NDArray[Any], lines: NDArray[np.complex64], covered: NDArray[np.bool_]) -> None:
        """Add `(line, coil, kx)` at `rows`, measured where `covered` `(line, kx)`."""
        for row, line, where in zip(rows.tolist(), lines, covered, strict=True):
            self._sum[:, row] += line
            self._count[row] += where

    def mean(self) -> tuple[NDArray[np.complex64], NDArray[np.int32]]:
        """Average `(coil, row, kx)` and how often each sample was measured `(row, kx)`."""
        mean = self._sum / np.maximum(self._count, 1).astype(np.float32)
        return mean.astype(np.complex64, copy=False), self._count


def phase_average(
    data: NDArray[np.complex64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.complex64], NDArray[np.intp]]:
    """Average over phases of what each sampled `(coil, ky, kx)`, and how many did `(ky, kx)`."""
    count: NDArray[np.intp] = mask.sum(axis=0)
    total = data.sum(axis=0, dtype=np.complex64)
    return total / np.maximum(count, 1).astype(np.float32), count


def central_window(size: int, width: int) -> slice:
    """The central range of an axis, at most `width` wide, whose ``n // 2`` is that of the axis."""
    half = min(width // 2, size // 2)
    return slice(size // 2 - half, min(size, size // 2 + half))


def central_block(mask: NDArray[np.bool_], width: int) -> tuple[slice, slice] | None:
    """Largest fully sampled block around the centre, at most `width` lines and samples.

    Parameters
    ----------
    mask : ndarray
        `(ky, kx)` bool, centre at ``n // 2``.
    width : int

    Returns
    -------
    (slice, slice) or None
        Of ky and kx: even sizes, the same centre; None with fewer than 8 lines.
    """
    ny, nx = mask.shape
    if min(ny, nx) < LEAST_LINES:
        return None
    columns = central_run(np.any(mask, axis=0))
    half_x = min(nx // 2 - columns[0], columns[1] - nx // 2, width // 2)
    half_y = _half(np.all(mask[:, nx // 2 - half_x : nx // 2 + half_x], axis=1), width) if half_x else 0
    square = min(central_square(mask), width) // 2
    if half_y < square:
        half_y = half_x = square
    if 2 * half_y < LEAST_LINES or 2 * half_x < LEAST_LINES:
        return None
    return slice(ny // 2 - half_y, ny // 2 + half_y), slice(nx // 2 - half_x, nx // 2 + half_x)


def _half(full_lines: NDArray[np.bool_], width: int) -> int:
    first, stop = central_run(full_lines)
    centre = len(full_lines) // 2
    return min(centre - first, stop - centre, width // 2)

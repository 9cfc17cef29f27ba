"""Calibration lines: a separate reference scan, or the fully sampled centre of the imaging lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.budget import ScanMemory, kspace_bytes
from recon_node.core.scan import ScanHeader
from recon_node.prep.line_patterns import central_run
from recon_node.prep.places import APART_MM, MOST_PLACES, finite_positions
from recon_node.prep.point_patterns import central_square
from recon_node.prep.readout import Lines, ReadoutGrid
from recon_node.prep.slices import SliceBuffer

LEAST_LINES = 8
SAME_FOV = 0.02
"""Relative difference of fields of view whose k-space lines are the same lines."""
Block = tuple[NDArray[np.complex64], float]
"""Calibration data `(coil, ay, ax)`, and the standard deviation that unit noise has in them."""


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

    def copy(self) -> CalibrationSum:
        """What came so far."""
        other = CalibrationSum(*self.shape)
        other._sum[:], other._count[:] = self._sum, self._count
        return other

    def on_grid(self, rows: int, columns: int) -> CalibrationSum:
        """The same around the centre of another grid, whose fields of view are the same."""
        coils, mine, across = self.shape
        other = CalibrationSum(coils, rows, columns)
        here, there = _overlap(mine, rows), _overlap(rows, mine)
        wide, narrow = _overlap(across, columns), _overlap(columns, across)
        other._sum[:, there, narrow] = self._sum[:, here, wide]
        other._count[there, narrow] = self._count[here, wide]
        return other


def _overlap(size: int, other: int) -> slice:
    """The part of an axis of `size`, centre at ``n // 2``, that one of `other` has too."""
    before, after = min(size // 2, other // 2), min(size - size // 2, other - other // 2)
    return slice(size // 2 - before, size // 2 + after)


class Calibrations:
    """Calibration lines of a scan, by encoding, slice and place.

    Parameters
    ----------
    headers : sequence of ScanHeader
    memory : ScanMemory
        Charged before calibration lines of another slice get their own.
    """

    def __init__(self, headers: Sequence[ScanHeader], memory: ScanMemory) -> None:
        self._headers = headers
        self._memory = memory
        self._sums: dict[tuple[int, int], list[tuple[NDArray[np.float64], CalibrationSum]]] = {}

    def add(
        self,
        encoding: int,
        lines: Lines,
        rows: NDArray[np.intp],
        which: NDArray[np.bool_],
        shape: tuple[int, int, int],
    ) -> None:
        """Add those `which` of the lines calibrate."""
        positions = finite_positions(lines.head)
        slices = lines.head["idx"]["slice"]
        for number in np.unique(slices[which]).tolist():
            left = which & (slices == number)
            while left.any():
                first = int(np.argmax(left))
                apart = np.linalg.norm(positions - positions[first], axis=1) > APART_MM
                mine = left & ~apart
                known = self._at(encoding, number, positions[first], shape)
                known.add(rows[mine], lines.data[mine], lines.covered[mine])
                left &= ~mine

    def _at(
        self, encoding: int, number: int, position: NDArray[np.float64], shape: tuple[int, int, int]
    ) -> CalibrationSum:
        known = self._sums.setdefault((encoding, number), [])
        for there, found in known:
            if not np.linalg.norm(there - position) > APART_MM:
                return found
        if len(known) >= MOST_PLACES:
            return known[0][1]
        self._memory.hold(kspace_bytes(*shape), "calibration k-space")
        known.append((position, CalibrationSum(*shape)))
        return known[-1][1]

    def of(
        self, buffer: SliceBuffer, fov_x_mm: float, grids: Sequence[ReadoutGrid]
    ) -> tuple[CalibrationSum | None, list[str]]:
        """Calibration lines of a slice, of its own encoding or of one that agrees; what is to be said.

        Parameters
        ----------
        buffer : SliceBuffer
        fov_x_mm : float
            Of its grid.
        grids : sequence of ReadoutGrid
            One per encoding.
        """
        own = buffer.index.encoding
        found = self._near(own, buffer)
        if found is not None:
            return found, []
        told = []
        for encoding in {key[0] for key in self._sums} - {own}:
            other = self._near(encoding, buffer)
            if other is None:
                continue
            why = self._disagrees(own, encoding, fov_x_mm, grids[encoding].fov_mm)
            if why is None and other.shape[0] == buffer.shape[0]:
                note = f"calibration lines of encoding space {encoding} calibrate space {own}"
                return other.on_grid(*buffer.shape[1:]), [note]
            told.append(
                f"calibration lines of encoding space {encoding} were not used for space {own}: "
                f"{why or 'other channels'}"
            )
        return None, told

    def _near(self, encoding: int, buffer: SliceBuffer) -> CalibrationSum | None:
        """Those of the slice's number, and where these lie at several places, of its own."""
        known = self._sums.get((encoding, buffer.index.slice), [])
        if not known:  # the slice's counter may be lost, and its number made up
            everywhere = [pair for key, pairs in self._sums.items() if key[0] == encoding for pair in pairs]
            return next(
                (s for p, s in everywhere if np.linalg.norm(p - buffer.place.position_mm) <= APART_MM), None
            )
        away = [
            np.nan_to_num(np.linalg.norm(place - buffer.place.position_mm), nan=0.0) for place, _ in known
        ]
        nearest = int(np.argmin(away))
        return known[nearest][1] if len(known) == 1 or away[nearest] <= APART_MM else None

    def _disagrees(self, own: int, other: int, fov_own: float, fov_other: float) -> str | None:
        """Why lines of one encoding are none of another; None where they are."""
        mine, theirs = self._headers[own], self._headers[other]
        if mine.encoded_matrix[2] != 1 or theirs.encoded_matrix[2] != 1:
            return "slabs are not matched"
        pairs = ((fov_own, fov_other), (mine.encoded_fov_mm[1], theirs.encoded_fov_mm[1]))
        if any(abs(a / b - 1) > SAME_FOV for a, b in pairs):
            there, here = (" x ".join(f"{pair[i]:g}" for pair in pairs) for i in (1, 0))
            return f"its field of view is {there} mm, not {here} mm"
        return None


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


def averaged_block(mean: NDArray[np.complex64], count: NDArray[Any], width: int) -> Block | None:
    """The calibration block of lines averaged `count` times, and the noise left of a unit of it."""
    block = central_block(count > 0, width)
    if block is None:
        return None
    noise = float(np.sqrt(np.mean(1.0 / count[block])))
    return np.ascontiguousarray(mean[:, block[0], block[1]]), noise


def _half(full_lines: NDArray[np.bool_], width: int) -> int:
    first, stop = central_run(full_lines)
    centre = len(full_lines) // 2
    return min(centre - first, stop - centre, width // 2)

"""The undersampling really found in a mask: pattern, acceleration, calibration block, missing side."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.types import Pattern, Sampling
from recon_node.prep.composite import Bands, bands, distinct, lines_left_out, name_of, whole_lines
from recon_node.prep.line_patterns import Extent, central_run, extent, regular_spacings, symmetric
from recon_node.prep.point_patterns import central_square, looks_radial, spoke_count

FEWEST_ACS = 4
"""Fewer central lines than these are chance, not a calibration block."""
NEARLY_COMPLETE = 1.1
"""Below this acceleration lines are missing by accident, not by a pattern."""
NEARLY_THE_GRID = 0.8
"""Share of a grid's spacing that the points' acceleration reaches where the grid is all there is."""
RADIAL_ACS = 24
"""Widest calibration square discounted for spokes: near the centre they are dense by themselves."""
SPOKES_AT_ONE = 300
"""Spokes of a pseudo-radial frame at acceleration 1: ``180 / (0.6 R)`` spokes make R, whatever the matrix."""


def classify_sampling(mask: NDArray[Any]) -> Sampling:
    """Recognise the undersampling in a sampling mask.

    Parameters
    ----------
    mask : ndarray
        `(ky,)`, `(ky, kx)` or `(phase, ky, kx)`, true (or not zero) where sampled; k-space centre at
        index ``n // 2``.

    Returns
    -------
    Sampling
        `acceleration` does not count the calibration block: for regular lines it is their spacing
        (exact), for random lines all lines outside the block over those sampled, for evenly spaced
        spokes ``180 / (0.6 spokes)`` (the nominal acceleration of pseudo-radial masks), for other points
        all points outside the block over those sampled. A mask of several schemes (bands of columns with
        lines of their own, lines beside spokes) is counted by its points, and `parts` names them; where they
        have no pattern in common it is ``mixed``.

    Raises
    ------
    DataError
        No axis order known for the number of dimensions, or nothing sampled.
    """
    cube = _as_cube(mask)
    columns = np.flatnonzero(np.any(cube, axis=(0, 1)))
    if not len(columns):
        raise DataError("sampling mask: nothing is sampled")
    reach = (int(columns[0]), int(columns[-1]) + 1)
    window = cube[:, :, slice(*reach)]
    lines = np.any(window, axis=2)
    if bool(np.all(window == lines[:, :, None])):
        return dataclasses.replace(_line_sampling(cube, lines), acs_kx=reach)
    found = bands(cube)
    return _point_sampling(cube) if found is None else _banded_sampling(cube, found)


def _as_cube(mask: NDArray[Any]) -> NDArray[np.bool_]:
    array = np.asarray(mask) != 0
    if array.ndim not in (1, 2, 3) or 0 in array.shape:
        raise DataError(f"sampling mask has shape {array.shape}, expected (ky,), (ky, kx) or (phase, ky, kx)")
    shape = (1, -1, 1) if array.ndim == 1 else (1,) * (3 - array.ndim) + array.shape
    return np.asarray(array.reshape(shape))


def _line_sampling(cube: NDArray[np.bool_], lines: NDArray[np.bool_]) -> Sampling:
    """Pattern of whole lines `(phase, ky)`."""
    common, union = np.all(lines, axis=0), np.any(lines, axis=0)
    run = central_run(common)
    spacing = _common_spacing(lines, run)
    mean_gap = spacing or _mean_gap(union, run)
    whole = _nothing_outside(union, run)
    reach = extent(union, regular=spacing is not None, spacing=mean_gap, whole=whole)
    if run[0] <= reach.first and run[1] >= reach.stop:
        return _complete(cube, run, reach)
    run = _calibration_run(lines, run)
    per_phase = tuple(_line_acceleration(phase, run, reach, spacing) for phase in lines)
    if _nothing_outside(union, run):
        per_phase = tuple(_effective(phase) for phase in cube)
    acceleration = spacing or _harmonic_mean(per_phase)
    pattern: Pattern = "random" if spacing is None else "uniform"
    if _nothing_outside(union, run):
        pattern = "unknown"
    elif acceleration < NEARLY_COMPLETE:
        pattern = "full"
    return Sampling(
        pattern=pattern,
        acceleration=acceleration,
        effective_acceleration=_effective(cube),
        acs=run[1] - run[0],
        acs_ky=run,
        partial_fourier=reach.partial_fourier,
        per_phase=per_phase,
    )


def _complete(cube: NDArray[np.bool_], run: tuple[int, int], reach: Extent) -> Sampling:
    """Every line that was meant to be there is there; a small central block alone is no pattern."""
    low_resolution = reach.size < 0.4 * cube.shape[1]
    effective = _effective(cube)
    return Sampling(
        pattern="unknown" if low_resolution else "full",
        acceleration=effective if low_resolution else 1.0,
        effective_acceleration=effective,
        acs=run[1] - run[0],
        acs_ky=run,
        partial_fourier=reach.partial_fourier,
        per_phase=(1.0,) * len(cube),
    )


def _calibration_run(lines: NDArray[np.bool_], run: tuple[int, int]) -> tuple[int, int]:
    """The run without lines of the pattern that adjoin it; empty when it is no more than those."""
    size = lines.shape[1]
    run = run if _distinct(lines, run) else symmetric(run, size)
    return run if run[1] - run[0] >= FEWEST_ACS else (size // 2, size // 2)


def _common_spacing(lines: NDArray[np.bool_], run: tuple[int, int]) -> float | None:
    """Regular spacing that nearly every phase has (their offsets may differ)."""
    fitting = [regular_spacings(phase, run) for phase in lines]
    whole = Counter(value for found in fitting for value in found if value.is_integer())
    order = dict.fromkeys(value for found in fitting for value in found)
    if whole:
        best = max(order, key=lambda value: whole[value])
        return best if whole[best] >= 0.9 * len(fitting) else None
    rounded = [found[0] for found in fitting if found]
    if len(rounded) < 0.9 * len(fitting):
        return None
    spacing = float(np.median(rounded))
    return spacing if np.mean(np.abs(np.array(rounded) - spacing) < 0.25) >= 0.9 else None


def _mean_gap(union: NDArray[np.bool_], run: tuple[int, int]) -> float:
    """Mean distance of lines outside the run; 1 where there are none, so that the run is all there is."""
    sampled = int(union.sum()) - (run[1] - run[0])
    return (len(union) - (run[1] - run[0])) / sampled if sampled else 1.0


def _distinct(lines: NDArray[np.bool_], run: tuple[int, int]) -> bool:
    """Whether so many phases draw other lines that none outside the block is common to all by chance."""
    outside = np.ones(lines.shape[1], dtype=bool)
    outside[run[0] : run[1]] = False
    density = float(lines[:, outside].mean())
    different = len(np.unique(lines, axis=0))
    return density**different < 0.005


def _nothing_outside(union: NDArray[np.bool_], run: tuple[int, int]) -> bool:
    return bool(union.sum() == union[run[0] : run[1]].sum())


def _line_acceleration(
    lines: NDArray[np.bool_], run: tuple[int, int], reach: Extent, spacing: float | None
) -> float:
    if spacing is not None:
        return spacing
    outside = np.zeros(len(lines), dtype=bool)
    outside[reach.first : reach.stop] = True
    outside[run[0] : run[1]] = False
    return float(outside.sum() / max(1, (lines & outside).sum()))


def _banded_sampling(cube: NDArray[np.bool_], found: Bands) -> Sampling:
    """Pattern of a mask `(phase, ky, kx)` whose columns fall into a few kinds, each with lines of its own."""
    parts = distinct(
        (part.pattern, part.acceleration)
        for columns, lines in zip(found.columns, found.lines, strict=True)
        if (part := _band(columns, lines)) is not None
    )
    if not parts:
        return _point_sampling(cube)
    ky, kx = _common_block(cube)
    per_phase = tuple(_outside_block(phase, ky, kx) for phase in cube)
    rate = _harmonic_mean(per_phase)
    one_grid = len(parts) == 1 and parts[0][0] == "uniform" and rate > NEARLY_THE_GRID * parts[0][1]
    return Sampling(
        pattern=name_of(parts),
        acceleration=parts[0][1] if one_grid else rate,
        effective_acceleration=_effective(cube),
        acs=ky[1] - ky[0],
        acs_ky=ky,
        acs_kx=kx,
        per_phase=(parts[0][1],) * len(cube) if one_grid else per_phase,
        parts=parts if len(parts) > 1 else (),
    )


def _band(columns: NDArray[np.bool_], lines: NDArray[np.bool_]) -> Sampling | None:
    """What a kind of columns `(kx,)` with its lines `(phase, ky)` is; None of a calibration block.

    Columns that are sampled all along are lines of the other direction.
    """
    part = _line_sampling(lines[:, :, None], lines)
    if part.pattern == "full":
        part = _line_sampling(columns[None, :, None], columns[None])
    return None if part.pattern in ("unknown", "full") else part


def _common_block(cube: NDArray[np.bool_]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of the calibration block that all phases have: whole lines, or a square."""
    occupied = np.flatnonzero(np.any(cube, axis=(0, 1)))
    reach = (int(occupied[0]), int(occupied[-1]) + 1)
    common = np.all(cube[:, :, slice(*reach)], axis=(0, 2))
    run = _calibration_run(common[None], central_run(common))
    if run[1] > run[0]:
        return run, reach
    side = central_square(np.all(cube, axis=0))
    return _around_centre(cube.shape[1], side), _around_centre(cube.shape[2], side)


def _outside_block(mask: NDArray[np.bool_], ky: tuple[int, int], kx: tuple[int, int]) -> float:
    """All points of a phase `(ky, kx)` outside the block over those sampled there."""
    inside = mask[slice(*ky), slice(*kx)]
    sampled = int(np.count_nonzero(mask)) - int(np.count_nonzero(inside))
    return float(mask.size - inside.size) / float(sampled or 1)


def _point_sampling(cube: NDArray[np.bool_]) -> Sampling:
    """Pattern of points `(phase, ky, kx)`: spokes, or scattered; lines may lie among them."""
    found = _points_alone(cube)
    square = found.acs
    beside = [_lines_among(phase, square) for phase in cube]
    if sum(lines is not None for lines in beside) <= len(cube) / 2:
        return found
    several = [lines for lines in beside if lines is not None]
    rest = _points_alone(cube, [np.ones(cube.shape[1], np.bool_) if b is None else b[1] for b in beside])
    lines = np.stack([one[0] for one in several])
    part = _line_sampling(lines[:, :, None], lines)
    parts = distinct(
        (p.pattern, p.acceleration) for p in (rest, part) if p.pattern not in ("unknown", "full")
    )
    ky, kx = _common_block(cube)
    per_phase = tuple(_outside_block(phase, ky, kx) for phase in cube)
    return dataclasses.replace(
        found,
        pattern=name_of(parts),
        acceleration=_harmonic_mean(per_phase),
        acs=ky[1] - ky[0],
        acs_ky=ky,
        acs_kx=kx,
        per_phase=per_phase,
        parts=parts if len(parts) > 1 else (),
    )


def _lines_among(phase: NDArray[np.bool_], square: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Lines `(ky,)` that shape a phase of points, and those on which its other pattern is to be seen."""
    whole, some = whole_lines(phase, square), lines_left_out(phase)
    if whole is not None:
        return whole, phase.any(axis=1) & ~whole
    return None if some is None else (some, some)


def _points_alone(cube: NDArray[np.bool_], rows: list[NDArray[np.bool_]] | None = None) -> Sampling:
    """Pattern of points `(phase, ky, kx)`, as far as they lie on certain rows `(ky,)` of each phase."""
    side = central_square(np.all(cube, axis=0))
    ky, kx = (_around_centre(size, side) for size in cube.shape[1:])
    if rows is not None:
        cube = cube & np.stack(rows)[:, :, None]
    discounted = min(side, RADIAL_ACS)
    shown = [None] * len(cube) if rows is None else rows
    spokes = [spoke_count(phase, side, rows=seen) for phase, seen in zip(cube, shown, strict=True)]
    per_phase = tuple(
        max(1.0, SPOKES_AT_ONE / count) if count else _point_acceleration(phase, discounted)
        for phase, count in zip(cube, spokes, strict=True)
    )
    votes = [bool(n) or looks_radial(phase, side) for n, phase in zip(spokes, cube, strict=True)]
    return Sampling(
        pattern="radial" if np.mean(votes) > 0.5 else "random",
        acceleration=_harmonic_mean(per_phase),
        effective_acceleration=_effective(cube),
        acs=side,
        acs_ky=ky,
        acs_kx=kx,
        per_phase=per_phase,
    )


def _around_centre(size: int, side: int) -> tuple[int, int]:
    return size // 2 - side // 2, size // 2 + side // 2


def _point_acceleration(mask: NDArray[np.bool_], side: int) -> float:
    (y0, y1), (x0, x1) = (_around_centre(size, side) for size in mask.shape)
    outside = int(np.count_nonzero(mask)) - int(np.count_nonzero(mask[y0:y1, x0:x1]))
    return float(mask.size - side * side) / float(outside or 1)


def _effective(mask: NDArray[np.bool_]) -> float:
    return mask.size / max(1, int(np.count_nonzero(mask)))


def _harmonic_mean(values: tuple[float, ...]) -> float:
    """Mean acceleration of phases of one size: all points over all sampled ones."""
    return len(values) / math.fsum(1.0 / value for value in values)

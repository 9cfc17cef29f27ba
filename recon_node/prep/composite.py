"""Masks of more than one scheme: bands of columns with lines of their own, lines beside spokes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import Pattern

Part = tuple[Pattern, float]
"""A scheme and its acceleration."""
MOST_BANDS = 4
"""More kinds of columns than these are points, not lines."""
FEWEST_LINES = 4
"""Fewer whole lines than these, beside a pattern of points, are part of it."""
_WIDE = 8
"""Mean columns a kind, at least: on a few columns everything looks like lines."""
_ALIKE, _ALIKE_BY_CHANCE = 1.1, 1.35
"""Ratio of accelerations of one scheme in two bands that counts as the same; of random lines."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bands:
    """Columns that sample the same lines, for every kind of column."""

    columns: tuple[NDArray[np.bool_], ...]
    """`(kx,)` each, the widest kind first."""
    lines: tuple[NDArray[np.bool_], ...]
    """`(phase, ky)` each."""


def bands(cube: NDArray[np.bool_]) -> Bands | None:
    """The kinds of columns of a mask `(phase, ky, kx)`, where they are few; None where it is of points.

    Columns without any sample are no kind.
    """
    flat = cube.reshape(-1, cube.shape[2]).T
    occupied = flat.any(axis=1)
    kinds, owner, counts = np.unique(flat[occupied], axis=0, return_inverse=True, return_counts=True)
    if not 1 < len(kinds) <= MOST_BANDS or occupied.sum() < _WIDE * len(kinds):
        return None
    order = np.argsort(-counts, kind="stable")
    where = []
    for kind in order:
        columns = np.zeros(cube.shape[2], np.bool_)
        columns[np.flatnonzero(occupied)[owner.ravel() == kind]] = True
        where.append(columns)
    lines = tuple(kinds[kind].reshape(cube.shape[:2]) for kind in order)
    return Bands(columns=tuple(where), lines=lines)


def whole_lines(frame: NDArray[np.bool_], square: int) -> NDArray[np.bool_] | None:
    """Lines `(ky,)` that a frame `(ky, kx)` has whole beside other points; None where they are too few.

    Rows of the calibration square, of side `square`, count one by one only if they are whole.
    """
    whole: NDArray[np.bool_] = np.all(frame[:, np.any(frame, axis=0)], axis=1)
    return whole if whole.sum() >= max(FEWEST_LINES, square // 2) and frame[~whole].any() else None


def lines_left_out(frame: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Lines `(ky,)` of a frame `(ky, kx)` that have samples, where half of all lines or more have none."""
    some: NDArray[np.bool_] = np.any(frame, axis=1)
    return some if 2 * some.sum() <= len(some) else None


def distinct(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The parts without those that repeat another's scheme at about its acceleration."""
    kept: list[Part] = []
    for pattern, rate in parts:
        most = _ALIKE_BY_CHANCE if pattern == "random" else _ALIKE
        if not any(p == pattern and max(r / rate, rate / r) <= most for p, r in kept):
            kept.append((pattern, rate))
    return tuple(kept)


def name_of(parts: tuple[Part, ...]) -> Pattern:
    """The pattern that all parts share, or ``mixed``."""
    names = {pattern for pattern, _ in parts}
    return parts[0][0] if len(names) == 1 else "mixed"

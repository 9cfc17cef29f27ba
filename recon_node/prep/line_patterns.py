"""Which regularity a set of phase encoding lines has: spacing, calibration block, missing side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

USUAL_SPACING = 24
"""Widest spacing that CardioMM was trained with; where several fit, one up to here is meant."""
MAX_SPACING = 32
"""Widest spacing taken for a regular one; beyond it a few random lines could look regular."""


def central_run(lines: NDArray[np.bool_]) -> tuple[int, int]:
    """Half-open range of the sampled lines `(ky,)` around index ``ky // 2``; empty if that one is missing."""
    centre = len(lines) // 2
    if not lines[centre]:
        return centre, centre
    missing = np.flatnonzero(~lines)
    below, above = missing[missing < centre], missing[missing > centre]
    return (int(below[-1]) + 1 if len(below) else 0), (int(above[0]) if len(above) else len(lines))


def symmetric(run: tuple[int, int], size: int) -> tuple[int, int]:
    """The even part of a run that lies symmetrically around ``size // 2``.

    Lines of the pattern that happen to adjoin a calibration block lengthen its run on one side; the
    block itself is centred.
    """
    centre = size // 2
    half = min(centre - run[0], run[1] - centre)
    return (centre - half, centre + half) if half > 0 else run


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Half-open range of ky that the pattern covers at all, and which fraction of k-space that is."""

    first: int
    stop: int
    partial_fourier: float

    @property
    def size(self) -> int:
        """Number of lines."""
        return self.stop - self.first


def extent(union: NDArray[np.bool_], *, regular: bool, spacing: float, whole: bool = False) -> Extent:
    """What range of lines `(ky,)` the acquisition meant to cover.

    An unsampled margin is chance, or an offset, while it is comparable with the spacing; a margin far
    beyond it was left out on purpose (partial Fourier, or zero padding on both sides), and so was any beside
    lines without a gap.

    Parameters
    ----------
    union : ndarray
        Lines sampled in any phase.
    regular : bool
        Whether the spacing is regular, so that no margin reaches twice of it by chance.
    spacing : float
        Mean distance of neighbouring lines outside the calibration block.
    whole : bool
        Whether every phase has all of these lines and they have no gap.
    """
    size = len(union)
    sampled = np.flatnonzero(union)
    first, stop = int(sampled[0]), int(sampled[-1]) + 1
    if whole:
        return _covered(first, stop, size)
    enough = max(0.04 * size, (1.0 if regular else 8.0) * spacing, 2.0)
    low, high = first, size - stop
    cut_low, cut_high = low > enough, high > enough
    first = first if cut_low else 0
    stop = stop if cut_high else size
    if cut_low == cut_high:
        return Extent(first=first, stop=stop, partial_fourier=1.0)
    return _covered(first, stop, size)


def _covered(first: int, stop: int, size: int) -> Extent:
    whole = 2 * max(size // 2 - first, stop - size // 2)
    return Extent(first=first, stop=stop, partial_fourier=min(1.0, (stop - first) / whole))


def regular_spacings(lines: NDArray[np.bool_], run: tuple[int, int]) -> tuple[float, ...]:
    """Spacings of lines `(ky,)` that lie on a regular grid outside `run`, the likeliest first.

    A whole-number grid must be complete between its ends and continue across the calibration block; few
    lines can fit several. A fractional spacing (rounded positions) needs at least six lines on it.
    """
    outside = np.flatnonzero(lines)
    outside = outside[(outside < run[0]) | (outside >= run[1])]
    if len(outside) < 2:
        return ()
    common = int(np.gcd.reduce(np.diff(outside)))
    fitting = [
        spacing
        for spacing in range(min(common, MAX_SPACING), 1, -1)
        if common % spacing == 0 and _complete_grid(lines, outside, spacing)
    ]
    if fitting:
        return tuple(map(float, sorted(fitting, key=lambda n: (n > USUAL_SPACING, -n))))
    fractional = _fractional_spacing(outside, run)
    return () if fractional is None else (fractional,)


def _complete_grid(lines: NDArray[np.bool_], outside: NDArray[np.intp], spacing: int) -> bool:
    """Whether no line of the grid is missing; few lines must also reach both ends of k-space."""
    first, last = int(outside[0]), int(outside[-1])
    if not lines[first : last + 1 : spacing].all():
        return False
    return len(outside) > 4 or (first < spacing and last + spacing >= len(lines))


def _fractional_spacing(outside: NDArray[np.intp], run: tuple[int, int]) -> float | None:
    """Spacing R for which the positions of each side are ``floor(offset + i R)``; None if there is none."""
    low, high = 1.0, float(MAX_SPACING)
    steps = 0
    for side in (outside[outside < run[0]], outside[outside >= run[1]]):
        if len(side) < 2:
            continue
        order = np.arange(len(side))
        i, j = np.triu_indices(len(side), 1)
        distance, count = side[j] - side[i], order[j] - order[i]
        low = max(low, float(np.max((distance - 1) / count)))
        high = min(high, float(np.min((distance + 1) / count)))
        steps += len(side) - 1
    if steps < 5 or low >= high or high <= 1.0 + 1.0 / steps:
        return None
    return (low + high) / 2

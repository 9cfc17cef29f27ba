"""Undersampling masks as CardioMM was trained with: uniform, random and pseudo-radial.

Rules: ``Undersampling`` in the public description of CardioMM (arXiv 2512.21652) and the CMRxRecon
challenge masks it used. Line patterns carry a fixed central block of ACS lines, the pseudo-radial one
a fixed central ACS square; the nominal acceleration does not count the ACS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError
from recon_node.core.grid import central

MaskPattern = Literal["full", "uniform", "random", "radial"]
Mask = NDArray[np.bool_]

PATTERNS: tuple[MaskPattern, ...] = ("uniform", "random", "radial")
"""What training draws from."""
ACCELERATIONS: tuple[int, ...] = (4, 8, 12, 16, 20, 24)
"""What training draws from."""

SPOKE_SHIFT_DEG = 137.5
"""Rotation of the pseudo-radial spokes from one frame to the next."""


def draw_mask(
    pattern: str,
    acceleration: float,
    *,
    shape: tuple[int, int, int],
    acs: int = 20,
    rng: np.random.Generator,
    interleave: bool = False,
) -> Mask:
    """Draw a sampling mask.

    Parameters
    ----------
    pattern : {"full", "uniform", "random", "radial"}
        ``uniform``: every R-th line, from line 0. ``random``: each line with probability 1/R,
        drawn anew in every phase. ``radial``: `spoke_count` centre lines on the grid, evenly spaced in
        angle, turned by 137.5 degrees from phase to phase.
    acceleration : float
        Nominal acceleration R >= 1, the ACS not counted; integer for ``uniform``. 1 samples everything.
    shape : tuple of int
        (phase, ky, kx).
    acs : int
        Central lines (radial: side of the central square) that every phase samples; 0 for none.
    rng : numpy.random.Generator
        The only source of chance.
    interleave : bool
        ``uniform`` only: move the offset by one line from phase to phase (k-t interleaving).

    Returns
    -------
    numpy.ndarray
        `(phase, ky, kx)` bool, True where sampled.

    Raises
    ------
    ConfigError
        For an unknown pattern, an acceleration below 1 (or broken, for ``uniform``), an empty shape,
        or more ACS lines than there are.
    """
    if pattern not in _DRAW:
        raise ConfigError(f"sampling pattern is {pattern!r}, expected one of {', '.join(_DRAW)}")
    if not (math.isfinite(acceleration) and acceleration >= 1):
        raise ConfigError(f"acceleration is {acceleration}, expected a number of at least 1")
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"mask shape is {shape}, expected three positive sizes (phase, ky, kx)")
    if not 0 <= acs <= shape[1]:
        raise ConfigError(f"{acs} ACS lines were asked for, expected 0 to {shape[1]} (the lines there are)")
    if acceleration == 1:
        return np.ones(shape, bool)
    return _DRAW[pattern](acceleration, shape, acs, rng, interleave)


def spoke_count(acceleration: float) -> int:
    """Spokes of a pseudo-radial frame: ``180 / (0.6 R)``, rounded, at least one."""
    return max(1, round(180 / (0.6 * acceleration)))


def acs_range(size: int, acs: int) -> slice:
    """The `acs` central indices of an axis of `size`; index ``size // 2`` is the k-space centre."""
    return central(size, min(acs, size))


def _full(_r: float, shape: tuple[int, int, int], _acs: int, _rng: np.random.Generator, _il: bool) -> Mask:
    return np.ones(shape, bool)


def _lines(lines: Mask, shape: tuple[int, int, int], acs: int) -> Mask:
    lines[:, acs_range(shape[1], acs)] = True
    return np.repeat(lines[:, :, None], shape[2], axis=2)


def _uniform(r: float, shape: tuple[int, int, int], acs: int, _rng: np.random.Generator, il: bool) -> Mask:
    step = round(r)
    if step != r:
        raise ConfigError(
            f"uniform sampling needs an integer acceleration, found {r}; use 'random' for others"
        )
    shifts = np.arange(shape[0]) if il else np.zeros(shape[0], int)
    return _lines((np.arange(shape[1])[None] - shifts[:, None]) % step == 0, shape, acs)


def _random(r: float, shape: tuple[int, int, int], acs: int, rng: np.random.Generator, _il: bool) -> Mask:
    return _lines(rng.random(shape[:2]) < 1 / r, shape, acs)


def _radial(r: float, shape: tuple[int, int, int], acs: int, rng: np.random.Generator, _il: bool) -> Mask:
    phases, ny, nx = shape
    spokes = spoke_count(r)
    turn = rng.uniform(0, 180) + SPOKE_SHIFT_DEG * np.arange(phases)
    angles = np.deg2rad(turn[:, None] + 180 / spokes * np.arange(spokes))[..., None]
    # Half-sample steps in units of the half widths: every spoke reaches the edge of the grid.
    reach = 0.5 / np.maximum(np.abs(np.cos(angles)), np.abs(np.sin(angles)))
    along = np.linspace(-1, 1, 4 * max(ny, nx) + 1) * reach
    ix = np.rint(along * np.cos(angles) * nx).astype(int) + nx // 2
    iy = np.rint(along * np.sin(angles) * ny).astype(int) + ny // 2
    inside = (ix >= 0) & (ix < nx) & (iy >= 0) & (iy < ny)
    mask = np.zeros(shape, bool)
    frame = np.broadcast_to(np.arange(phases)[:, None, None], ix.shape)
    mask[frame[inside], iy[inside], ix[inside]] = True
    mask[:, acs_range(ny, acs), acs_range(nx, acs)] = True
    return mask


_DRAW: dict[str, Callable[[float, tuple[int, int, int], int, np.random.Generator, bool], Mask]] = {
    "full": _full,
    "uniform": _uniform,
    "random": _random,
    "radial": _radial,
}

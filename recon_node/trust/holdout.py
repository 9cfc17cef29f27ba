"""Holding back measured samples, to see whether an image made without them predicts them.

What is held back has to be as hard to come by as what was never measured. Where every phase samples the same
lines, a missing line is missing in all of them; so held-out lines are, too, or neighbouring phases would give
away what no phase knows of the others. Where single points are sampled, what is missing lies in gaps; so
held-out points come in patches as wide as the gaps, or their neighbours would give them away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import KSpace
from recon_node.trust.decimation import folded, whole_lines
from recon_node.trust.phases import is_still, middle_phases

STILL_FRAMES = 3
"""Phases that say as much as more do, where all of a scan sample the same: they miss the same lines."""
STILL, CHANGING = 0.1, 0.2
"""Share of the lines or patches held out where all phases sample the same, and where they do not: there a
line that is missing in one phase is found in its neighbours, and more of them tell more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """A few phases of a slice without some of their samples."""

    kspace: KSpace
    """The phases with the samples held out set to zero, also in the mask."""
    measured: NDArray[np.complex64]
    """`(phase, coil, ky, kx)` complex64 of the same phases, nothing held out."""
    lines: NDArray[np.bool_]
    """`(phase, ky, kx)` bool, where samples were held out."""


def hold_out(
    kspace: KSpace, *, frames: int = 5, fraction: float | None = None, seed: int = 0, step: int = 1
) -> HeldOut | None:
    """Hold out samples outside the ACS in a run of neighbouring phases.

    Parameters
    ----------
    kspace : KSpace
        One slice. Where all its phases sample the same, they lose the same samples.
    frames : int
        Most phases to take, from the middle of the series; where all sample the same, `STILL_FRAMES` are
        enough.
    fraction : float, optional
        Share held out: of the ky lines of each phase where whole lines were sampled, else of the patches
        with samples; at least one. `STILL` or `CHANGING` if None.
    seed : int
        Of the choice.
    step : int
        Of the image's columns one in so many is kept (`recon_node.trust.decimation`); the same lines are
        held out whatever it is.

    Returns
    -------
    HeldOut or None
        None where no phase has a sample outside the ACS to spare.
    """
    still = is_still(kspace)
    part = middle_phases(kspace, min(frames, STILL_FRAMES) if still else frames)
    mask = part.mask
    spare = mask & ~_acs(kspace)
    rng = np.random.default_rng(seed)
    rate = kspace.sampling.effective_acceleration
    units = _lines(mask.shape) if whole_lines(mask) else _patches(mask.shape, rate)
    share = fraction if fraction is not None else STILL if still else CHANGING
    chosen = [_choose(frame, units, share, rng) for frame in (spare[:1] if still else spare)]
    lines = np.array(np.broadcast_to(np.stack(chosen), spare.shape))
    if not lines.any():
        return None
    width = mask.shape[2] // step
    mask, lines = mask[..., :width], lines[..., :width]
    measured = _measured(part.data, mask, step)
    data = measured.copy()
    for frame, out in zip(data, lines, strict=True):
        rows = np.flatnonzero(out.any(axis=1))
        frame[:, rows] *= ~out[rows]
    return HeldOut(kspace=replace(part, data=data, mask=mask & ~lines), measured=measured, lines=lines)


def _measured(data: NDArray[np.complex64], mask: NDArray[np.bool_], step: int) -> NDArray[np.complex64]:
    if step == 1:
        return data
    out = np.zeros((*data.shape[:3], mask.shape[2]), np.complex64)
    for frame, sampled, made in zip(data, mask, out, strict=True):
        rows = np.flatnonzero(sampled[:, 0])
        made[:, rows] = folded(frame[:, rows], step)
    return out


def _acs(kspace: KSpace) -> NDArray[np.bool_]:
    """`(ky, kx)` bool, true in the block that every phase has; one line where none is declared."""
    ky, kx = kspace.mask.shape[1:]
    inside = np.zeros((ky, kx), np.bool_)
    sampling = kspace.sampling
    columns = slice(*sampling.acs_kx) if sampling.acs_kx[1] > sampling.acs_kx[0] else slice(None)
    if sampling.acs_ky[1] > sampling.acs_ky[0]:
        inside[slice(*sampling.acs_ky), columns] = True
    else:
        half = sampling.acs // 2
        inside[ky // 2 - half : ky // 2 - half + max(1, sampling.acs), columns] = True
    return inside


def _lines(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """`(ky, kx)`: the number of the line each sample belongs to."""
    return np.broadcast_to(np.arange(shape[1])[:, None], shape[1:])


def _patches(shape: tuple[int, ...], acceleration: float) -> NDArray[np.intp]:
    """`(ky, kx)`: the number of the square patch each sample belongs to, about as wide as two gaps."""
    side = max(2, round(2 * float(np.sqrt(acceleration))))
    rows, columns = (np.arange(size) // side for size in shape[1:])
    return rows[:, None] * (int(columns[-1]) + 1) + columns


def _choose(
    spare: NDArray[np.bool_], units: NDArray[np.intp], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Samples of one phase `(ky, kx)` to hold out of those to spare: some units, whole, never all."""
    able = np.unique(units[spare])
    if able.size < 2:
        return np.zeros_like(spare)
    some = rng.choice(able, max(1, round(fraction * able.size)), replace=False)
    return spare & np.isin(units, some)

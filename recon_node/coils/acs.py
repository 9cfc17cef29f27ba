"""Calibration data out of undersampled k-space: the fully sampled centre, averaged over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import CalibrationError
from recon_node.core.grid import central


def calibration_region(
    kspace: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    *,
    size: tuple[int, int] = (24, 24),
    smallest: int = 6,
) -> NDArray[np.complex64]:
    """The largest fully sampled central block, averaged over the phases that sample each point.

    A point counts as sampled if any phase has it, so that interleaved phases calibrate together.

    Parameters
    ----------
    kspace : ndarray
        `(phase, coil, ky, kx)` complex64, zero where not sampled.
    mask : ndarray
        `(phase, ky, kx)` bool.
    size : tuple of int
        Largest extent `(ay, ax)` wanted.
    smallest : int
        Smallest extent accepted along either axis, at least the ESPIRiT kernel.

    Returns
    -------
    ndarray
        `(coil, ay, ax)` complex64, zero frequency at ``n // 2``.

    Raises
    ------
    CalibrationError
        If k-space and mask disagree in shape, or the fully sampled centre is smaller than `smallest`.
    """
    if kspace.ndim != 4 or mask.shape != (kspace.shape[0], *kspace.shape[2:]):
        raise CalibrationError(f"k-space of shape {kspace.shape} does not fit a mask of shape {mask.shape}")
    counts = np.sum(mask, axis=0)
    ay, ax = _extent(counts > 0, size)
    if min(ay, ax) < smallest:
        raise CalibrationError(
            f"the fully sampled centre of k-space is {ay} x {ax}, expected at least {smallest} x {smallest}:"
            " acquire central lines or give a separate calibration scan"
        )
    rows, columns = central(kspace.shape[2], ay), central(kspace.shape[3], ax)
    block = kspace[:, :, rows, columns].sum(axis=0, dtype=np.complex128)
    mean: NDArray[np.complex64] = (block / counts[rows, columns]).astype(np.complex64)
    return mean


def _extent(sampled: NDArray[np.bool_], size: tuple[int, int]) -> tuple[int, int]:
    """Largest fully sampled central rectangle within `size`; rows give way first, as lines are scarce."""
    best = (0, 0)
    limit = min(size[1], sampled.shape[1])
    for ay in range(min(size[0], sampled.shape[0]), 0, -1):
        full: NDArray[np.bool_] = np.all(sampled[central(sampled.shape[0], ay)], axis=0)
        ax = limit
        while ax > 0 and not full[central(sampled.shape[1], ax)].all():
            ax -= 1
        if min(ay, ax) > min(best) or (min(ay, ax) == min(best) and ay * ax > best[0] * best[1]):
            best = (ay, ax)
    return best

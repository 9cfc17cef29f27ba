"""Calibration lines that the reconstruction never saw, as a test of its image.

Lines of one uniform grid cannot tell an image from its alias: both predict every other line of that grid.
Calibration lines beside the grid can. They are at hand where a scan sends them apart from its imaging lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import central_waves
from recon_node.core.grid import central
from recon_node.core.types import CoilMaps, KSpace

LEAST_SHARE = 0.02
"""Error below which no image is doubted: what averaging over phases and another contrast may leave."""


def place_of_block(kspace: KSpace, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Where a calibration block `(coil, ay, ax)` lies in k-space; None where it does not fit."""
    found = []
    for size, full in zip(shape[1:], kspace.data.shape[2:], strict=True):
        if size > full:
            return None
        found.append(central(full, size))
    return found[0], found[1]


def predicted_block(
    image: NDArray[np.complex64], maps: CoilMaps, block: tuple[slice, slice]
) -> NDArray[np.complex64]:
    """Calibration samples `(coil, ay, ax)` at `block` that an image `(phase, map, y, x)` gives.

    Of its mean over phases, as calibration taken from a scan's own lines is.
    """
    mean = image.mean(axis=0, dtype=np.complex64)
    seen = maps.data[0] * mean[0]
    for sensitivities, one in zip(maps.data[1:], mean[1:], strict=False):
        seen += sensitivities * one
    down, across = (
        central_waves(full, part.stop - part.start) for full, part in zip(seen.shape[1:], block, strict=True)
    )
    return np.asarray(down @ (seen.reshape(-1, seen.shape[2]) @ across.T).reshape(*seen.shape[:2], -1))


def calibration_error(image: NDArray[np.complex64], kspace: KSpace, maps: CoilMaps) -> float | None:
    """How badly an image predicts the calibration samples that are not among its own data.

    Parameters
    ----------
    image : ndarray
        `(phase, map, y, x)` complex64.
    kspace, maps
        Of the same slice.

    Returns
    -------
    float or None
        Norm of the error over that of the samples, for the best common factor (a separate calibration scan
        has its own brightness); at least `LEAST_SHARE`. None where every calibration sample was an imaging
        sample, too.
    """
    calibration = kspace.calibration
    block = None if calibration is None else place_of_block(kspace, calibration.shape)
    if calibration is None or block is None:
        return None
    unseen = np.asarray(~np.any(kspace.mask, axis=0))[block]
    measured = calibration[:, unseen]
    total = float(np.linalg.norm(measured))
    if not unseen.any() or total == 0:
        return None
    predicted = predicted_block(image, maps, block)[:, unseen]
    power = float(np.vdot(predicted, predicted).real)
    factor = np.vdot(predicted, measured) / power if power > 0 else 0.0
    return max(LEAST_SHARE, float(np.linalg.norm(measured - factor * predicted)) / total)

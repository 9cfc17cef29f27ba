"""Sampling that varies along the readout: calibration square, spokes through the centre."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ANGLES = 4096
_MOST_SPOKES = 200
_EVEN = 0.2
"""Least strength of the angular period of evenly spaced spokes; scattered points stay below 0.1."""


def central_square(mask: NDArray[np.bool_]) -> int:
    """Side of the largest even square `(ky, kx)` around the centre that is fully sampled; 0 if none."""
    cy, cx = mask.shape[0] // 2, mask.shape[1] // 2
    largest = min(cy, cx, mask.shape[0] - cy, mask.shape[1] - cx)
    half = 0
    while half < largest and mask[cy - half - 1 : cy + half + 1, cx - half - 1 : cx + half + 1].all():
        half += 1
    return 2 * half


def spoke_count(mask: NDArray[np.bool_], square: int, *, rows: NDArray[np.bool_] | None = None) -> int | None:
    """Number of evenly spaced spokes through the centre that make up a mask; None if it has none such.

    The angular density of the sampled points outside the calibration square is periodic with the
    spokes' angle; its spectrum over half a turn has its first strong line at their number, also where
    rounded spokes touch. Angles count on the grid or relative to its size (both are in use).

    Parameters
    ----------
    mask : ndarray
        `(ky, kx)` bool, centre at ``n // 2``.
    square : int
        Side of the calibration square.
    rows : ndarray, optional
        `(ky,)` bool, rows that are looked at; all by default.
    """
    ny, nx = mask.shape
    y, x = np.meshgrid(np.arange(ny) - ny // 2, np.arange(nx) - nx // 2, indexing="ij")
    ellipse = np.hypot(y / (ny / 2), x / (nx / 2)) <= 1
    ring = ellipse & (np.hypot(y, x) > max(0.75 * square + 2, 0.3 * min(ny, nx)))
    if rows is not None:
        ring &= rows[:, None]
    sampled = mask[ring].astype(float)
    if sampled.sum() < 16:
        return None
    spectra = [
        _angular_spectrum(np.arctan2(y[ring] * scale_y, x[ring] * scale_x), sampled)
        for scale_y, scale_x in ((1.0, 1.0), (nx / ny, 1.0))
    ]
    strongest = max(spectra, key=lambda spectrum: float(spectrum.max()))
    if strongest.max() < _EVEN:
        return None
    first = int(np.argmax(strongest >= 0.6 * strongest.max()))
    while first + 1 < len(strongest) and strongest[first + 1] > strongest[first]:
        first += 1
    return first


def _angular_spectrum(angle: NDArray[np.float64], sampled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strength of each period per half turn, relative to all sampled points; periods below 2 are 0."""
    bins = np.floor((angle % np.pi) * (_ANGLES / np.pi)).astype(int) % _ANGLES
    surplus = np.bincount(bins, weights=sampled - sampled.mean(), minlength=_ANGLES)
    spectrum = np.abs(np.fft.rfft(surplus))[:_MOST_SPOKES] / sampled.sum()
    spectrum[:2] = 0
    return np.asarray(spectrum)


def looks_radial(mask: NDArray[np.bool_], square: int) -> bool:
    """Whether the points `(ky, kx)` outside the calibration square lie on spokes through the centre.

    A spoke has its inner neighbours along the line to the centre sampled, whatever the angle; random
    points have them at the rate of their density.
    """
    cy, cx = mask.shape[0] // 2, mask.shape[1] // 2
    y, x = np.nonzero(mask)
    dy, dx = (y - cy).astype(float), (x - cx).astype(float)
    radius = np.hypot(dy, dx)
    far = radius > 0.75 * square + 6
    if far.sum() < 16:
        return False
    dy, dx, radius = dy[far], dx[far], radius[far]
    expected = float(_sampled_at(mask, dy, dx, radius, -1.5).mean())
    outside = np.hypot(*np.ogrid[-cy : mask.shape[0] - cy, -cx : mask.shape[1] - cx]) > 0.75 * square + 6
    by_chance = 1.0 - (1.0 - float(mask[outside].mean())) ** 2
    inner = np.mean([_sampled_at(mask, dy, dx, radius, -step).mean() for step in (2.5, 4.0, 5.5)])
    return (min(expected, float(inner)) - by_chance) / (1.0 - by_chance + 1e-9) > 0.4


def _sampled_at(
    mask: NDArray[np.bool_],
    dy: NDArray[np.float64],
    dx: NDArray[np.float64],
    radius: NDArray[np.float64],
    step: float,
) -> NDArray[np.bool_]:
    """Whether a point `step` further along its spoke is sampled, rounded either way across it."""
    scale = (radius + step) / radius
    cy, cx = mask.shape[0] // 2, mask.shape[1] // 2
    steep = np.abs(dy) > np.abs(dx)
    hit = np.zeros(len(dy), dtype=bool)
    for shift in (-0.25, 0.25):
        y = np.rint(dy * scale + np.where(steep, 0.0, shift)).astype(int) + cy
        x = np.rint(dx * scale + np.where(steep, shift, 0.0)).astype(int) + cx
        inside = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
        hit[inside] |= mask[y[inside], x[inside]]
    return hit

"""Sampling that varies along the readout: calibration square and spokes through the centre."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def central_square(mask: NDArray[np.bool_]) -> int:
    """Side of the largest even square `(ky, kx)` around the centre that is fully sampled; 0 if none."""
    cy, cx = mask.shape[0] // 2, mask.shape[1] // 2
    largest = min(cy, cx, mask.shape[0] - cy, mask.shape[1] - cx)
    half = 0
    while half < largest and mask[cy - half - 1 : cy + half + 1, cx - half - 1 : cx + half + 1].all():
        half += 1
    return 2 * half


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

r"""The Tikhonov weight of SENSE, from the signal that there is and the noise in it.

Were pixels independent, their best weight would be noise variance over signal power. Neighbouring pixels
are alike, so that what is badly determined, fine detail, holds less power than the average: the best
weight :math:`\lambda` is larger. `c` and `o` are fitted to cines of hearts from three scanners (4x to
16x, all patterns, 8 to 32 coils, SNR 15 to 100):

.. math:: \lambda = c \sigma^2 / (p + o \sigma^2)

with the mean power `p` of the image where coils see anything, `c` and `o` below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

LINES = (5.5, 36.0)
"""`c` and `o` where whole lines are sampled."""
POINTS = (10.0, 59.0)
"""`c` and `o` where the sampling varies along the readout."""
_NEAR = 3.0
"""Standard deviation, samples, of the average that fills in what was not sampled."""
_BOUNDS = (1e-4, 0.5)


def tikhonov_weight(
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    maps: NDArray[np.complex64],
    *,
    unit: float = 1.0,
) -> float:
    """Weight of ``||x||^2`` beside ``||A x - y||^2``, for coil maps of unit root sum of squares.

    Parameters
    ----------
    data : ndarray
        `(phase, coil, ky, kx)` complex64.
    mask : ndarray
        `(phase, ky, kx)` bool.
    maps : ndarray
        `(map, coil, y, x)` complex64, 0 where there is nothing.
    unit : float
        Standard deviation of the complex noise in `data`.

    Returns
    -------
    float
        Between 0.0001 and 0.5.
    """
    whole_lines = bool((mask == mask[:, :, :1]).all())
    factor, offset = LINES if whole_lines else POINTS
    noise = max(unit, 1e-30) ** 2
    power = image_power(data, mask) - data.shape[1] * noise
    seen = max(float(np.any(maps, axis=(0, 1)).mean()), 1.0 / mask[0].size)
    weight = factor * noise / (max(power, 0.0) / seen + offset * noise)
    return float(np.clip(weight, *_BOUNDS))


def image_power(data: NDArray[np.complex64], mask: NDArray[np.bool_]) -> float:
    """Mean over k-space of the coils' summed power, noise included; gaps are filled from their neighbours."""
    power = np.zeros(mask.shape[1:])
    for samples, sampled in zip(data, mask, strict=True):
        power += np.square(np.abs(samples)).sum(axis=0, dtype=np.float64) * sampled
    count = mask.sum(axis=0, dtype=np.float64)
    known = gaussian_filter(count, _NEAR)
    near = known > 1e-6 * count.max()
    return float((gaussian_filter(power, _NEAR)[near] / known[near]).sum() / near.size)

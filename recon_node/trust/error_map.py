"""Where in an image its error is to be expected: where it moves when samples are held out.

The image that was made without some samples differs from the one that had them where the samples decide, and
there the samples that nobody measured are missed, too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from recon_node.trust.decimation import all_columns, fewer_columns
from recon_node.trust.phases import middle

_BLUR = 2.25
"""Standard deviation, pixels, over which expected errors are averaged."""


def moved_by(
    images: NDArray[np.complex64], part: NDArray[np.complex64], step: int = 1
) -> NDArray[np.float32]:
    """How far the middle phases of `images` lie from `part`, which was made without the held-out samples.

    Parameters
    ----------
    images, part : ndarray
        `(phase, y, x)`; `part` has as many phases or fewer, and every `step`-th column.
    step : int
        See `recon_node.trust.decimation`.

    Returns
    -------
    ndarray
        `(y, x)` float32, all columns: root mean square of the magnitudes' difference, over phases and a few
        pixels around.
    """
    between = np.abs(fewer_columns(images[middle(len(images), len(part))], step)) - np.abs(part)
    power = gaussian_filter(np.square(between).mean(axis=0), (_BLUR, _BLUR / step))
    return np.asarray(np.sqrt(all_columns(power, images.shape[2])), np.float32)


def share_of(moved: NDArray[np.float32], images: NDArray[np.complex64], phases: int) -> float | None:
    """Mean square of `moved` over that of the middle `phases` of `images`; None where these are empty."""
    energy = float(np.mean(np.square(np.abs(images[middle(len(images), phases)]))))
    return float(np.mean(np.square(moved))) / energy if energy > 0 else None


def on_scale(
    moved: NDArray[np.float32] | None, nmse: float | None, images: NDArray[np.complex64]
) -> NDArray[np.float32] | None:
    """`moved` with the mean square that an error of `nmse` times the energy of `images` has."""
    if moved is None or nmse is None or not np.any(moved):
        return None
    energy = float(np.mean(np.square(np.abs(images))))
    return np.asarray(moved * np.sqrt(nmse * energy / float(np.mean(np.square(moved)))), np.float32)

"""A ventricle that a segmenter lost in a few frames, taken from the frames before and after them.

A heart does not lose half of its cavity from one frame to the next and have it back soon after. Where a
segmentation says so, contours are interpolated in time by the distance from them (Raya and Udupa, IEEE Trans
Med Imaging 9:32-42, 1990).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Masks = NDArray[np.bool_]
AROUND = 0.15
"""Of the heart cycle, before and after a frame, that its cavity is compared with."""


def continuous(cavity: Masks, wall: Masks, *, least: float) -> tuple[Masks, Masks]:
    """Cavity and wall with lost frames interpolated between their neighbours around the heart cycle.

    Parameters
    ----------
    cavity, wall : ndarray
        `(phase, y, x)` bool, of one slice over a whole heart cycle.
    least : float
        A frame is lost where its cavity is below this share of the median of the frames around it.

    Returns
    -------
    cavity, wall : ndarray
        As they came where nothing was lost, or the frames around are gone as well.
    """
    areas = cavity.sum(axis=(1, 2))
    lost = areas < least * _around(areas)
    found = np.flatnonzero(~lost & (areas > 0))
    if not lost.any() or len(found) < 2:
        return cavity, wall
    cavity, whole = cavity.copy(), cavity | wall
    kept, count = whole.copy(), len(areas)
    for place in np.flatnonzero(lost):
        back, ahead = (int((way % count).min()) for way in (place - found, found - place))
        ends, share = ((place - back) % count, (place + ahead) % count), back / (back + ahead)
        cavity[place] = _between(cavity[ends[0]], cavity[ends[1]], share)
        kept[place] = _between(whole[ends[0]], whole[ends[1]], share)
    return cavity, kept & ~cavity


def _around(areas: NDArray[np.integer]) -> NDArray[np.float64]:
    """Median over the frames around each, the cycle closed."""
    half = max(2, round(AROUND * len(areas)))
    places = np.arange(len(areas))[:, None] + np.arange(-half, half + 1)
    return np.asarray(np.median(areas[places % len(areas)], axis=1), np.float64)


def _between(first: NDArray[np.bool_], second: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The shape a `share` of the way from the first to the second."""
    return np.asarray((1 - share) * _inside(first) + share * _inside(second) > 0)


def _inside(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance from the outline, pixels: positive inside, negative outside."""
    return np.asarray(distance_transform_edt(mask) - distance_transform_edt(~mask), np.float64)

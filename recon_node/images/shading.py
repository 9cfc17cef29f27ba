r"""Surface-coil shading evened out: an image is white at the chest wall and dark in the heart.

The receive sensitivity changes over centimetres, anatomy over millimetres. What is common to both in the
logarithm of the image, averaged over the neighbourhood, is taken for the sensitivity and divided out
(homomorphic filtering, as compared by Vovk et al., IEEE Trans Med Imaging 26:405, 2007):

.. math:: \log b = q + \frac{G * (w (\log |x| - q))}{G * w}

`q` is the quadratic that fits best, without which the average would fall short at the body's edge; `w`
leaves out air, which has no signal to tell of the coils. Contrast over distances as long as `SCALE_MM` is
lost with the shading; ratios of pixel values across the image mean nothing afterwards, so it is off by
default and never for maps of T1 and T2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from recon_node.core.types import ImageSeries
from recon_node.images.geometry import pixel_size_mm

SCALE_MM = 35.0
"""Standard deviation of the neighbourhood."""
LARGEST_GAIN = 8.0
"""Pixels are brightened and darkened by at most this factor."""
_AIR = 0.08
"""Of the bright end of the anatomy: signal as weak as this counts half."""
_BRIGHT = 98.0


def evened(images: ImageSeries) -> ImageSeries:
    """Images without the shading of surface coils.

    Parameters
    ----------
    images : ImageSeries
        Any grid; its geometry says how large pixels are.

    Returns
    -------
    ImageSeries
        Phases as before, magnitudes times one gain for all frames, 1 on average over the anatomy. The same
        object where there is no signal.
    """
    gain = shading_gain(np.abs(images.data), pixel_size_mm(images.geometry, _plane(images)))
    if gain is None:
        return images
    settings = {**images.made_by.settings, "shading": "evened"}
    return replace(
        images,
        parts=None,
        data=(images.data * gain).astype(np.complex64),
        made_by=replace(images.made_by, settings=settings),
    )


def _plane(images: ImageSeries) -> tuple[int, int]:
    return images.data.shape[1], images.data.shape[2]


def shading_gain(magnitude: NDArray[Any], pixel_mm: tuple[float, float]) -> NDArray[np.float32] | None:
    """Gain `(y, x)` that evens magnitudes `(phase, y, x)` out; None where they are zero or not finite.

    `pixel_mm` is the size of a pixel along (y, x).
    """
    mean = magnitude.mean(axis=0, dtype=np.float64)
    bright = float(np.percentile(mean, _BRIGHT)) if np.isfinite(mean).all() else 0.0
    if bright <= 0:
        return None
    level = mean / bright
    weight = level**2 / (level**2 + _AIR**2)
    sigma = [SCALE_MM / size for size in pixel_mm]
    logarithm = np.log(np.maximum(level, 1e-6))
    trend = _quadratic(logarithm, weight)
    near = gaussian_filter(weight, sigma, mode="constant")
    summed = gaussian_filter(weight * (logarithm - trend), sigma, mode="constant")
    field = trend + summed / np.maximum(near, 1e-6)
    field -= float((weight * field).sum() / weight.sum())
    limit = np.log(LARGEST_GAIN)
    return np.asarray(np.exp(-limit * np.tanh(field / limit)), np.float32)


def _quadratic(values: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float64]:
    """The quadratic over the image `(y, x)` that is nearest to `values`."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in values.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)
    root = np.sqrt(weight).ravel()
    factors = np.linalg.lstsq((terms * root).T, values.ravel() * root, rcond=None)[0]
    return np.asarray((factors @ terms).reshape(values.shape))

"""Small pictures of reconstructed slices."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from recon_node.core.types import ImageSeries
from recon_node.images import display_orientation, orient

SIZE = 128
"""Pixels of the longer side at most."""
_BRIGHTEST = 99.5
"""Percentile that becomes white."""


def thumbnail(images: ImageSeries) -> bytes:
    """The first phase as a PNG of at most `SIZE` pixels a side, turned as radiologists look at it.

    Parameters
    ----------
    images : ImageSeries
        `(phase, y, x)` complex64; pixels that are not finite are shown black.
    """
    turned = orient(images, display_orientation(images.geometry))
    magnitude = np.nan_to_num(np.abs(turned.data[0]), nan=0.0, posinf=0.0, neginf=0.0)
    white = float(np.percentile(magnitude, _BRIGHTEST)) or 1.0
    pixels = (np.clip(magnitude / white, 0.0, 1.0) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIZE, SIZE))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()

"""Images as the viewer's script reads them, and still pictures as data URIs."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon_node.core.errors import DataError

Bytes = NDArray[np.uint8]

BACKGROUND = (11, 15, 20)
_GAMMA = 0.5
"""Levels are the square root of the value: finer in the dark, where the eye is."""
_THUMBNAIL = 96


def packed(levels: Bytes) -> dict[str, Any]:
    """Levels `(frame, y, x)` for the script: shape, and base64 of zlib of the differences along x."""
    steps = levels.copy()
    steps[..., 1:] -= levels[..., :-1]
    text = base64.b64encode(zlib.compress(steps.tobytes(), 6)).decode()
    return {"shape": list(levels.shape), "packed": text}


def companded(values: NDArray[Any], top: float) -> Bytes:
    """Magnitudes from 0 to `top` as square roots, 0 to 255; what is not finite is 0."""
    magnitude = np.nan_to_num(np.abs(values), nan=0.0, posinf=0.0)
    return np.asarray(np.rint(255 * np.clip(magnitude / top, 0, 1) ** _GAMMA), np.uint8)


def linear(values: NDArray[Any], top: float, steps: int = 64) -> Bytes:
    """Values from 0 to `top` as 0 to 255 in a few steps, which take less room; not finite is 0."""
    share = np.clip(np.nan_to_num(np.asarray(values, np.float64) / top, nan=0.0), 0, 1)
    return np.asarray(np.rint(share * (steps - 1)) * (255 / (steps - 1)), np.uint8)


def sampled(data: NDArray[np.complex64], mask: NDArray[np.bool_]) -> Bytes:
    """K-space `(phase, coil, ky, kx)` as logarithms of its magnitude over coils; 0 only where not sampled."""
    log = np.log1p(np.sqrt(np.sum(np.square(np.abs(data)), axis=1)))
    return np.asarray(np.where(mask, np.maximum(linear(log, float(log.max()) or 1.0), 4), 0), np.uint8)


def grey(image: NDArray[Any], *, top: float) -> Bytes:
    """Magnitudes from 0 to `top` as grey levels."""
    return np.asarray(255 * np.clip(np.nan_to_num(np.abs(image)) / top, 0, 1), np.uint8)


def complex_colour(values: NDArray[Any], *, top: float) -> Bytes:
    """Complex numbers `(...)` as colours `(..., 3)`: brightness is magnitude, hue is phase."""
    phase = np.angle(values)[..., None] + np.array([0, -2, 2]) * np.pi / 3
    tint = 0.62 + 0.38 * np.cos(phase)
    bright = np.clip(np.abs(values) / top, 0, 1)[..., None]
    return np.asarray(255 * tint * bright, np.uint8)


def mosaic(rows: Sequence[Sequence[Bytes]], *, gap: int = 3) -> Bytes:
    """Tiles `(y, x, 3)` of one size side by side, row by row; the last row may be shorter."""
    filled = [tile for row in rows for tile in row]
    if not filled or any(tile.shape != filled[0].shape for tile in filled):
        raise DataError(f"a mosaic needs tiles of one size, found {sorted({t.shape for t in filled})}")
    ny, nx, _ = filled[0].shape
    columns = max(len(row) for row in rows)
    canvas = np.empty((len(rows) * (ny + gap) - gap, columns * (nx + gap) - gap, 3), np.uint8)
    canvas[:] = BACKGROUND
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            y, x = i * (ny + gap), j * (nx + gap)
            canvas[y : y + ny, x : x + nx] = tile
    return canvas


def thumbnail(image: NDArray[Any], white: float | None = None) -> bytes:
    """PNG of one frame `(y, x)`, at most 96 pixels a side."""
    top = white or float(np.quantile(np.abs(image), 0.985)) or 1.0
    small = Image.fromarray(grey(image, top=top))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return _png(small)


def still(image: Bytes) -> str:
    """Data URI of a PNG of `(y, x)` or `(y, x, 3)`."""
    return png_uri(_png(Image.fromarray(image)))


def png_uri(data: bytes) -> str:
    """Data URI of a PNG's bytes."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()

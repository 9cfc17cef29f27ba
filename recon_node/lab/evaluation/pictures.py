"""Pictures for the report as data URIs: nothing is loaded from anywhere else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon_node.core.errors import DataError

Bytes = NDArray[np.uint8]

BACKGROUND = (11, 15, 20)
_HEAT = np.array(
    [
        (4, 4, 12),
        (52, 14, 96),
        (132, 32, 107),
        (207, 68, 70),
        (246, 137, 35),
        (250, 226, 120),
        (255, 255, 235),
    ],
    np.float64,
)


def grey(image: NDArray[Any], *, top: float) -> Bytes:
    """Magnitudes from 0 to `top` as grey levels `(..., 3)`, slightly lifted in the dark (gamma 0.8)."""
    level = np.clip(np.abs(image) / top, 0, 1) ** 0.8
    return np.repeat((255 * level).astype(np.uint8)[..., None], 3, axis=-1)


def heat(values: NDArray[Any], *, top: float) -> Bytes:
    """Values from 0 to `top` in a black-purple-orange-white scale `(..., 3)`."""
    position = np.clip(np.asarray(values, np.float64) / top, 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(position.astype(int), len(_HEAT) - 2)
    share = (position - low)[..., None]
    return np.asarray((1 - share) * _HEAT[low] + share * _HEAT[low + 1], np.uint8)


def complex_colour(values: NDArray[Any], *, top: float) -> Bytes:
    """Complex numbers `(...)` as colours `(..., 3)`: brightness is magnitude, hue is phase."""
    phase = np.angle(values)[..., None] + np.array([0, -2, 2]) * np.pi / 3
    tint = 0.62 + 0.38 * np.cos(phase)
    bright = np.clip(np.abs(values) / top, 0, 1)[..., None]
    return np.asarray(255 * tint * bright, np.uint8)


def mosaic(rows: Sequence[Sequence[Bytes | None]], *, gap: int = 6) -> Bytes:
    """Tiles `(..., y, x, 3)` of one size side by side, row by row; None leaves a tile empty."""
    filled = [tile for row in rows for tile in row if tile is not None]
    if not filled or any(tile.shape != filled[0].shape for tile in filled):
        raise DataError(f"a mosaic needs tiles of one size, found {sorted({t.shape for t in filled})}")
    *lead, ny, nx, _ = filled[0].shape
    columns = max(len(row) for row in rows)
    canvas = np.empty((*lead, len(rows) * (ny + gap) - gap, columns * (nx + gap) - gap, 3), np.uint8)
    canvas[:] = BACKGROUND
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile is not None:
                y, x = i * (ny + gap), j * (nx + gap)
                canvas[..., y : y + ny, x : x + nx, :] = tile
    return canvas


def resized(frames: Bytes, shape: tuple[int, int]) -> Bytes:
    """Frames `(phase, y, x, 3)` scaled smoothly to `shape` (rows, columns)."""
    if frames.shape[1:3] == shape:
        return frames
    size = shape[::-1]
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])


def animation(frames: Bytes, *, frame_ms: int, quality: int = 82) -> str:
    """Data URI of an endless animated WebP; `(phase, y, x, 3)`."""
    pictures = [Image.fromarray(frame) for frame in frames]
    return _uri(
        pictures[0],
        "webp",
        save_all=True,
        append_images=pictures[1:],
        duration=max(10, frame_ms),
        loop=0,
        quality=quality,
        method=4,
    )


def still(image: Bytes) -> str:
    """Data URI of a PNG; `(y, x, 3)`."""
    return _uri(Image.fromarray(image), "png", optimize=True)


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

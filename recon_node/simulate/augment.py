"""Other hearts made of one: what augmentation may change in a cine without making it impossible."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from recon_node.simulate.cine import Cine

F32 = NDArray[np.float32]
TURN_RAD = 0.25
"""Largest turn in plane beside quarter turns."""
SCALE = 0.12
"""Largest relative change of size."""
ELASTIC_MM, ELASTIC_SCALE_MM = 3.0, 28.0
"""Standard deviation of elastic displacements, and the length over which they change."""
TIME_WARP = 0.35
"""Largest relative change of the speed at which the cycle goes by."""
GAMMA = 0.25
FAT = (0.5, 1.5)
"""Factor on what is bright and does not move."""


def augmented(rng: np.random.Generator, cine: Cine, *, frames: int | None = None) -> Cine:
    """Another heart made of `cine`.

    Flips, quarter turns, a turn, a scale and elastic displacements; the cycle begun elsewhere and warped;
    gamma, and the brightness of what is bright and still (fat).

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance.
    cine : Cine
        Left as it is.
    frames : int, optional
        How many frames to make of the cycle; as many as there are if None.
    """
    images = _in_time(rng, cine.images, frames or len(cine.images))
    images, pixel_mm, axis = _flipped(rng, images, cine.pixel_mm, cine.encoded_axis)
    images = _in_space(rng, images, pixel_mm)
    images = _contrast(rng, images)
    return dataclasses.replace(cine, images=images, pixel_mm=pixel_mm, phase_axis=axis, trigger_times_ms=None)


def _in_time(rng: np.random.Generator, images: F32, frames: int) -> F32:
    """The cycle from another moment on, at a speed that changes smoothly, sometimes backwards."""
    total = len(images)
    turn = np.arange(frames) / frames
    warp = rng.uniform(0, TIME_WARP) / (2 * np.pi) * np.sin(2 * np.pi * (turn + rng.random()))
    at = (rng.random() + rng.choice([-1, 1]) * (turn + warp)) * total
    if frames == total and rng.random() < 0.5:  # frames as they are: interpolation takes noise out of them
        at = np.round(at[0]) + np.sign(at[1] - at[0]) * np.arange(frames)
    before = np.floor(at).astype(int)
    part = (at - before).astype(np.float32)[:, None, None]
    return np.asarray((1 - part) * images[before % total] + part * images[(before + 1) % total], np.float32)


def _flipped(
    rng: np.random.Generator, images: F32, pixel_mm: tuple[float, float], axis: int
) -> tuple[F32, tuple[float, float], int]:
    if rng.random() < 0.5:
        images = images[:, ::-1]
    if rng.random() < 0.5:
        images = images[:, :, ::-1]
    if rng.random() < 0.25:  # the phase encoding turns with the image
        images, pixel_mm, axis = images.swapaxes(1, 2), (pixel_mm[1], pixel_mm[0]), 1 - axis
    if rng.random() < 0.25:  # or is swapped with the readout
        axis = 1 - axis
    return np.ascontiguousarray(images), pixel_mm, axis


def _in_space(rng: np.random.Generator, images: F32, pixel_mm: tuple[float, float]) -> F32:
    """Turned, scaled and bent, alike in all frames."""
    ny, nx = images.shape[1:]
    y = ((np.arange(ny) - ny / 2) * pixel_mm[0])[:, None]
    x = ((np.arange(nx) - nx / 2) * pixel_mm[1])[None]
    angle, size = rng.uniform(-TURN_RAD, TURN_RAD), 1 + rng.uniform(-SCALE, SCALE)
    c, s = np.cos(angle) / size, np.sin(angle) / size
    bends = []
    for _ in range(2):
        bend = gaussian_filter(
            rng.standard_normal((ny, nx)), [ELASTIC_SCALE_MM / step for step in pixel_mm], mode="wrap"
        )
        bends.append(rng.uniform(0, ELASTIC_MM) * bend / max(float(bend.std()), 1e-12))
    rows = (c * y - s * x + bends[0]) / pixel_mm[0] + ny / 2
    columns = (s * y + c * x + bends[1]) / pixel_mm[1] + nx / 2
    where = np.stack([rows, columns])
    bent = [map_coordinates(frame, where, order=3, mode="constant") for frame in images]
    made: F32 = np.maximum(np.stack(bent), 0).astype(np.float32)
    return made


def _contrast(rng: np.random.Generator, images: F32) -> F32:
    top = float(np.quantile(images, 0.999))
    mean, moves = images.mean(axis=0) / top, images.std(axis=0) / top
    fat = gaussian_filter(((mean > 0.35) & (moves < 0.1 * mean)).astype(np.float32), 1.0)
    factor = 1 + (rng.uniform(*FAT) - 1) * fat
    scaled = np.minimum(images / top, 4.0) * factor
    return np.asarray(scaled ** (1 + rng.uniform(-GAMMA, GAMMA)) * top, np.float32)

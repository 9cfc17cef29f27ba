"""The matrix a cine was acquired with: zero-filling found in the spectrum of its images, and taken out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.grid import central

F32 = NDArray[np.float32]
DROP = 6.0
"""Spectral power falls by at least this factor where acquired samples end; from one line to the next it
falls by no more than a half in images that were never interpolated."""
MOST_PIXELS = 1 << 28
"""Of one file: 1 GB as float32."""
SMALLEST = 0.4
"""Share of the matrix that was acquired at least."""
_FAINTEST, _BRIGHTEST = 1e-15, 1e15
"""Beyond, the squares that spectra are made of are no single-precision numbers."""
_BESIDE = 0.04
"""Share of the matrix that is averaged on each side of a fall."""


def check_size(name: str, shape: Sequence[int]) -> None:
    """See that images of a shape can be read into memory, before they are.

    Raises
    ------
    DataError
        An axis is empty, or they are larger than any cine.
    """
    told = " x ".join(map(str, shape))
    if min(shape, default=0) < 1:
        raise DataError(f"{name}: found images of {told}, expected no empty axis")
    if math.prod(shape) > MOST_PIXELS:
        raise DataError(f"{name}: found images of {told}, expected at most {MOST_PIXELS} pixels: cut them")


def check_finite(name: str, images: NDArray[Any]) -> None:
    """See that images are numbers that can be reckoned with.

    Raises
    ------
    DataError
        They are not.
    """
    if not np.isfinite(images).all():
        raise DataError(f"{name}: found pixels that are no finite numbers: copy the file anew")
    brightest = float(np.abs(images).max())
    if brightest and not _FAINTEST < brightest < _BRIGHTEST:
        raise DataError(
            f"{name}: the brightest pixel is {brightest:.3g}, expected {_FAINTEST:g} to {_BRIGHTEST:g}: "
            "copy the file anew"
        )


def acquired_shape(images: F32) -> tuple[int, int]:
    """(y, x) samples that magnitude images `(phase, y, x)` were acquired with, found in their spectrum."""
    power = (np.abs(centred_fft(images)) ** 2).mean(axis=0)
    return _extent(power.mean(axis=1)), _extent(power.mean(axis=0))


def restored(
    images: F32, pixel_mm: tuple[float, float], *, matrix: tuple[int, int] | None = None
) -> tuple[F32, tuple[float, float]]:
    """Images at the acquired matrix, and their pixel size.

    Parameters
    ----------
    images : ndarray
        `(phase, y, x)` float32 magnitudes, interpolated or not.
    pixel_mm : tuple of float
        (y, x)
    matrix : tuple of int, optional
        (y, x) samples acquired, where the file says it; found in the spectrum if None.
    """
    shape = images.shape[1:]
    wanted = acquired_shape(images) if matrix is None else matrix
    ny, nx = (min(size, max(16, most)) for size, most in zip(shape, wanted, strict=True))
    if (ny, nx) == shape:
        return images, pixel_mm
    kspace = centred_fft(images)[:, central(shape[0], ny), central(shape[1], nx)]
    smaller = np.abs(centred_ifft(kspace)).astype(np.float32)
    smaller *= np.float32(np.sqrt(ny * nx / (shape[0] * shape[1])))
    return smaller, (pixel_mm[0] * shape[0] / ny, pixel_mm[1] * shape[1] / nx)


def _extent(power: NDArray[np.floating]) -> int:
    """Where the power along one axis falls off a cliff, as a number of central samples."""
    size, centre = len(power), len(power) // 2
    reach = (size - 1) // 2
    both = (power[centre : centre + reach + 1] + power[centre - reach : centre + 1][::-1]) / 2
    width = max(2, round(_BESIDE * size))
    best, edge = DROP, None
    for radius in range(int(SMALLEST * size / 2), reach - width + 1):
        inside, outside = both[radius - width : radius].min(), both[radius + 1 : radius + 1 + width].max()
        fall = float(inside / max(outside, 1e-30))
        if fall > best:
            best, edge = fall, radius
    return size if edge is None else min(size, 2 * edge)

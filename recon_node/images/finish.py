"""From the k-space grid's image to the image asked for: matrix, field of view and pixel size.

The grid of the raw data may be wider than the image (phase oversampling) and coarser (scanners
interpolate by zero-filling). Both are exact here: k-space is zero-filled or cropped to reach the
pixel size, then the image is cropped or padded around the pixel that holds the k-space centre's
position, so that `SliceGeometry.position_mm` never moves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import ImageSeries

MAX_PIXELS = 4096
"""A wider image than this is a header that contradicts itself."""


def finish(images: ImageSeries, *, shape: tuple[int, int]) -> ImageSeries:
    """Bring `images` to the recon matrix over the header's recon field of view.

    Parameters
    ----------
    images : ImageSeries
        On the k-space grid; `geometry.fov_mm` is the grid's field of view.
    shape : (int, int)
        Rows and columns (y, x) asked for, over `header.recon_fov_mm`.

    Returns
    -------
    ImageSeries
        `(phase, *shape)` complex64. Its field of view is the recon field of view up to the rounding
        of the interpolated matrix to whole pixels; the geometry says what it really is.

    Raises
    ------
    DataError
        Where `shape` is not positive or the pixel size it implies is absurd.
    """
    if min(shape) < 1 or max(shape) > MAX_PIXELS:
        raise DataError(
            f"recon matrix (y, x) is {shape}, expected sizes from 1 to {MAX_PIXELS}: check the header"
        )
    data: NDArray[Any] = images.data
    fov = (images.geometry.fov_mm[1], images.geometry.fov_mm[0])
    wanted = (images.header.recon_fov_mm[1], images.header.recon_fov_mm[0])
    grid = tuple(_interpolated(fov[i], wanted[i], shape[i]) for i in (0, 1))
    for axis, size in zip((-2, -1), grid, strict=True):
        data = _resample(data, axis, size)
    for axis, size in zip((-2, -1), shape, strict=True):
        data = _centred(data, axis, size)
    pixel = [fov[i] / grid[i] for i in (0, 1)]
    geometry = replace(
        images.geometry, fov_mm=(shape[1] * pixel[1], shape[0] * pixel[0], images.geometry.fov_mm[2])
    )
    return replace(images, parts=None, data=np.ascontiguousarray(data, dtype=np.complex64), geometry=geometry)


def _interpolated(fov_mm: float, wanted_mm: float, size: int) -> int:
    """Pixels over `fov_mm` that have the size of `size` pixels over `wanted_mm`."""
    pixels = round(fov_mm * size / wanted_mm)
    if not 1 <= pixels <= MAX_PIXELS:
        raise DataError(
            f"a field of view of {fov_mm:g} mm at pixels of {wanted_mm / size:g} mm makes {pixels} pixels,"
            f" expected 1 to {MAX_PIXELS}: check the header's fields of view"
        )
    return pixels


def _resample(data: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """Zero-fill or crop k-space along `axis`; pixel values keep their scale."""
    before = data.shape[axis]
    if size == before:
        return data
    kspace = _centred(centred_fft(data, axes=(axis,)), axis, size)
    return centred_ifft(kspace, axes=(axis,)) * np.float32(np.sqrt(size / before))


def _centred(data: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """Crop or zero-pad along `axis` so that index ``n // 2`` stays the centre."""
    before = data.shape[axis]
    shift = size // 2 - before // 2
    if size <= before:
        return data.take(range(-shift, -shift + size), axis=axis)
    pads = [(0, 0)] * data.ndim
    pads[axis] = (shift, size - before - shift)
    return np.pad(data, pads)

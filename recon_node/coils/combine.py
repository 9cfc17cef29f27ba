"""Coil images to one image, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.mapsets import joined
from recon_node.core.types import CoilMaps

Complex = NDArray[np.complexfloating[Any, Any]]


def combine(coil_images: Complex, maps: CoilMaps) -> NDArray[np.complex64]:
    """Project coil images on the maps: ``sum over coils of conj(map) * image``.

    With whitened data and unit-norm maps this is the combination with the best signal-to-noise ratio
    (Roemer et al., Magn Reson Med 16:192, 1990). Several map sets are joined
    (`recon_node.core.mapsets.joined`).

    Parameters
    ----------
    coil_images : ndarray
        `(..., coil, y, x)` complex.
    maps : CoilMaps
        Of the same coils and pixels.

    Returns
    -------
    ndarray
        `(..., y, x)` complex64.

    Raises
    ------
    DataError
        If coils or pixels of images and maps disagree.
    """
    return joined(combine_sets(coil_images, maps))


def combine_sets(coil_images: Complex, maps: CoilMaps) -> NDArray[np.complex64]:
    """As `combine`, with one image for each map set: `(..., map, y, x)` complex64."""
    if coil_images.shape[-3:] != maps.data.shape[1:]:
        raise DataError(
            f"coil images of shape {coil_images.shape} do not fit maps of shape {maps.data.shape}:"
            " expected equal (coil, y, x)"
        )
    combined: NDArray[np.complex64] = np.einsum(
        "mcyx,...cyx->...myx", maps.data.conj(), coil_images, optimize=True
    ).astype(np.complex64, copy=False)
    return combined


def expand(images: Complex, maps: CoilMaps) -> NDArray[np.complex64]:
    """Images as each coil sees them through the first map set; adjoint of `combine` for one set.

    Parameters
    ----------
    images : ndarray
        `(..., y, x)` complex.
    maps : CoilMaps
        Of the same pixels.

    Returns
    -------
    ndarray
        `(..., coil, y, x)` complex64.

    Raises
    ------
    DataError
        If the pixels of images and maps disagree.
    """
    if images.shape[-2:] != maps.data.shape[-2:]:
        raise DataError(f"images of shape {images.shape} do not fit maps of shape {maps.data.shape}")
    seen: NDArray[np.complex64] = (maps.data[0] * images[..., None, :, :]).astype(np.complex64, copy=False)
    return seen


def root_sum_of_squares(coil_images: Complex) -> NDArray[np.float32]:
    """Magnitude image `(..., y, x)` float32 of `(..., coil, y, x)` coil images."""
    power = np.sum(np.square(coil_images.real) + np.square(coil_images.imag), axis=-3)
    magnitude: NDArray[np.float32] = np.sqrt(power).astype(np.float32, copy=False)
    return magnitude

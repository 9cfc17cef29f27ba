"""Where in the image measured signal is left unexplained."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import CoilMaps, KSpace

_AROUND = 3
"""Pixels a side over which variances are averaged: few phases alone tell little."""


def unexplained_signal(images: NDArray[np.complex64], kspace: KSpace, maps: CoilMaps) -> NDArray[np.float64]:
    """Measured signal that the images do not explain, where in the image it belongs.

    .. math:: r = A^H (y - A x)

    Parameters
    ----------
    images : ndarray
        `(phase, y, x)` complex64, on the grid of `kspace`.
    kspace : KSpace
        In units of the noise's standard deviation.
    maps : CoilMaps
        Their first set is used.

    Returns
    -------
    ndarray
        `(y, x)` float64: root mean square over phases of `r`, in units of what noise alone leaves there: 1 at
        most where the images are right, for they fit part of the noise as well.

    Raises
    ------
    DataError
        The images lie on another grid.
    """
    if images.shape != kspace.mask.shape:
        raise DataError(f"images of shape {images.shape} are not on the k-space's grid {kspace.mask.shape}")
    sensitivity = maps.data[0]
    energy = np.zeros(images.shape[1:])
    for frame, measured, mask in zip(images, kspace.data, kspace.mask, strict=True):
        left = measured - mask * centred_fft(sensitivity * frame)
        back = np.sum(sensitivity.conj() * centred_ifft(left), axis=0)
        energy += np.square(np.abs(back), dtype=np.float64)
    usual = kspace.mask.mean()
    variance = uniform_filter(energy / len(images) / usual, _AROUND, mode="nearest")
    return np.asarray(np.sqrt(np.maximum(variance, 0)))

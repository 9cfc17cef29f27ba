"""Where in the image noise is amplified, and where it leaves measured signal unexplained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.trust.measures import Reconstruct

_AROUND = 3
"""Pixels a side over which variances are averaged: few phases alone tell little."""


def noise_response(
    kspace: KSpace, reconstruct: Reconstruct, *, clean: ImageSeries | None = None, seed: int = 0
) -> ImageSeries:
    """What a reconstruction makes of noise of unit variance that is added to the measured samples.

    The difference of two reconstructions, with and without the noise (a pseudo replica: Robson et al., Magn
    Reson Med 60:895 (2008)); the method may choose its regularisation from the data.

    Parameters
    ----------
    kspace : KSpace
        In units of the noise's standard deviation.
    reconstruct : callable
        The method.
    clean : ImageSeries, optional
        What it makes of `kspace` as it is, where that is known already.
    seed : int
        Of the noise.

    Returns
    -------
    ImageSeries
        The differences, `(phase, y, x)` complex64.
    """
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, *kspace.data.shape), np.float32) * np.float32(np.sqrt(0.5))
    noisy = kspace.data + (parts[0] + 1j * parts[1]) * kspace.mask[:, None]
    without = reconstruct(kspace) if clean is None else clean
    return replace(without, data=reconstruct(replace(kspace, data=noisy)).data - without.data)


def g_factor(response: NDArray[np.complex64], acceleration: float) -> NDArray[np.float64]:
    """Geometry factor of a method as it is used, its regularisation included.

    Parameters
    ----------
    response : ndarray
        `(phase, y, x)`, of `noise_response`.
    acceleration : float
        All samples over measured ones.

    Returns
    -------
    ndarray
        `(y, x)` float64: standard deviation of the noise over that of a fully sampled image (which is 1) and
        the square root of `acceleration`. Below 1 where regularisation holds noise down at the price of blur.
    """
    variance = np.mean(np.square(np.abs(response), dtype=np.float64), axis=0)
    return _root(variance / acceleration)


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
    return _root(energy / len(images) / usual)


def _root(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation `(y, x)`, of variances averaged over neighbours."""
    return np.asarray(np.sqrt(np.maximum(uniform_filter(variance, _AROUND, mode="nearest"), 0)))

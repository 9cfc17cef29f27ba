"""What samples an image gives through coil maps, and how far they are from the measured ones.

Only where samples are asked for: of whole lines nothing but these is transformed along the readout, and one
phase at a time, so that its coil images stay in the cache.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps


def predict(image: NDArray[np.complex64], maps: CoilMaps) -> NDArray[np.complex64]:
    """K-space `(phase, coil, ky, kx)` that images `(phase, map, y, x)` give through as many map sets."""
    shifted = _shifted(maps.data[: image.shape[1]])
    every = np.arange(image.shape[2])
    return np.stack([_lines(frame, shifted, every) for frame in image])


def squared_errors(
    image: NDArray[np.complex64],
    measured: NDArray[np.complex64],
    maps: CoilMaps,
    where: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Squared distance of predicted from measured samples, summed over the coils.

    Parameters
    ----------
    image : ndarray
        `(phase, map, y, x)` complex64.
    measured : ndarray
        `(phase, coil, ky, kx)` complex64.
    maps : CoilMaps
        As many sets are used as there are images.
    where : ndarray
        `(phase, ky, kx)` bool, of what is asked for.

    Returns
    -------
    ndarray
        `(phase, ky, kx)` float64; zero where nothing was asked for.
    """
    shifted = _shifted(maps.data[: image.shape[1]])
    out = np.zeros(where.shape)
    for frame, samples, asked, errors in zip(image, measured, where, out, strict=True):
        rows = np.flatnonzero(asked.any(axis=1))
        errors[rows] = energies(samples[:, rows] - _lines(frame, shifted, rows)) * asked[rows]
    return out


def energies(samples: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Squared magnitudes of `(coil, ky, kx)` samples, summed over the coils: `(ky, kx)`."""
    parts = np.ascontiguousarray(samples).view(np.float32)
    squared = np.einsum("ckx,ckx->kx", parts, parts)
    return np.asarray(squared[:, ::2] + squared[:, 1::2])


def _shifted(maps: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """`(map, coil, y, x)` to `(map, coil, x, y)`, the centre first."""
    return np.ascontiguousarray(np.fft.ifftshift(maps, axes=(-2, -1)).swapaxes(-2, -1))


def _lines(
    image: NDArray[np.complex64], maps: NDArray[np.complex64], rows: NDArray[np.intp]
) -> NDArray[np.complex64]:
    """Samples `(coil, line, kx)` of one phase `(map, y, x)` on some lines, with maps from `_shifted`."""
    moved = np.fft.ifftshift(image, axes=(-2, -1)).swapaxes(-2, -1)
    seen = maps[0] * moved[0]
    for sensitivities, one in zip(maps[1:], moved[1:], strict=True):
        seen += sensitivities * one
    hybrid = scipy.fft.fft(seen, axis=-1, norm="ortho", overwrite_x=True)
    points = image.shape[1]
    lines = np.ascontiguousarray(hybrid[..., (rows - points // 2) % points].swapaxes(-2, -1))
    kspace = scipy.fft.fft(lines, axis=-1, norm="ortho", overwrite_x=True)
    return np.asarray(np.fft.fftshift(kspace, axes=-1), np.complex64)

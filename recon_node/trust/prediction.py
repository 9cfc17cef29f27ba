"""What samples an image gives through coil maps, and how far they are from the measured ones.

Only where samples are asked for: of whole lines nothing but these is transformed along the readout, and one
phase at a time, so that its coil images stay in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps


class Predictor:
    """Samples of images behind one set of coils.

    Parameters
    ----------
    maps : ndarray
        `(map, coil, y, x)` complex64.
    """

    def __init__(self, maps: NDArray[np.complex64]) -> None:
        half = maps.shape[-1] // 2
        places = np.arange(maps.shape[-1]) - half
        # a ramp along the readout puts the centre of k-space where it belongs: no shift of every coil's lines
        ramp = np.exp(2j * np.pi * half / maps.shape[-1] * places).astype(np.complex64)
        self._maps = _first(maps * ramp)

    def __call__(self, image: NDArray[np.complex64], rows: NDArray[np.intp]) -> NDArray[np.complex64]:
        """Samples `(coil, line, kx)` of one phase `(map, y, x)` on some lines, of as many sets as it has."""
        moved = _first(image)
        seen = self._maps[0] * moved[0]
        for sensitivities, one in zip(self._maps[1:], moved[1:], strict=False):
            seen += sensitivities * one
        hybrid = scipy.fft.fft(seen, axis=-1, norm="ortho", overwrite_x=True)
        points = image.shape[1]
        lines = np.ascontiguousarray(hybrid[..., (rows - points // 2) % points].swapaxes(-2, -1))
        return np.asarray(scipy.fft.fft(lines, axis=-1, norm="ortho", overwrite_x=True), np.complex64)


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
    predictor = Predictor(maps.data)
    out = np.zeros(where.shape)
    for frame, samples, asked, errors in zip(image, measured, where, out, strict=True):
        rows = np.flatnonzero(asked.any(axis=1))
        errors[rows] = powers(samples[:, rows] - predictor(frame, rows)).sum(axis=0) * asked[rows]
    return out


def powers(samples: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Squared magnitudes, the shape of `samples`."""
    parts = np.square(np.ascontiguousarray(samples).view(np.float32))
    found: NDArray[np.float32] = parts[..., ::2] + parts[..., 1::2]
    return found


def _first(array: NDArray[Any]) -> NDArray[np.complex64]:
    """`(..., y, x)` to `(..., x, y)`, the centre first."""
    return np.ascontiguousarray(np.fft.ifftshift(array, axes=(-2, -1)).swapaxes(-2, -1), np.complex64)

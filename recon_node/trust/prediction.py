"""What samples an image gives through coil maps, and how far they are from the measured ones.

Only where samples are asked for: of whole lines nothing but these is transformed along the readout, and one
phase at a time, so that its coil images stay in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from recon_node.core.fft import centred_ifft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace


def with_phase(image: NDArray[np.complex64], kspace: KSpace, maps: CoilMaps) -> NDArray[np.complex64]:
    """`image` with the phase of the coil-combined zero-filled image, where it has none of its own.

    Networks that end in a root sum of squares give magnitudes; k-space cannot be predicted from them.
    """
    if np.any(image.imag):
        return image
    combined = np.sum(maps.data[0].conj() * centred_ifft(kspace.data), axis=1)
    return np.asarray(np.abs(image) * np.exp(1j * np.angle(combined)), np.complex64)


def components(images: ImageSeries, kspace: KSpace, maps: CoilMaps) -> NDArray[np.complex64]:
    """The images `(phase, map, y, x)` that predict k-space: of every map set, or of the first one alone."""
    if knows_all_sets(images, maps):
        return np.asarray(images.parts, np.complex64)
    return with_phase(images.data, kspace, maps)[:, None]


def knows_all_sets(images: ImageSeries, maps: CoilMaps) -> bool:
    """Whether there is an image for every one of several map sets."""
    return images.parts is not None and images.parts.shape[1] == len(maps.data)


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
        self._room = np.empty_like(self._maps[0])

    def __call__(self, image: NDArray[np.complex64], rows: NDArray[np.intp]) -> NDArray[np.complex64]:
        """Samples `(coil, line, kx)` of one phase `(map, y, x)` on some lines, of as many sets as it has."""
        moved = _first(image)
        seen = np.multiply(self._maps[0], moved[0], out=self._room)
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
    moved = array.swapaxes(-2, -1)
    out = np.empty(moved.shape, np.complex64)
    x, y = (size // 2 for size in moved.shape[-2:])
    after, beyond = (size - half for size, half in zip(moved.shape[-2:], (x, y), strict=True))
    out[..., :after, :beyond], out[..., :after, beyond:] = moved[..., x:, y:], moved[..., x:, :y]
    out[..., after:, :beyond], out[..., after:, beyond:] = moved[..., :x, y:], moved[..., :x, :y]
    return out

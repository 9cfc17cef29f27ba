"""One centred, orthonormal Fourier transform for everything on numpy.

Image to k-space is the forward transform, k-space to image the inverse one; the zero frequency and
the image centre sit at index ``n // 2`` on every axis, also for odd sizes. Parseval holds:
``norm(fft(x)) == norm(x)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = tuple[int, ...]


def centred_fft(image: NDArray[Any], axes: Axes = (-2, -1)) -> NDArray[Any]:
    """Image to k-space over `axes`; complex64 stays complex64."""
    shifted = np.fft.ifftshift(image, axes=axes)
    return np.fft.fftshift(np.fft.fftn(shifted, axes=axes, norm="ortho"), axes=axes)


def centred_ifft(kspace: NDArray[Any], axes: Axes = (-2, -1)) -> NDArray[Any]:
    """K-space to image over `axes`; complex64 stays complex64."""
    shifted = np.fft.ifftshift(kspace, axes=axes)
    return np.fft.fftshift(np.fft.ifftn(shifted, axes=axes, norm="ortho"), axes=axes)


def central_waves(points: int, part: int) -> NDArray[np.complex64]:
    """`(part, points)`: rows of `centred_fft` along one axis of `points`, of the central `part` frequencies.

    Times an image's axis they give those samples alone; their adjoint takes samples to the image that has
    no others. For a small part that is quicker than a transform.
    """
    places, frequencies = np.arange(points) - points // 2, np.arange(part) - part // 2
    waves = np.exp(-2j * np.pi / points * frequencies[:, None] * places) / np.sqrt(points)
    return np.asarray(waves, np.complex64)


def from_centre(block: NDArray[np.complex64], shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """Image `(..., y, x)` of this shape whose central samples are `block`, the others zero."""
    down, across = (central_waves(n, m) for n, m in zip(shape, block.shape[-2:], strict=True))
    return np.asarray(down.conj().T @ block @ across.conj())

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

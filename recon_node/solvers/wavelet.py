"""Shrinkage in an orthonormal wavelet basis, as a proximal operator for iterative reconstructions.

A random shift before each thresholding (cycle spinning, Figueiredo and Nowak, IEEE Trans Image Process
12:906, 2003) removes the basis' grid from the image. The shifts come from a fixed seed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pywt
import torch
from torch import Tensor

from recon_node.solvers.fista import soft_threshold
from recon_node.solvers.planes import from_planes, to_planes

_BASIS = "db4"
_VANISHING = 4
_LEVELS = 4


class WaveletShrinkage:
    """Soft thresholding of the detail coefficients of every image, with a fresh shift at every call."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._rng = np.random.default_rng(0)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to images `(..., x, y)`."""
        size = (x.shape[-2], x.shape[-1])
        levels = depth(size)
        dims, step = (-2, -1), 2**levels
        shift = [int(s) for s in self._rng.integers(0, size)]
        padding = [-n % step for n in size]
        moved = torch.nn.functional.pad(torch.roll(x, shift, dims), (0, padding[1], 0, padding[0]))
        image = from_planes(self._shrink(to_planes(moved), levels))
        return torch.roll(image[..., : size[0], : size[1]], [-s for s in shift], dims)

    def _shrink(self, parts: Tensor, levels: int) -> Tensor:
        """`(2, ..., x, y)` real and imaginary parts; one level, then its coarse quarter recursively."""
        if levels == 0:
            return parts
        rows, columns = (_analysis(n, parts.device) for n in parts.shape[-2:])
        coefficients = rows @ parts @ columns.T
        half = (parts.shape[-2] // 2, parts.shape[-1] // 2)
        coarse = self._shrink(coefficients[..., : half[0], : half[1]].contiguous(), levels - 1)
        coefficients = to_planes(soft_threshold(from_planes(coefficients), self._limit))
        coefficients[..., : half[0], : half[1]] = coarse
        image: Tensor = rows.T @ coefficients @ columns
        return image


def depth(size: tuple[int, int]) -> int:
    """Levels that keep the coarsest band at least as long as the filter."""
    return max(0, min(_LEVELS, int(math.log2(min(size) / (2 * _VANISHING)))))


@lru_cache(maxsize=32)
def _analysis(size: int, device: torch.device) -> Tensor:
    """Orthonormal periodic one-level transform `(size, size)` float32: low pass rows, then high pass."""
    low = np.asarray(pywt.Wavelet(_BASIS).dec_lo)
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    matrix = np.zeros((size, size))
    for row in range(size // 2):
        places = (2 * row + np.arange(len(low))) % size
        np.add.at(matrix[row], places, low)
        np.add.at(matrix[size // 2 + row], places, high)
    return torch.from_numpy(matrix.astype(np.float32)).to(device)

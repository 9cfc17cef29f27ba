r"""L1-wavelet SENSE: :math:`\min_x \tfrac12\|A x - y\|^2 + \lambda\|W x\|_1`, each frame on its own.

Lustig et al., Magn Reson Med 58:1182 (2007). `W` is an orthonormal wavelet transform; a random shift
before each thresholding (cycle spinning, Figueiredo and Nowak, IEEE Trans Image Process 12:906, 2003)
removes its grid from the image. The shifts come from a fixed seed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.core.types import CoilMaps, KSpace
from recon_node.model.hybrid import SenseOperator
from recon_node.model.iterative import Iterative
from recon_node.model.proximal import fista, soft_threshold
from recon_node.model.series import check_options

_VANISHING = 4
_LEVELS = 4


class L1Wavelet(Iterative):
    """SENSE with sparsity in an orthonormal wavelet basis (Daubechies, four vanishing moments).

    Parameters
    ----------
    regularisation : float
        Weight of the wavelet coefficients' magnitudes, in units of the noise standard deviation.
    iterations : int
        FISTA iterations.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """

    name = "l1-wavelet"

    def __init__(self, *, regularisation: float = 0.06, iterations: int = 150, device: str = "auto") -> None:
        check_options("l1-wavelet", iterations=iterations, regularisation=regularisation)
        self.regularisation = regularisation
        self.iterations = iterations
        self.device = device

    @torch.inference_mode()
    def _images(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> NDArray[np.complex64]:
        operator = SenseOperator(maps.data, kspace.mask, device)
        images = fista(
            operator.normal,
            operator.matched(kspace.data),
            WaveletShrinkage(self.regularisation * unit),
            iterations=self.iterations,
        )
        return operator.to_grid(images)

    def _settings(self, unit: float) -> dict[str, Any]:
        return {
            "regularisation": self.regularisation,
            "iterations": self.iterations,
            "noise_unit": unit,
        }


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
        shrunk = self._shrink(torch.view_as_real(moved).movedim(-1, 0).contiguous(), levels)
        image = torch.view_as_complex(shrunk.movedim(0, -1).contiguous())
        return torch.roll(image[..., : size[0], : size[1]], [-s for s in shift], dims)

    def _shrink(self, parts: Tensor, levels: int) -> Tensor:
        """`(2, ..., x, y)` real and imaginary parts; one level, then its coarse quarter recursively."""
        if levels == 0:
            return parts
        rows, columns = (_analysis(n, parts.device) for n in parts.shape[-2:])
        coefficients = rows @ parts @ columns.T
        half = (parts.shape[-2] // 2, parts.shape[-1] // 2)
        coarse = self._shrink(coefficients[..., : half[0], : half[1]].contiguous(), levels - 1)
        pairs = torch.complex(coefficients[0], coefficients[1])
        shrunk = soft_threshold(pairs, self._limit)
        coefficients = torch.stack([shrunk.real, shrunk.imag])
        coefficients[..., : half[0], : half[1]] = coarse
        image: Tensor = rows.T @ coefficients @ columns
        return image


def depth(size: tuple[int, int]) -> int:
    """Levels that keep the coarsest band at least as long as the filter."""
    return max(0, min(_LEVELS, int(math.log2(min(size) / (2 * _VANISHING)))))


@lru_cache(maxsize=32)
def _analysis(size: int, device: torch.device) -> Tensor:
    """Orthonormal periodic one-level transform `(size, size)` float32: low pass rows, then high pass."""
    low = daubechies(_VANISHING)
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    matrix = np.zeros((size, size))
    for row in range(size // 2):
        places = (2 * row + np.arange(len(low))) % size
        np.add.at(matrix[row], places, low)
        np.add.at(matrix[size // 2 + row], places, high)
    return torch.from_numpy(matrix.astype(np.float32)).to(device)


def daubechies(moments: int) -> NDArray[np.float64]:
    """Low-pass filter with `moments` vanishing moments, `(2 moments,)`, of unit norm.

    Spectral factorisation (Daubechies, Ten Lectures on Wavelets, 1992, section 6.1): the polynomial
    ``sum_k binom(moments - 1 + k, k) y^k`` with ``y = (2 - z - 1/z) / 4``, roots inside the circle.
    """
    inside = np.ones(1, np.complex128)
    polynomial = [math.comb(moments - 1 + k, k) for k in range(moments)]
    for y in np.roots(polynomial[::-1]):
        roots = np.roots([1, 4 * y - 2, 1])
        inside = np.convolve(inside, [1, -roots[np.argmin(np.abs(roots))]])
    for _ in range(moments):
        inside = np.convolve(inside, [1, 1])
    taps: NDArray[np.float64] = inside.real / np.linalg.norm(inside.real)
    return taps

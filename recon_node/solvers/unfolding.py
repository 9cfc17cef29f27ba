r"""Unfolding where all frames sample the same whole lines: exact inverses within ADMM.

With one set of lines for all frames, :math:`A^H A` is the same small matrix for every frame of an image
column along the phase encoding. Its inverses, made once, take the place of hundreds of gradient steps,
which hardly reach what is badly conditioned. ADMM after Boyd et al., Found Trends Mach Learn 3:1, 2011,
section 3.1.1 (scaled form), for

.. math:: \min_x \tfrac12\|A x - y\|^2 + \tfrac12 \sum_r w_r |x_r|^2 + R(x)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.core.errors import DataError
from recon_node.solvers.air import air_pull
from recon_node.solvers.operator import SenseOperator

PENALTY = 0.004
"""ADMM's penalty, in units of the largest eigenvalue of ``A^H A``."""
LARGEST_BYTES = 1 << 29
"""Inverses that need more memory than this are not made."""
AIR_AFTER = (8, 16, 30)
"""Iterations after which air is looked for (again): with fewer than the first there is no pull."""


def unfolds(maps: NDArray[np.complex64], mask: NDArray[np.bool_]) -> bool:
    """Whether the mask is one set of whole lines for all frames, and the inverses fit the memory.

    Parameters
    ----------
    maps : ndarray
        `(map, coil, y, x)` complex64.
    mask : ndarray
        `(frame, ky, kx)` bool.
    """
    sets, _, points, columns = maps.shape
    fits = 8 * columns * (sets * points) ** 2 <= LARGEST_BYTES
    return fits and bool((mask == mask[:1, :, :1]).all())


def unfold(
    matrix: Tensor,
    target: Tensor,
    regulariser: Callable[[float], Callable[[Tensor], Tensor]],
    *,
    air: float,
    iterations: int,
    start: Tensor,
) -> Tensor:
    """Minimise.

    Parameters
    ----------
    matrix : Tensor
        `normal_matrix` of maps and mask for which `unfolds` holds.
    target : Tensor
        `(frame, map, x, y)`, ``A^H y``, laid out as `SenseOperator` does.
    regulariser : callable
        Given a number, the proximal operator of `R` divided by it.
    air : float
        Strength of the pull towards zero in air, see `air_pull`; 0 leaves it out.
    iterations : int
        Number of ADMM iterations.
    start : Tensor
        First guess.

    Raises
    ------
    DataError
        If the matrix cannot be inverted, as of coil maps that are far too large.
    """
    proximal = regulariser(PENALTY)
    inverse = _inverse(matrix, None)
    split, dual = start, torch.zeros_like(start)
    for done in range(1, iterations + 1):
        dual = dual + _apply(inverse, target + PENALTY * (split - dual))
        split = proximal(dual)
        dual = dual - split
        if air > 0 and done in AIR_AFTER:
            inverse = _inverse(matrix, air_pull(split, air))
    return split


def normal_matrix(operator: SenseOperator, maps: NDArray[np.complex64], mask: NDArray[np.bool_]) -> Tensor:
    """``A^H A`` of one frame for every image column: `(x, map * y, map * y)` complex64."""
    coils = operator.from_grid(maps).permute(2, 1, 0, 3).flatten(2)
    sampled = torch.from_numpy(np.fft.ifftshift(mask[0, :, 0])).to(coils)
    points = len(sampled)
    places = torch.arange(points, device=coils.device).repeat(len(maps))
    response = torch.fft.ifft(sampled)[(places[:, None] - places[None]) % points]
    matrix: Tensor = (coils.mH @ coils) * response
    return matrix


def _inverse(matrix: Tensor, pull: Tensor | None) -> Tensor:
    shifted = matrix.clone()
    diagonal = shifted.diagonal(dim1=-2, dim2=-1)
    diagonal += PENALTY
    if pull is not None:
        diagonal += pull.repeat(1, diagonal.shape[1] // pull.shape[1])
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if bool(failed.any()):
        raise DataError(
            f"coil maps of a size of about {float(matrix.abs().max()) ** 0.5:.3g} cannot be unfolded with, "
            "expected a root sum of squares of 1: calibrate again"
        )
    return torch.cholesky_inverse(factor)


def _apply(inverse: Tensor, images: Tensor) -> Tensor:
    """A matrix for each image column, times all frames: `(frame, map, x, y)` to the same."""
    frames, maps, columns, points = images.shape
    unknowns = images.permute(2, 1, 3, 0).reshape(columns, maps * points, frames)
    solved = (inverse @ unknowns).reshape(columns, maps, points, frames)
    return solved.permute(3, 1, 0, 2).contiguous()

r"""Accelerated proximal gradients for :math:`\tfrac12\|A x - y\|^2 + R(x)`.

FISTA (Beck and Teboulle, SIAM J Imaging Sci 2:183, 2009) with the restart of O'Donoghue and Candes
(Found Comput Math 15:715, 2015). Coil maps of unit norm and an orthonormal transform make the largest
eigenvalue of :math:`A^H A` one, so the step is one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def fista(
    normal: Callable[[Tensor], Tensor],
    target: Tensor,
    proximal: Callable[[Tensor], Tensor],
    *,
    iterations: int,
    start: Tensor | None = None,
) -> Tensor:
    """Minimise.

    Parameters
    ----------
    normal : callable
        ``A^H A``, largest eigenvalue at most 1.
    target : Tensor
        ``A^H y``.
    proximal : callable
        Proximal operator of `R` for step 1.
    iterations : int
        Number of steps.
    start : Tensor, optional
        First guess; `target` if None.
    """
    x = target.clone() if start is None else start.clone()
    ahead, momentum = x, 1.0
    for _ in range(iterations):
        fresh = proximal(ahead - normal(ahead) + target)
        forward = fresh - x
        uphill = torch.sum(((ahead - fresh).conj() * forward).real)
        if bool(uphill > 0):
            momentum = 1.0
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = fresh + ((momentum - 1) / following) * forward
        x, momentum = fresh, following
    return x


def soft_threshold(x: Tensor, limit: Tensor | float) -> Tensor:
    """Complex soft thresholding: magnitudes less `limit`, phases kept."""
    size = x.abs()
    shrunk: Tensor = x * ((size - limit).clamp_min_(0) / size.clamp_min(1e-20))
    return shrunk

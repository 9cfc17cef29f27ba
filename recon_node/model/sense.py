r"""CG-SENSE: conjugate gradients on the regularised normal equations.

Pruessmann et al., Magn Reson Med 46:638 (2001):
:math:`(A^H A + \lambda I) x = A^H y`, solved per frame, all frames of a batch at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.core.types import CoilMaps, KSpace
from recon_node.model.hybrid import SenseOperator
from recon_node.model.iterative import Iterative
from recon_node.model.series import check_options


class Sense(Iterative):
    """CG-SENSE with Tikhonov regularisation; the fallback where a network is not to be believed.

    Parameters
    ----------
    iterations : int
        Most CG iterations.
    regularisation : float
        Weight of ``||x||^2`` beside ``||A x - y||^2``. Both are in the same units, so it does not
        depend on the scale of the data.
    tolerance : float
        A frame is done when its residual falls below this fraction of ``A^H y``.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """

    name = "sense"

    def __init__(
        self,
        *,
        iterations: int = 60,
        regularisation: float = 0.001,
        tolerance: float = 0.0,
        device: str = "auto",
    ) -> None:
        check_options("sense", iterations=iterations, regularisation=regularisation, tolerance=tolerance)
        self.iterations = iterations
        self.regularisation = regularisation
        self.tolerance = tolerance
        self.device = device

    @torch.inference_mode()
    def _images(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> NDArray[np.complex64]:
        operator = SenseOperator(maps.data, kspace.mask, device)
        images = conjugate_gradients(
            lambda x: operator.normal(x) + self.regularisation * x,
            operator.matched(kspace.data),
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
        return operator.to_grid(images)

    def _settings(self, unit: float) -> dict[str, Any]:
        return {
            "iterations": self.iterations,
            "regularisation": self.regularisation,
            "tolerance": self.tolerance,
        }


def conjugate_gradients(
    system: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    iterations: int,
    start: Tensor | None = None,
    tolerance: float = 0.0,
) -> Tensor:
    """Solve ``system(x) = target`` for each item of the first axis on its own.

    Parameters
    ----------
    system : callable
        Hermitian positive definite, acting on every item separately.
    target : Tensor
        `(item, ...)` complex.
    iterations : int
        Most iterations.
    start : Tensor, optional
        First guess; zero if None.
    tolerance : float
        Stop when every item's residual norm is below this fraction of its target's norm.

    Returns
    -------
    Tensor
        Like `target`.
    """
    x = torch.zeros_like(target) if start is None else start.clone()
    residual = target.clone() if start is None else target - system(start)
    direction = residual.clone()
    power = _power(residual)
    enough = tolerance**2 * _power(target)
    for _ in range(iterations):
        image = system(direction)
        curvature = torch.sum((direction.conj() * image).real, dim=_tail(image), keepdim=True)
        step = torch.where(curvature > 0, power / curvature.clamp_min(1e-30), 0)
        x += step * direction
        residual -= step * image
        fresh = _power(residual)
        if bool((fresh <= enough).all()):
            break
        direction = residual + torch.where(power > 0, fresh / power.clamp_min(1e-30), 0) * direction
        power = fresh
    return x


def _tail(x: Tensor) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def _power(x: Tensor) -> Tensor:
    return torch.sum(torch.view_as_real(x).square(), dim=(*_tail(x), x.ndim)).reshape(
        -1, *(1,) * (x.ndim - 1)
    )

"""Conjugate gradients for batches of Hermitian systems."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


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

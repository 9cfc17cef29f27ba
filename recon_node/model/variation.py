"""Total variation over time and space, as a proximal operator for iterative reconstructions."""

from __future__ import annotations

import torch
from torch import Tensor

_AXES = (0, -2, -1)
_STEP = 1 / (4 * len(_AXES))


class TotalVariation:
    """Proximal operator of ``temporal * |D_t x| + spatial * (|D_x x| + |D_y x|)``, summed magnitudes.

    `D` are differences of cyclic neighbours of a complex series. Projected gradients on the dual
    (Chambolle, J Math Imaging Vis 20:89, 2004), started from the dual variable of the call before:
    within an iterative reconstruction a few steps a call are enough.

    Parameters
    ----------
    temporal, spatial : float
        Weights in units of the series; 0 leaves the direction out.
    steps : int
        Dual steps per call.
    """

    def __init__(self, temporal: float, spatial: float, *, steps: int = 4) -> None:
        pairs = zip((temporal, spatial, spatial), _AXES, strict=True)
        self._terms = [(weight, axis) for weight, axis in pairs if weight > 0]
        self._steps = steps
        self._duals: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to a series `(frame, ..., x, y)`."""
        if not self._duals:
            self._duals = [torch.zeros_like(x) for _ in self._terms]
        for _ in range(self._steps):
            primal = self._primal(x)
            for dual, (weight, axis) in zip(self._duals, self._terms, strict=True):
                dual.add_(torch.roll(primal, -1, axis) - primal, alpha=_STEP)
                dual.mul_(weight / dual.abs().clamp_min_(weight))
        return self._primal(x)

    def _primal(self, x: Tensor) -> Tensor:
        out = x.clone()
        for dual, (_, axis) in zip(self._duals, self._terms, strict=True):
            out += dual
            out -= torch.roll(dual, 1, axis)
        return out

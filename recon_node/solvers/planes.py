"""Complex series as two real planes: arithmetic on these is several times as fast on CPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def to_planes(x: Tensor) -> Tensor:
    """Complex `(...)` as real `(2, ...)`: the real parts, then the imaginary ones."""
    return torch.stack([x.real, x.imag])


def from_planes(planes: Tensor) -> Tensor:
    """Undoes `to_planes`."""
    return torch.complex(planes[0], planes[1])


def in_planes(step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of planes as one of complex series."""
    return lambda x: from_planes(step(to_planes(x)))

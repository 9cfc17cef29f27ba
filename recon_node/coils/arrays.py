"""numpy on the CPU and torch on a GPU from one code: the few operations that the two spell differently.

Everything else in this package uses what both have in common (``@``, ``conj``, ``reshape``, ``swapaxes``,
``einsum``, ``linalg.eigh``, ...), through the module that `namespace` returns. torch is imported only where a
tensor came in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = Any
"""A numpy array or a torch tensor."""


def namespace(array: Array) -> Any:
    """The numpy or torch module, whichever `array` belongs to."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def is_tensor(array: object) -> bool:
    """Whether `array` is a torch tensor."""
    return type(array).__module__.partition(".")[0] == "torch"


def placed(array: NDArray[Any], device: Any) -> Array:
    """`array` itself for a CPU device, else a torch tensor there.

    Parameters
    ----------
    array : ndarray
    device : torch.device
    """
    if device.type == "cpu":
        return array
    import torch

    return torch.tensor(array, device=device)


def cast(array: Array, dtype: str) -> Array:
    """`array` with the dtype of that name."""
    xp = namespace(array)
    return array.astype(dtype, copy=False) if xp is np else array.to(getattr(xp, dtype))


def is_single(array: Array) -> bool:
    """Whether a complex array is in single precision."""
    return bool(array.dtype == namespace(array).complex64)


def beside(host: NDArray[Any], array: Array) -> Array:
    """`host` as an array of the kind, and on the device, of `array`."""
    xp = namespace(array)
    return host if xp is np else xp.as_tensor(host, device=array.device)


def to_host(array: Array) -> NDArray[Any]:
    """As a numpy array."""
    found: NDArray[Any] = array if namespace(array) is np else array.cpu().numpy()
    return found


def contiguous(array: Array) -> Array:
    """`array` in memory order."""
    return np.ascontiguousarray(array) if namespace(array) is np else array.contiguous()


def copied(array: Array) -> Array:
    """A copy of `array` in memory order."""
    return array.copy() if namespace(array) is np else array.clone()


def windows(array: Array, size: int) -> Array:
    """All `size` x `size` windows over the last two axes of `(coil, y, x)`: `(coil, y, x, size, size)`."""
    if namespace(array) is np:
        return sliding_window_view(array, (size, size), axis=(1, 2))
    return array.unfold(1, size, 1).unfold(2, size, 1)


def as_real(array: Array) -> Array:
    """Contiguous complex64 `(..., n)` as float32 `(..., 2 n)`, without a copy."""
    xp = namespace(array)
    if xp is np:
        return array.view(np.float32)
    return xp.view_as_real(array).reshape(*array.shape[:-1], 2 * array.shape[-1])


def as_complex(array: Array) -> Array:
    """Contiguous float32 `(..., 2 n)` as complex64 `(..., n)`, without a copy."""
    xp = namespace(array)
    if xp is np:
        return array.view(np.complex64)
    return xp.view_as_complex(array.reshape(*array.shape[:-1], array.shape[-1] // 2, 2))

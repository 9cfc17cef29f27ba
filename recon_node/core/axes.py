"""Checked freezing of arrays: rank, dtype and agreeing sizes, then read-only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from recon_node.core.errors import DataError


def frozen(name: str, value: Any, axes: str, dtype: DTypeLike, sizes: dict[str, int]) -> NDArray[Any]:
    """Return `value` as a read-only array, having checked it.

    Parameters
    ----------
    name : str
        Field name for the error message.
    value : array_like
        The array. It is not copied if it already has the right dtype; the returned view is
        read-only, the caller's own reference stays as it was.
    axes : str
        Axis names separated by blanks, for example ``"phase coil ky kx"``; a number is a fixed size.
    dtype : dtype
        The dtype the array must already have (no silent casts).
    sizes : dict
        Sizes of named axes seen so far in the same object; extended in place, so that two fields
        that share an axis name must agree.

    Raises
    ------
    DataError
        On a wrong rank, dtype, or a size that disagrees with an earlier field.
    """
    array = np.asarray(value)
    names = axes.split()
    if array.dtype != np.dtype(dtype):
        raise DataError(f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    if array.ndim != len(names):
        raise DataError(f"{name} has shape {array.shape}, expected axes ({', '.join(names)})")
    for axis, size in zip(names, array.shape, strict=True):
        wanted = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
        if size != wanted:
            raise DataError(f"{name} has shape {array.shape}: axis {axis} is {size}, expected {wanted}")
    view = array.view()
    view.flags.writeable = False
    return view

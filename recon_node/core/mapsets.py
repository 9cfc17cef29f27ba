"""Images of several coil map sets, and the one image that is shown of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def joined(parts: NDArray[Any]) -> NDArray[np.complex64]:
    """One image of those that belong to several coil map sets.

    Where the object is larger than the field of view, two of its pixels share one of the image's. The
    magnitude is the root of both powers, which is what all coils together receive from there and does not
    depend on how ESPIRiT happens to turn two map sets into each other; the phase is that of the sum.

    Parameters
    ----------
    parts : ndarray
        `(..., map, y, x)` complex.

    Returns
    -------
    ndarray
        `(..., y, x)` complex64; of a single set that set's image itself.
    """
    if parts.shape[-3] == 1:
        return np.asarray(parts[..., 0, :, :], np.complex64)
    total = parts.sum(axis=-3)
    size = np.sqrt(np.square(np.abs(parts)).sum(axis=-3))
    length = np.abs(total)
    turn = np.where(length > 0, total / np.where(length > 0, length, 1), 1)
    return np.asarray(size * turn, np.complex64)

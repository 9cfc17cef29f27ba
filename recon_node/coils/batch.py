"""Coil maps of several slices, on several cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from numpy.typing import ArrayLike

from recon_node.coils.espirit import espirit
from recon_node.core.types import CoilMaps


def espirit_slices(
    calibrations: Sequence[ArrayLike], shape: tuple[int, int], *, workers: int | None = None, **options: Any
) -> list[CoilMaps]:
    """`espirit` for every slice, slices side by side in threads.

    The linear algebra library must run one thread a slice (``OMP_NUM_THREADS=1``): the matrices are too
    small to be shared between threads, and threads that wait for each other cost more than they give.

    Parameters
    ----------
    calibrations : sequence of array_like
        One `(coil, ay, ax)` array a slice.
    shape : tuple of int
        `(y, x)` of the maps.
    workers : int, optional
        Slices at a time; None takes the number of cores.
    **options
        Keyword arguments of `espirit`.

    Returns
    -------
    list of CoilMaps
        In the order of `calibrations`.

    Raises
    ------
    CalibrationError
        Of the first slice that cannot be calibrated.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(partial(espirit, shape=shape, **options), calibrations))

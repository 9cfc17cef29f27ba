"""Maps beside the images, on the same grid: noise of parallel imaging, and the error to be expected."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.types import ImageSeries
from recon_node.images import finish
from recon_node.pipeline.result import Reconstruction
from recon_node.solvers.noise import g_factor, noise_deviation

log = logging.getLogger(__name__)

Floats = NDArray[np.floating[Any]]


def map_of(quantity: str, result: Reconstruction) -> ImageSeries | None:
    """One map of a slice, `(1, y, x)` at the recon matrix; None, with a line in the log, where there is none.

    Parameters
    ----------
    quantity : {"g-factor", "snr", "expected-error"}
        The first two are means over phases, and of SENSE.
    result : Reconstruction
        With images at the recon matrix.
    """
    try:
        found = _MAPS[quantity](result)
    except DataError as error:
        log.warning("slice %d has no %s map: %s", result.kspace.index.slice, quantity, error)
        return None
    images = result.images
    one: dict[str, Any] = {"trigger_times_ms": None, "rr_interval_ms": None, "parts": None}
    if images.acquisition_times_s is not None:
        one["acquisition_times_s"] = images.acquisition_times_s[:1]
    if quantity == "snr":
        return replace(images, data=(found[None]).astype(np.complex64), **one)
    grid = replace(images, data=found[None].astype(np.complex64), geometry=result.kspace.geometry, **one)
    return finish(grid, shape=(images.data.shape[-2], images.data.shape[-1]))


def _g_factor(result: Reconstruction) -> Floats:
    return np.asarray(g_factor(result.kspace, result.maps).mean(axis=0))


def _snr(result: Reconstruction) -> Floats:
    """Signal over noise at the recon matrix; interpolation keeps the noise of a pixel."""
    if not result.kspace.whitened:
        raise DataError("the noise level is not known")
    noise = noise_deviation(result.kspace, result.maps).mean(axis=0)
    images = result.images
    grid = replace(
        images, data=noise[None].astype(np.complex64), geometry=result.kspace.geometry, parts=None,
        trigger_times_ms=None, acquisition_times_s=None, rr_interval_ms=None,
    )  # fmt: skip
    shape = (images.data.shape[-2], images.data.shape[-1])
    there = np.abs(finish(grid, shape=shape).data[0])
    signal = np.abs(images.data).mean(axis=0)
    least = 0.05 * float(there.max())
    return np.asarray(np.divide(signal, there, out=np.zeros_like(signal), where=there > least))


def _expected_error(result: Reconstruction) -> Floats:
    found = result.verdict.error_map
    if found is None:
        raise DataError("nothing was held out of it")
    if result.verdict.verdict == "fallback":
        raise DataError("its image was withheld")
    return found


_MAPS: dict[str, Callable[[Reconstruction], Floats]] = {
    "g-factor": _g_factor,
    "snr": _snr,
    "expected-error": _expected_error,
}

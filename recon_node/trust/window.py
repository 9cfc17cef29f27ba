"""A few neighbouring image columns of many phases, where few phases say too little.

Where every phase samples other lines, a method that shares them between phases makes better images of a
whole cine than of a few of its phases, and what few phases say of held-out lines says little of the whole.
Whole readout lines leave every image column a problem of its own (`recon_node.trust.decimation`), so more
phases can be had for the price of fewer columns: those in which most moves, side by side, for methods that
look at neighbours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.trust.decimation import whole_lines
from recon_node.trust.phases import is_still, middle_phases
from recon_node.trust.prediction import powers

PHASES = 12
"""Phases that are looked at where each samples other lines."""
LEAST_COLUMNS = 32
"""Columns below which a method that looks at neighbours has too few."""
_STILL = 1e-3
"""Weight of what does not move, in the choice of columns."""


def window_of(kspace: KSpace, images: NDArray[np.complex64], frames: int) -> slice | None:
    """The columns to look at, for the price of all columns of `frames` phases.

    Parameters
    ----------
    kspace : KSpace
    images : ndarray
        `(phase, y, x)` complex64 of it.
    frames : int

    Returns
    -------
    slice or None
        None where all phases sample the same lines, single points were sampled, or it would be too few
        columns or no more phases.
    """
    phases, width = min(len(images), PHASES), images.shape[2]
    kept = 2 * round(frames * width / phases / 2)
    if is_still(kspace) or phases <= frames or kept < LEAST_COLUMNS or not whole_lines(kspace.mask):
        return None
    moving = powers(images - images.mean(axis=0)) + _STILL * powers(images)
    profile = np.cumsum(np.concatenate([[0.0], moving.sum(axis=(0, 1), dtype=np.float64)]))
    first = int(np.argmax(profile[kept:] - profile[:-kept]))
    return slice(first, first + kept)


def kspace_within(kspace: KSpace, window: slice) -> KSpace:
    """The middle `PHASES` phases, of an image of these columns alone; noise keeps its variance."""
    part, width = middle_phases(kspace, PHASES), window.stop - window.start
    lines = part.mask[:, :, :1]
    mask = np.ascontiguousarray(np.broadcast_to(lines, (*lines.shape[:2], width)))
    data = np.zeros((*part.data.shape[:3], width), np.complex64)
    for samples, sampled, made in zip(part.data, mask, data, strict=True):
        rows = np.flatnonzero(sampled[:, 0])
        columns = centred_ifft(samples[:, rows], axes=(-1,))[..., window]
        made[:, rows] = centred_fft(columns, axes=(-1,))
    return replace(part, data=data, mask=mask, sampling=replace(part.sampling, acs_kx=(0, 0)))


def maps_within(maps: CoilMaps, window: slice) -> CoilMaps:
    """Coil maps of these columns."""
    data = np.ascontiguousarray(maps.data[..., window])
    return replace(maps, data=data, support=np.ascontiguousarray(maps.support[..., window]))


def images_within(images: ImageSeries, window: slice) -> ImageSeries:
    """Images of these columns, all phases."""
    parts = None if images.parts is None else np.ascontiguousarray(images.parts[..., window])
    return replace(images, data=np.ascontiguousarray(images.data[..., window]), parts=parts)


def beyond_window(few: NDArray[np.float32], window: slice, width: int) -> NDArray[np.float32]:
    """A map `(y, x)` of these columns drawn out to all: beside them each row has its root mean square."""
    usual = np.sqrt(np.mean(np.square(few), axis=1, keepdims=True))
    whole = np.broadcast_to(usual, (len(few), width)).copy()
    whole[:, window] = few
    return whole

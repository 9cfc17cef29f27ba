"""In which order, when and with which flags a scanner acquires the lines of a slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER, TIME_STAMP_UNIT_MS, AcquisitionFlag
from recon_node.simulate.masks import acs_range

Heads = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Clock of one breath-hold."""

    start_ms: float
    """Since midnight."""
    rr_ms: float
    tr_ms: float
    trigger_ms: tuple[float, ...]
    """Begin of each phase after the R wave."""
    gated: bool
    """Phases follow the R wave within a beat; otherwise each phase takes a beat of its own."""


def order_lines(mask: NDArray[np.bool_], timing: Timing) -> tuple[NDArray[np.intp], ...]:
    """Segmented order: in every beat a few lines of each phase.

    Parameters
    ----------
    mask : numpy.ndarray
        `(phase, ky, kx)` bool.
    timing : Timing

    Returns
    -------
    phase, line, beat, turn : numpy.ndarray
        Four `(acquisition,)` arrays; `turn` counts the lines of a phase within a beat.
    """
    lines = [np.flatnonzero(m) for m in np.asarray(mask.any(axis=2))]
    window = timing.rr_ms / max(len(lines), 1)
    segment = max(1, int(window / timing.tr_ms)) if timing.gated else max(map(len, lines), default=1)
    rows = []
    for phase, found in enumerate(lines):
        for k, line in enumerate(found):
            beat = k // segment if timing.gated else phase
            rows.append((beat, phase, k % segment, line))
    table = np.array(sorted(rows), dtype=np.intp).reshape(-1, 4)
    return table[:, 1], table[:, 3], table[:, 0], table[:, 2]


def acquisition_heads(
    mask: NDArray[np.bool_], timing: Timing, *, acs: int, slice_number: int, slices: int, grid: int = 1
) -> Heads:
    """Headers of one slice in the order of acquisition; counters, flags and time stamps are set.

    Parameters
    ----------
    mask : numpy.ndarray
        `(phase, ky, kx)` bool.
    timing : Timing
    acs : int
        Central lines flagged as calibration, and as imaging where they lie on the grid; 0 for none.
    slice_number, slices : int
        Which slice of how many.
    grid : int
        Every how manieth line is one of the accelerated image, from line 0. Scanners flag the others of the
        central block as calibration only: a reconstruction that fills a regular grid must not take them.
    """
    phase, line, beat, turn = order_lines(mask, timing)
    heads = np.zeros(len(phase), ACQUISITION_HEADER)
    heads["version"] = 1
    heads["idx"]["kspace_encode_step_1"] = line
    heads["idx"]["phase"] = phase
    heads["idx"]["slice"] = slice_number
    since_wave = np.asarray(timing.trigger_ms)[phase] + turn * timing.tr_ms
    heads["physiology_time_stamp"][:, 0] = np.rint(since_wave / TIME_STAMP_UNIT_MS)
    wave = np.rint((timing.start_ms + beat * timing.rr_ms) / TIME_STAMP_UNIT_MS)
    heads["acquisition_time_stamp"] = wave + heads["physiology_time_stamp"][:, 0]
    heads["flags"] = _flags(phase, line, acs_range(mask.shape[1], acs), grid, slice_number, slices)
    return heads


def _flags(
    phase: NDArray[np.intp], line: NDArray[np.intp], acs: slice, grid: int, slice_number: int, slices: int
) -> NDArray[np.uint64]:
    flag = AcquisitionFlag
    flags = np.zeros(len(phase), np.uint64)

    def put(where: NDArray[np.bool_] | NDArray[np.intp] | int, value: int) -> None:
        flags[where] |= np.uint64(value)

    central = (line >= acs.start) & (line < acs.stop)
    put(central & (line % grid == 0), flag.IS_PARALLEL_CALIBRATION_AND_IMAGING)
    put(central & (line % grid != 0), flag.IS_PARALLEL_CALIBRATION)
    first = np.unique(phase, return_index=True)[1]
    last = len(phase) - 1 - np.unique(phase[::-1], return_index=True)[1]
    put(first, flag.FIRST_IN_PHASE | flag.FIRST_IN_ENCODE_STEP1)
    put(last, flag.LAST_IN_PHASE | flag.LAST_IN_ENCODE_STEP1)
    put(0, flag.FIRST_IN_SLICE)
    put(-1, flag.LAST_IN_SLICE)
    if slice_number == 0:
        put(0, flag.FIRST_IN_REPETITION)
    if slice_number == slices - 1:
        put(-1, flag.LAST_IN_REPETITION | flag.LAST_IN_MEASUREMENT)
    return flags

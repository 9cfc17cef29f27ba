"""Whether phases stand in the order that their own time stamps say they were acquired in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import KSpace

LEAST_SPAN_MS = 200.0
"""Between the earliest and the latest phase: closer ones are the same moment of several heartbeats."""
EVEN = 1.6
"""Longest over shortest step between the phases of one heartbeat, up to which none is missing there."""
NEAR = 0.75
"""Of the median step: how far after the R wave the first phase lies where none was left out before it."""
BACK = 0.5
"""Of the median step: smaller steps back are scatter of the stamps."""


def order_doubts(kspace: KSpace) -> list[str]:
    """What is to be said where phases are counted in another order than they were acquired in.

    Times after the R wave rise from phase to phase, or, of a real-time series, from each heartbeat's first
    frame on. Where they do not, and the times of day do not rise either, the counter of the phases is wrong.

    Parameters
    ----------
    kspace : KSpace
        Its `trigger_times_ms` and `acquisition_times_s` are looked at.

    Returns
    -------
    list of str
        A sentence, or nothing: also where the phases have no stamps.
    """
    times = np.asarray(kspace.trigger_times_ms or (), float)
    if len(times) < 3 or not np.isfinite(times).all() or np.ptp(times) < LEAST_SPAN_MS:
        return []
    steps = np.diff(times)
    usual = float(np.median(np.abs(steps)))
    back = np.flatnonzero(steps < -BACK * usual)
    acquired = np.asarray(kspace.acquisition_times_s or (), float)
    if not len(back) or (len(acquired) and bool((np.diff(acquired) >= 0).all())):
        return []
    beats = np.split(times, back + 1)
    if _over_the_r_wave(beats, usual) or (not len(acquired) and _heartbeats(beats)):
        return []
    first = int(back[0])
    said = (
        "by their time stamps the phases were acquired in another order than they are counted in: phase "
        f"{first + 1} lies {times[first]:.0f} ms after the R wave, phase {first + 2} {times[first + 1]:.0f}"
    )
    return [said]


def _over_the_r_wave(beats: list[NDArray[np.float64]], usual: float) -> bool:
    """Whether the first or the last phase was filled from lines beyond the R wave: others leave its place."""
    if len(beats) != 2:
        return False
    before, after = beats
    first = len(before) == 1 and before[0] > after.max() and after[0] > NEAR * usual
    last = len(after) == 1 and after[0] < before[0] < NEAR * usual
    return bool(first or last)


def _heartbeats(beats: list[NDArray[np.float64]]) -> bool:
    """Whether these are frames of several heartbeats: each from its R wave on, at even steps."""
    steps = np.concatenate([np.diff(beat) for beat in beats])
    if not len(steps):
        return False
    usual = float(steps.min())
    start = min(float(beat[0]) for beat in beats)
    return bool(
        steps.max() <= EVEN * usual
        and all(beat[0] <= start + EVEN * usual for beat in beats[1:])
        and beats[0].min() <= max(float(beat.max()) for beat in beats[1:])
    )

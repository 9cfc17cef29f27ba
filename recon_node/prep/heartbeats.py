"""R waves and RR intervals, from time stamps of readouts or from ECG waveforms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.scan import Waveform
from recon_node.prep.timing import LONGEST_RR_MS, SHORTEST_RR_MS

TRIGGERING = (0, 1, 3, 4)
"""Waveform ids that can carry triggers, in their last channel: ECG, pulse, two external ones; the first of
these that has any is used."""
TRIGGER_BIT = 1 << 14
"""Set in the trigger channel at the sample of an R wave (Siemens convention kept by the converters)."""
FEWEST_BEATS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heartbeats:
    """When the heart beat during a run of readouts."""

    waves_ms: NDArray[np.float64]
    """`(beat,)` times of the R waves, ascending, on the clock of the acquisition time stamps."""
    intervals_ms: NDArray[np.float64]
    """`(beat,)` to the next R wave; the median where the next one was not seen."""
    regular: NDArray[np.bool_]
    """`(beat,)` False for beats that arrhythmia rejection leaves out."""

    @property
    def median_ms(self) -> float:
        """Median RR interval of the regular beats."""
        return float(np.median(self.intervals_ms[self.regular]))


def heartbeats(waves_ms: NDArray[np.float64], tolerance: float) -> Heartbeats | None:
    """Beats from the times of R waves.

    A beat is irregular when its interval differs from the median by more than `tolerance` (a fraction).
    An interval too long for a heartbeat is a pause of the scan: the beat before it counts as regular,
    with the median interval.

    Returns
    -------
    Heartbeats or None
        None with fewer than two beats, or no believable interval between them.
    """
    waves = np.sort(waves_ms)
    waves = waves[np.r_[True, np.diff(waves) > SHORTEST_RR_MS / 2]] if len(waves) else waves
    if len(waves) < FEWEST_BEATS:
        return None
    found = np.diff(waves)
    believable = (found >= SHORTEST_RR_MS) & (found <= LONGEST_RR_MS)
    if not believable.any():
        return None
    median = float(np.median(found[believable]))
    paused = np.r_[found > max(1.8 * median, LONGEST_RR_MS), True]
    intervals = np.where(paused, median, np.r_[found, median])
    regular = np.abs(intervals - median) <= tolerance * median
    return Heartbeats(waves_ms=waves, intervals_ms=intervals, regular=regular)


def waves_of_stamps(
    clock: NDArray[np.integer], physiology: NDArray[np.integer], unit_ms: float = TIME_STAMP_UNIT_MS
) -> NDArray[np.float64]:
    """Times of the R waves that readouts refer to, in ms: clock minus time after the R wave."""
    ticks = np.unique(clock.astype(np.int64) - physiology.astype(np.int64))
    return np.asarray(ticks * unit_ms, dtype=np.float64)


def waves_of_waveforms(waveforms: list[Waveform], unit_ms: float = TIME_STAMP_UNIT_MS) -> NDArray[np.float64]:
    """Times of the R waves that the trigger channel of a waveform marks, in ms."""
    for wanted in TRIGGERING:
        times = [_marked(waveform, unit_ms) for waveform in waveforms if waveform.waveform_id == wanted]
        if any(len(found) for found in times):
            return np.concatenate(times)
    return np.zeros(0)


def _marked(waveform: Waveform, unit_ms: float) -> NDArray[np.float64]:
    if not waveform.data.size:
        return np.zeros(0)
    marked = np.flatnonzero(waveform.data[-1] & TRIGGER_BIT)
    return np.asarray(waveform.time_stamp * unit_ms + marked * waveform.sample_time_us / 1000)

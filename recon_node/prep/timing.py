"""Times of cardiac phases from the time stamps of their lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.prep.clock import Clock, unwrapped

SHORTEST_RR_MS, LONGEST_RR_MS = 250.0, 2500.0


def trigger_times_ms(
    stamps: NDArray[Any], seen: NDArray[np.bool_], unit_ms: float | None = TIME_STAMP_UNIT_MS
) -> tuple[float, ...] | None:
    """Median time after the R wave of each phase, in ms.

    Parameters
    ----------
    stamps : ndarray
        `(phase, line)` physiology time stamps.
    seen : ndarray
        `(phase, line)` bool: which lines were acquired.
    unit_ms : float, optional
        That the stamps count in.

    Returns
    -------
    tuple of float or None
        None without physiology (all stamps zero), or where nothing tells the unit.
    """
    if unit_ms is None or not np.any(stamps[seen]):
        return None
    return tuple(
        float(np.median(row[lines])) * unit_ms if lines.any() else float("nan")
        for row, lines in zip(stamps, seen, strict=True)
    )


def acquisition_times_s(
    stamps: NDArray[np.uint32], seen: NDArray[np.bool_], clock: Clock | None = None
) -> tuple[float, ...] | None:
    """Time of the first line of each phase, in s after midnight of the day on which the slice began.

    None without time stamps, or where they do not count from midnight.
    """
    clock = clock or Clock()
    if clock.unit_ms is None or not clock.of_day or not np.any(stamps[seen]):
        return None
    whole = unwrapped(np.where(seen, stamps, 0), clock.unit_ms)
    return tuple(
        float(row[lines].min()) * clock.unit_ms / 1000 + clock.shift_s if lines.any() else float("nan")
        for row, lines in zip(whole, seen, strict=True)
    )


def rr_interval_ms(
    stamps: NDArray[np.uint32],
    physiology: NDArray[np.uint32],
    seen: NDArray[np.bool_],
    clock: Clock | None = None,
) -> float | None:
    """Median RR interval in ms, from the R waves that clock minus time after the R wave gives.

    None with fewer than two beats, or without physiology.
    """
    clock = clock or Clock()
    if clock.unit_ms is None or clock.physiology_ms is None:
        return None
    if not np.any(physiology[seen]) or not np.any(stamps[seen]):
        return None
    whole = unwrapped(np.where(seen, stamps, 0), clock.unit_ms)
    waves = np.unique(whole[seen] * clock.unit_ms - physiology[seen].astype(np.int64) * clock.physiology_ms)
    beats = waves[np.r_[True, np.diff(waves) > SHORTEST_RR_MS / 2]]
    intervals = np.diff(beats)
    believable = intervals[(intervals >= SHORTEST_RR_MS) & (intervals <= LONGEST_RR_MS)]
    return float(np.median(believable)) if len(believable) else None

"""Times of cardiac phases from the time stamps of their lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS

SHORTEST_RR_MS, LONGEST_RR_MS = 250.0, 2500.0


def trigger_times_ms(stamps: NDArray[Any], seen: NDArray[np.bool_]) -> tuple[float, ...] | None:
    """Median time after the R wave of each phase, in ms.

    Parameters
    ----------
    stamps : ndarray
        `(phase, line)` physiology time stamps, units of 2.5 ms.
    seen : ndarray
        `(phase, line)` bool: which lines were acquired.

    Returns
    -------
    tuple of float or None
        None without physiology (all stamps zero).
    """
    if not np.any(stamps[seen]):
        return None
    return tuple(
        float(np.median(row[lines])) * TIME_STAMP_UNIT_MS if lines.any() else float("nan")
        for row, lines in zip(stamps, seen, strict=True)
    )


def acquisition_times_s(stamps: NDArray[np.uint32], seen: NDArray[np.bool_]) -> tuple[float, ...] | None:
    """Time of the first line of each phase, in s after midnight; None without time stamps."""
    if not np.any(stamps[seen]):
        return None
    return tuple(
        float(row[lines].min()) * TIME_STAMP_UNIT_MS / 1000 if lines.any() else float("nan")
        for row, lines in zip(stamps, seen, strict=True)
    )


def rr_interval_ms(
    clock: NDArray[np.uint32], physiology: NDArray[np.uint32], seen: NDArray[np.bool_]
) -> float | None:
    """Median RR interval in ms, from the R waves that clock minus time after the R wave gives.

    None with fewer than two beats, or without physiology.
    """
    if not np.any(physiology[seen]) or not np.any(clock[seen]):
        return None
    waves = np.unique(clock[seen].astype(np.int64) - physiology[seen].astype(np.int64))
    beats = waves[np.r_[True, np.diff(waves) * TIME_STAMP_UNIT_MS > SHORTEST_RR_MS / 2]]
    intervals = np.diff(beats) * TIME_STAMP_UNIT_MS
    believable = intervals[(intervals >= SHORTEST_RR_MS) & (intervals <= LONGEST_RR_MS)]
    return float(np.median(believable)) if len(believable) else None

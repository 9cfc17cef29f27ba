"""What the time stamps of a scan count: their unit, and whether from midnight.

ISMRMRD's stamps count 2.5 ms from midnight; converters were seen to write milliseconds, or to start at the
scan. The study's own time and the repetition time tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import time, timedelta

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.scan import ScanHeader

DAY_S = 86400.0
UNITS_MS = (TIME_STAMP_UNIT_MS, 1.0, 0.1, 10.0, 0.001)
"""Units that stamps may count in, the usual first."""
_BEFORE_S, _AFTER_S = 1800.0, 6 * 3600.0
"""A series is acquired at most this long before (clocks differ) and after the time of its study."""
_USUAL_S = 3 * 3600.0
"""After the study's time, up to which the usual unit is not doubted."""
_FEWEST = 8
"""Lines by whose distance in time a unit may be told."""
_CLOSE = 0.2
_COUPLED = 0.05
"""Relative differences within which times agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How to read time stamps."""

    unit_ms: float | None = TIME_STAMP_UNIT_MS
    """Of acquisition time stamps; None where nothing tells."""
    physiology_ms: float | None = TIME_STAMP_UNIT_MS
    """Of physiology time stamps."""
    of_day: bool = True
    """Whether stamps count from midnight."""
    shift_s: float = 0.0
    """To be added for the local time, where stamps are in universal time."""
    notes: tuple[str, ...] = ()


def read_clock(
    header: ScanHeader, stamps: NDArray[np.integer], physiology: NDArray[np.integer] | None = None
) -> Clock:
    """How to read the stamps of one slice.

    Parameters
    ----------
    header : ScanHeader
        Study and series time, repetition time.
    stamps, physiology : ndarray
        `(line,)` time stamps of its lines, in any order.
    """
    order = np.argsort(stamps, kind="stable")
    clock = _clock(header, stamps[order].astype(np.int64))
    if physiology is None or clock.unit_ms is None:
        return clock
    unit = _physiology_unit(stamps[order].astype(np.int64), physiology[order].astype(np.int64), clock.unit_ms)
    if unit == clock.unit_ms:
        return clock
    note = f"physiology time stamps count {unit:g} ms, acquisition time stamps {clock.unit_ms:g} ms"
    return Clock(
        unit_ms=clock.unit_ms,
        physiology_ms=unit,
        of_day=clock.of_day,
        shift_s=clock.shift_s,
        notes=(*clock.notes, note),
    )


def unwrapped(stamps: NDArray[np.integer], unit_ms: float) -> NDArray[np.int64]:
    """Stamps that go on over midnight, where the counter began again."""
    day = round(1000 * DAY_S / unit_ms)
    out = stamps.astype(np.int64)
    known = out[out > 0]
    if len(known) and int(np.ptp(known)) > day // 2:
        out = np.where((out > 0) & (out < day // 2), out + day, out)
    return np.asarray(out)


def _clock(header: ScanHeader, stamps: NDArray[np.int64]) -> Clock:
    """From sorted stamps."""
    known = stamps[stamps > 0]
    if not len(known):
        return Clock()
    first = float(known[0])
    said = list(_times(header))
    by_repetition = _unit_by_repetition(header, known)
    if not said:
        return _without_study_time(first, by_repetition)
    found = [
        (away, unit, shift)
        for unit in UNITS_MS
        for at, shift in said
        if first * unit / 1000 < DAY_S and (away := _away(first * unit / 1000, at)) is not None
    ]
    usual = [one for one in found if one[1] == TIME_STAMP_UNIT_MS and one[0] <= _USUAL_S]
    if found:
        _, unit, shift = min(usual or found)
        return _told(Clock(unit_ms=unit, physiology_ms=unit, shift_s=shift), "the study's time")
    fallback = TIME_STAMP_UNIT_MS if first * TIME_STAMP_UNIT_MS / 1000 < DAY_S else None
    unit_ms = by_repetition or fallback
    note = "time stamps contradict the time of the study: no acquisition times are given"
    clock = Clock(unit_ms=unit_ms, physiology_ms=unit_ms, of_day=False, notes=(note,))
    return _told(clock, "the repetition time")


def _without_study_time(first: float, by_repetition: float | None) -> Clock:
    unit = by_repetition or TIME_STAMP_UNIT_MS
    if first * unit / 1000 < DAY_S:
        return _told(Clock(unit_ms=unit, physiology_ms=unit), "the repetition time")
    if first / 1000 < DAY_S:
        return _told(Clock(unit_ms=1.0, physiology_ms=1.0), "a day's length")
    note = "time stamps are longer than a day, whatever they count: no times are given"
    return Clock(unit_ms=None, physiology_ms=None, of_day=False, notes=(note,))


def _told(clock: Clock, by: str) -> Clock:
    """With a note where the unit is not the usual one."""
    notes = clock.notes
    if clock.unit_ms is not None and clock.unit_ms != TIME_STAMP_UNIT_MS:
        notes = (f"time stamps count {clock.unit_ms:g} ms, not 2.5 ms, by {by}", *notes)
    if clock.shift_s:
        notes = (f"time stamps are {clock.shift_s / 3600:+g} h off the study's time zone", *notes)
    return Clock(
        unit_ms=clock.unit_ms,
        physiology_ms=clock.physiology_ms,
        of_day=clock.of_day,
        shift_s=clock.shift_s,
        notes=notes,
    )


def _away(seconds: float, at: float) -> float | None:
    """Distance of a time of day from that of the study, across midnight; None where it is too large."""
    after = (seconds - at + DAY_S / 2) % DAY_S - DAY_S / 2
    return abs(after) if -_BEFORE_S <= after <= _AFTER_S else None


def _times(header: ScanHeader) -> Iterator[tuple[float, float]]:
    """Times of series and study in s after midnight; with a zone also in universal time, and the shift."""
    for text in (header.study.series_time, header.study.study_time):
        at = parsed_time(text)
        if at is None:
            continue
        seconds = at.hour * 3600 + at.minute * 60 + at.second + at.microsecond / 1e6
        yield seconds, 0.0
        offset = at.utcoffset() or timedelta()
        if offset:
            yield (seconds - offset.total_seconds()) % DAY_S, offset.total_seconds()


def parsed_time(text: str | None) -> time | None:
    """A time as XML Schema or DICOM write it, also behind a date; None where it is none."""
    if not text:
        return None
    try:
        return time.fromisoformat(re.sub(r"^\d{4}-?\d{2}-?\d{2}T", "", text.strip()))
    except ValueError:
        return None


def _unit_by_repetition(header: ScanHeader, stamps: NDArray[np.int64]) -> float | None:
    """The unit in which lines follow each other by the repetition time; None where none does."""
    if len(stamps) < _FEWEST or not header.tr_ms or not header.tr_ms[0] > 0:
        return None
    steps = np.diff(stamps)
    steps = steps[steps < 100 * max(1.0, float(np.median(steps)))]
    mean = float(steps.mean()) if len(steps) else 0.0
    fits = [unit for unit in UNITS_MS if abs(mean * unit / header.tr_ms[0] - 1) < _CLOSE]
    return fits[0] if fits else None


def _physiology_unit(stamps: NDArray[np.int64], physiology: NDArray[np.int64], unit_ms: float) -> float:
    """The unit in which time after the R wave passes as fast as the clock's."""
    passed, since = np.diff(stamps), np.diff(physiology)
    beat = since >= 0
    total = int(passed[beat].sum())
    if beat.sum() < _FEWEST or total <= 0 or not since[beat].any():
        return unit_ms
    rate = int(since[beat].sum()) / total
    return next((unit for unit in UNITS_MS if abs(rate * unit / unit_ms - 1) < _COUPLED), unit_ms)

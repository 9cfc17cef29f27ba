"""Retrospective gating: readouts of several heartbeats, sorted into phases of one.

The readouts of a slice are held until the scan goes on to another one, since an RR interval is only
known at its end; then their phase counters are set and they are passed on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.choices import Fill, RWaves
from recon_node.core.errors import DataError
from recon_node.core.scan import Limit, Readouts, ScanHeader, Waveform
from recon_node.prep.clock import Clock, read_clock, unwrapped
from recon_node.prep.ecg import waves_of_ecg
from recon_node.prep.heartbeats import Heartbeats, heartbeats, waves_of_stamps, waves_of_waveforms
from recon_node.prep.kinds import Kind, kinds
from recon_node.prep.slices import LAST

_SOURCES: dict[str, str] = {
    "stamps": "physiology time stamps that count from the R wave",
    "triggers": "a waveform with trigger marks",
    "ecg": "an ECG trace in which beats stand out",
}
"""Where R waves may come from, in the order in which they are tried."""
_LATE = 1.05
"""Cardiac phase up to which a readout still belongs to its beat."""


def gated_headers(headers: Sequence[ScanHeader], phases: int) -> tuple[ScanHeader, ...]:
    """Headers whose limits announce the phases of the gating; averages and segments lose theirs."""
    limit = Limit(minimum=0, maximum=phases - 1, center=0)
    kept = [
        {n: v for n, v in header.limits.items() if n not in ("average", "segment")} | {"phase": limit}
        for header in headers
    ]
    return tuple(dataclasses.replace(h, limits=limits) for h, limits in zip(headers, kept, strict=True))


class RetrospectiveGating:
    """Sets the phase counters of imaging readouts from the heartbeats.

    Parameters
    ----------
    phases : int
        Phases to sort into, evenly spaced over the RR interval.
    tolerance : float
        Beats whose interval differs by more than this fraction from the median are left out.
    fill : {"none", "share", "interpolate"}
        Lines that no readout of a phase measured: left missing; shared from the nearest phase in time; or
        every line interpolated linearly between the nearest readouts before and after the phase's middle,
        around the cycle.
    r_waves : {"auto", "stamps", "triggers", "ecg"}
        Where R waves come from: physiology time stamps, trigger marks of a waveform, or the trace of an ECG;
        ``auto`` takes the first of these that gives heartbeats.
    """

    def __init__(
        self, phases: int, *, tolerance: float = 0.2, fill: Fill = "none", r_waves: RWaves = "auto"
    ) -> None:
        self.phases = phases
        self._sources = list(_SOURCES) if r_waves == "auto" else [r_waves]
        self._tolerance = tolerance
        self._fill = fill
        self._held: dict[tuple[int, ...], list[Readouts]] = {}
        self._waveforms: list[Waveform] = []
        self._notes: list[str] = []
        self.header: ScanHeader | None = None
        """Of the scan, whose times tell what the time stamps count."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Beats and readouts used and rejected, slice by slice."""
        return tuple(self._notes)

    def feed(self, block: Readouts | Waveform) -> list[Readouts]:
        """Readouts ready to be sorted: calibration and others at once, imaging ones slice by slice."""
        if isinstance(block, Waveform):
            self._waveforms.append(block)
            return []
        kind = kinds(block.head["flags"])
        imaging = (kind == Kind.IMAGING) | (kind == Kind.BOTH)
        out = [block.select(~imaging)] if not imaging.all() else []
        if imaging.any():
            self._hold(block.select(imaging))
            *left, _ = self._held
            out += [self._gated(key) for key in left]
        return out

    def finish(self) -> list[Readouts]:
        """The readouts of every slice, gated.

        Raises
        ------
        DataError
            No heartbeats: neither physiology time stamps, nor a waveform with triggers, nor an ECG in which
            beats stand out.
        """
        return [self._gated(key) for key in list(self._held)]

    def _hold(self, block: Readouts) -> None:
        idx = block.head["idx"]
        names = ("slice", "contrast", "set", "repetition")
        keys = np.stack([block.head["encoding_space_ref"], *(idx[name] for name in names)], axis=1)
        _, first, groups = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        for group in np.argsort(first, kind="stable"):
            mine = groups.reshape(-1) == group
            key = tuple(keys[mine][0].tolist())
            self._held[key] = [*self._held.pop(key, []), block.select(mine)]  # latest slice last

    def _gated(self, key: tuple[int, ...]) -> Readouts:
        blocks = self._held.pop(key)
        held = Readouts(
            head=np.concatenate([block.head for block in blocks]),
            samples=np.concatenate([block.samples for block in blocks]),
        )
        beats, times, source = self._beats(held.head)
        cardiac, beat, good = _cardiac_phase(beats, times)
        self._report(key, beats, good, source)
        head = held.head.copy()
        head["idx"]["phase"] = np.minimum(cardiac * self.phases, self.phases - 1)
        head["idx"]["average"], head["idx"]["segment"] = beat, 0
        head["physiology_time_stamp"][:, 0] = np.rint(
            (times - beats.waves_ms[beat]) / TIME_STAMP_UNIT_MS
        ).clip(0)
        head["acquisition_time_stamp"] = np.rint(times / TIME_STAMP_UNIT_MS)
        head["flags"] &= np.uint64(~int(LAST) & (2**64 - 1))
        gated, cardiac = Readouts(head=head[good], samples=held.samples[good]), cardiac[good]
        if self._fill == "interpolate":
            gated = _interpolated(gated, cardiac, self.phases)
        elif self._fill == "share":
            gated = _with_shared(gated, cardiac, self.phases)
        return _ended(gated)

    def _beats(self, head: NDArray[Any]) -> tuple[Heartbeats, NDArray[np.float64], str]:
        """Beats, the time of each readout in ms on their clock, and where the beats come from."""
        clock = read_clock(self.header, head["acquisition_time_stamp"]) if self.header else Clock()
        unit = clock.unit_ms or TIME_STAMP_UNIT_MS
        stamps = unwrapped(head["acquisition_time_stamp"], unit)
        times = stamps.astype(np.float64) * unit
        for source in self._sources:
            beats = heartbeats(self._waves(source, head, stamps, unit), self._tolerance)
            if beats is not None:
                return beats, times, source
        expected = ", or ".join(_SOURCES[source] for source in self._sources)
        raise DataError(f"retrospective gating found fewer than two heartbeats: expected {expected}")

    def _waves(
        self, source: str, head: NDArray[Any], stamps: NDArray[np.int64], unit: float
    ) -> NDArray[np.float64]:
        """Times of R waves in ms; none where that source has none."""
        physiology = head["physiology_time_stamp"][:, 0]
        if source == "stamps":
            seen = physiology.any()
            return waves_of_stamps(stamps, physiology, unit) if seen else np.zeros(0)
        return (
            waves_of_waveforms(self._waveforms, unit)
            if source == "triggers"
            else waves_of_ecg(self._waveforms)
        )

    def _report(self, key: tuple[int, ...], beats: Heartbeats, good: NDArray[np.bool_], source: str) -> None:
        irregular = beats.intervals_ms[~beats.regular]
        text = (
            f"slice {key[1]}: gated retrospectively over {int(beats.regular.sum())} beats of "
            f"{beats.median_ms:.0f} ms, {int(good.sum())} of {len(good)} readouts used"
        )
        if len(irregular):
            intervals = ", ".join(f"{value:.0f}" for value in irregular)
            text += f"; {len(irregular)} beats rejected as irregular (RR {intervals} ms)"
        if source == "ecg":
            text += "; R waves found in the ECG's trace, which has no trigger marks"
        if self._fill == "interpolate":
            text += "; lines interpolated in time, with less noise than measured ones"
        elif self._fill == "share":
            text += "; lines that a phase missed shared from the nearest"
        self._notes.append(text)


def _ended(gated: Readouts) -> Readouts:
    """In the order of phases, the last one flagged as the slice's last."""
    order = np.argsort(gated.head["idx"]["phase"], kind="stable")
    head = gated.head[order]
    if len(head):
        head["flags"][-1] |= np.uint64(Flag.LAST_IN_SLICE)
    return Readouts(head=head, samples=gated.samples[order])


def _cardiac_phase(
    beats: Heartbeats, times: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.bool_]]:
    """Fraction of its RR interval at which each readout was measured, its beat, whether it is to be used."""
    beat = np.searchsorted(beats.waves_ms, times + 0.5 * TIME_STAMP_UNIT_MS, side="right") - 1
    known = np.maximum(beat, 0)
    cardiac = (times - beats.waves_ms[known]) / beats.intervals_ms[known]
    good = (beat >= 0) & beats.regular[known] & (cardiac < _LATE)
    return np.clip(cardiac, 0.0, np.nextafter(1.0, 0.0)), known, good


def _line_keys(head: NDArray[Any]) -> NDArray[np.int64]:
    idx = head["idx"]
    return np.asarray(
        idx["kspace_encode_step_2"].astype(np.int64) << 16 | idx["kspace_encode_step_1"].astype(np.int64)
    )


def _with_shared(gated: Readouts, cardiac: NDArray[np.float64], phases: int) -> Readouts:
    """With copies of the readouts nearest in cardiac phase for the lines that a phase misses."""
    keys = _line_keys(gated.head)
    middles = (np.arange(phases) + 0.5) / phases
    picked: list[int] = []
    target: list[int] = []
    for key in np.unique(keys):
        mine = np.flatnonzero(keys == key)
        missing = np.setdiff1d(np.arange(phases), gated.head["idx"]["phase"][mine])
        away = np.abs(cardiac[mine][None] - middles[missing][:, None])
        nearest = mine[np.argmin(np.minimum(away, 1 - away), axis=1)]
        picked += nearest.tolist()
        target += missing.tolist()
    head = gated.head[picked]
    head["idx"]["phase"] = target
    return Readouts(
        head=np.concatenate([gated.head, head]),
        samples=np.concatenate([gated.samples, gated.samples[picked]]),
    )


def _interpolated(gated: Readouts, cardiac: NDArray[np.float64], phases: int) -> Readouts:
    """Every measured line at the middle of every phase, linear between its neighbours around the cycle."""
    head, samples = gated.head, gated.samples
    keys = _line_keys(head)
    middles = (np.arange(phases) + 0.5) / phases
    lines = np.unique(keys)
    out = np.empty((len(lines), phases, *samples.shape[1:]), dtype=np.complex64)
    heads = np.empty((len(lines), phases), dtype=head.dtype)
    for number, key in enumerate(lines):
        mine = np.flatnonzero(keys == key)
        mine = mine[np.argsort(cardiac[mine], kind="stable")]
        at = cardiac[mine]
        after = np.searchsorted(at, middles)
        first, second = (after - 1) % len(mine), after % len(mine)
        gap = (at[second] - at[first]) % 1.0
        step = (middles - at[first]) % 1.0
        weight = np.divide(step, gap, out=np.zeros(phases), where=gap > 0).astype(np.float32)[:, None, None]
        out[number] = (1 - weight) * samples[mine[first]] + weight * samples[mine[second]]
        heads[number] = head[mine[np.where(weight[:, 0, 0] < 0.5, first, second)]]
        heads[number]["idx"]["phase"] = np.arange(phases)
    heads["idx"]["average"] = 0
    return Readouts(head=heads.reshape(-1), samples=out.reshape(-1, *samples.shape[1:]))

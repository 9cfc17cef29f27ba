"""R waves found in the trace of an ECG whose waveform carries no trigger marks.

The leads are band-passed to where QRS complexes have their energy (Thakor et al., IEEE Trans Biomed Eng
31:702, 1984), which takes away baseline wander, T waves, and the slow voltage of flowing blood. The running
energy of all leads then peaks once a beat, whatever the polarity of a lead (after Pan and Tompkins, IEEE
Trans Biomed Eng 32:230, 1985).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter1d

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.scan import Waveform
from recon_node.prep.timing import LONGEST_RR_MS, SHORTEST_RR_MS

ECG = 0
"""ISMRMRD's waveform id."""
_BAND_HZ = (8.0, 30.0)
_END_MS = 80.0
"""So near to the ends of a stretch the filter swings in, which with noise can look like a beat."""
_LEAST_HZ = 80.0
"""Sampling rate below which the band is not there."""
_LEAST_MS = 3000.0
"""A shorter stretch of trace shows too few beats to tell them from noise."""
_GAP_MS = 20.0
"""Between messages; a longer one ends a stretch."""
_ENERGY_MS = 80.0
_LEVEL_MS, _LEVEL_BLOCKS = 1500.0, 7
_HEIGHT = 0.5
"""Of the usual height of a beat: what is lower is none."""
_CONTRAST = 2.0
"""How far beats stand out from the highest point between them, at least; noise reaches 1.5."""
_FLATTEST = 0.02
"""Of a lead's greatest amplitude: as little as its usual one may count."""

Trace = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Times `(sample,)` in ms on the clock of the acquisition time stamps, and `(lead, sample)`."""


def waves_of_ecg(waveforms: Sequence[Waveform]) -> NDArray[np.float64]:
    """Times of R waves in ms, from the leads of every stretch of ECG in which they stand out.

    Parameters
    ----------
    waveforms : sequence of Waveform
        Of any kind and in any order; samples are taken for signed numbers.

    Returns
    -------
    ndarray
        `(wave,)` float64, ascending, on the clock of the acquisition time stamps; empty where no trace has
        credible beats.
    """
    found = [_waves(times, leads) for times, leads in _stretches(waveforms)]
    return np.concatenate([np.zeros(0), *found])


def _stretches(waveforms: Sequence[Waveform]) -> list[Trace]:
    """Messages joined where one follows the other without a gap."""
    pieces = [w for w in waveforms if w.waveform_id == ECG and w.data.size and w.sample_time_us > 0]
    groups: list[list[Waveform]] = []
    for piece in sorted(pieces, key=lambda w: w.time_stamp):
        last = groups[-1][-1] if groups else None
        alike = last is not None and _kind(last) == _kind(piece)
        between = _start_ms(piece) - _end_ms(last) if last is not None else 0.0
        if alike and between < -_GAP_MS:
            continue  # sent twice
        if alike and between <= _GAP_MS:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return [_joined(group) for group in groups]


def _kind(piece: Waveform) -> tuple[int, float]:
    return piece.data.shape[0], piece.sample_time_us


def _start_ms(piece: Waveform) -> float:
    return float(piece.time_stamp * TIME_STAMP_UNIT_MS)


def _end_ms(piece: Waveform) -> float:
    return float(_start_ms(piece) + piece.data.shape[1] * piece.sample_time_us / 1000)


def _joined(group: list[Waveform]) -> Trace:
    step = group[0].sample_time_us / 1000
    times = [_start_ms(piece) + step * np.arange(piece.data.shape[1]) for piece in group]
    leads = [np.ascontiguousarray(piece.data).view(np.int32) for piece in group]
    return np.concatenate(times), np.concatenate(leads, axis=1).astype(np.float64)


def _waves(times: NDArray[np.float64], leads: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.signal import find_peaks  # 40 MB that other scans do not need

    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    rate = 1000 / step if step > 0 else 0.0
    if rate < _LEAST_HZ or len(times) * step < _LEAST_MS:
        return np.zeros(0)
    energy = _energy(leads, rate)
    if energy is None:
        return np.zeros(0)
    level = _level(energy, max(1, round(_LEVEL_MS / step)))
    peaks, _ = find_peaks(energy, distance=max(1, round(SHORTEST_RR_MS / step)), height=_HEIGHT * level)
    peaks = peaks[(peaks * step >= _END_MS) & ((len(energy) - 1 - peaks) * step >= _END_MS)]
    return times[peaks] if _credible(energy, peaks, step) else np.zeros(0)


def _energy(leads: NDArray[np.float64], rate: float) -> NDArray[np.float64] | None:
    """Running amplitude of all leads `(sample,)`, in units of their medians; None where all are flat."""
    from scipy.signal import butter, sosfiltfilt

    leads = leads[np.ptp(leads, axis=1) > 0]
    if not len(leads):
        return None
    top = min(_BAND_HZ[1], 0.4 * rate)
    sections = butter(2, (_BAND_HZ[0], top), "bandpass", fs=rate, output="sos")
    passed = sosfiltfilt(sections, leads - np.median(leads, axis=1, keepdims=True), axis=1)
    high = 3 * np.percentile(np.abs(passed), 98, axis=1, keepdims=True)
    width = max(1, round(_ENERGY_MS * rate / 1000))
    power = uniform_filter1d(np.square(np.clip(passed, -high, high)), width, axis=1)
    usual = np.maximum(np.median(power, axis=1), _FLATTEST**2 * power.max(axis=1))
    return np.asarray(np.sqrt((power / np.maximum(usual, 1e-12)[:, None]).mean(axis=0)))


def _level(energy: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Usual height of the beats around each sample: a running median of the maxima of blocks."""
    whole = len(energy) // block * block
    maxima = energy[:whole].reshape(-1, block).max(axis=1)
    usual = median_filter(maxima, min(_LEVEL_BLOCKS, len(maxima)), mode="nearest")
    middles = (np.arange(len(maxima)) + 0.5) * block
    return np.asarray(np.interp(np.arange(len(energy)), middles, usual))


def _credible(energy: NDArray[np.float64], peaks: NDArray[np.intp], step: float) -> bool:
    """Whether the peaks come as hearts beat, and stand out from what lies between them."""
    if len(peaks) < 3:
        return False
    intervals = np.diff(peaks) * step
    if np.mean((intervals >= SHORTEST_RR_MS) & (intervals <= LONGEST_RR_MS)) < 0.8:
        return False
    near = max(1, round(_ENERGY_MS * 1.25 / step))
    spans = zip(peaks[:-1] + near, peaks[1:] - near, strict=True)
    between = [energy[first:end].max() for first, end in spans if end > first]
    return bool(np.median(energy[peaks]) > _CONTRAST * np.median(between))

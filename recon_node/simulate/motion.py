"""How the heart and the breath move: volume over the cycle, beat-to-beat change, respiration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

END_SYSTOLE = 0.36
"""Moment of the smallest volume, as a fraction of the RR interval."""
RELAXED = 0.42
"""End of the isovolumic relaxation (the volume stays at its minimum until then)."""
EARLY_FILLED = 0.62
ATRIAL_KICK = 0.84
EARLY_SHARE = 0.72
"""Share of the stroke volume that comes back before diastasis."""


def _ease(t: FloatArray) -> FloatArray:
    x = np.clip(t, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))


def filling(cycle: FloatArray, *, early_share: float = EARLY_SHARE) -> FloatArray:
    """Ventricular filling: 1 at end diastole, 0 at end systole.

    Ejection, isovolumic relaxation, early filling, diastasis, atrial kick.

    Parameters
    ----------
    cycle : numpy.ndarray
        Time since the R wave as a fraction of the RR interval (wrapped to 0..1).
    early_share : float
        Share of the stroke volume that early filling restores.
    """
    t = np.mod(cycle, 1.0)
    ejected = _ease(t / END_SYSTOLE)
    early = _ease((t - RELAXED) / (EARLY_FILLED - RELAXED))
    kick = _ease((t - ATRIAL_KICK) / (1 - ATRIAL_KICK))
    return np.asarray(1 - ejected + early_share * early + (1 - early_share) * kick)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Where each phase stands; every array is `(phase,)`."""

    cycle: FloatArray
    """Fraction of the cardiac cycle seen (with arrhythmia not quite the nominal one)."""
    filling: FloatArray
    """0 (end systole) to 1 (end diastole), see `filling`."""
    breath_mm: FloatArray
    """Displacement of the heart by breathing, towards the feet."""
    trigger_ms: FloatArray
    """Nominal time since the R wave."""
    rr_ms: float


def draw_moments(
    rng: np.random.Generator,
    *,
    phases: int,
    moves: bool,
    rr_ms: float,
    breathing_mm: float = 0.0,
    arrhythmia: float = 0.0,
) -> Moments:
    """Draw the motion state of each phase.

    Parameters
    ----------
    rng : numpy.random.Generator
    phases : int
    moves : bool
        True for cine; False keeps the heart in mid diastole but for the beat-to-beat change.
    rr_ms : float
        Mean RR interval.
    breathing_mm : float
        Amplitude of what is left of the breathing motion.
    arrhythmia : float
        Standard deviation of the cycle position, as a fraction of RR (beat jitter).
    """
    nominal = np.arange(phases) / phases if moves else np.full(phases, 0.70)
    jitter = np.cumsum(rng.standard_normal(phases)) if moves else rng.standard_normal(phases)
    jitter = jitter - np.linspace(0, jitter[-1], phases) if moves and phases > 1 else jitter
    cycle = nominal + arrhythmia * jitter / max(1.0, float(np.abs(jitter).std()))
    if moves:
        cycle = np.clip(cycle, 0, 1 - 1e-6)
    full = filling(cycle)
    breath = np.zeros(phases)
    if breathing_mm:
        rate = rng.uniform(0.5, 1.5) / max(phases, 1)
        wave = np.sin(2 * np.pi * (rate * np.arange(phases) + rng.random()))
        wander = np.cumsum(rng.standard_normal(phases)) * 0.2
        breath = breathing_mm * (wave + wander - wander.mean())
    return Moments(cycle=cycle, filling=full, breath_mm=breath, trigger_ms=nominal * rr_ms, rr_ms=rr_ms)

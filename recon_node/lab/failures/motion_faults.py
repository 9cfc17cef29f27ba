"""What goes wrong with the patient, the field and the order of what is acquired."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import centred_fft
from recon_node.lab.failures.raw import Raw, moved, shifted
from recon_node.simulate import draw_mask

SEGMENTS = 4
"""Heartbeats in which the lines of a phase are acquired, interleaved."""


def motion_between(raw: Raw, pixels: float) -> None:
    """The patient moves once, by so many pixels, between two phases."""
    half = len(raw.samples) // 2
    by = np.where(np.arange(len(raw.samples)) < half, 0.0, pixels)
    raw.samples = shifted(raw.samples, np.repeat(by[:, None], raw.samples.shape[2], axis=1))
    truth = raw.truth.copy()
    truth[half:] = moved(raw.truth[half:], pixels)
    raw.truth = truth


def motion_within(raw: Raw, pixels: float) -> None:
    """Every heartbeat finds the patient elsewhere, within so many pixels; the middle of them is the truth."""
    by = pixels * (_segment(raw) / (SEGMENTS - 1) - 0.5)
    raw.samples = shifted(raw.samples, np.broadcast_to(by, (len(raw.samples), len(by))))


def wrong_triggers(raw: Raw, share: float) -> None:
    """So large a share of the lines is sorted into a phase that it does not belong to."""
    phases, lines = raw.samples.shape[0], raw.samples.shape[2]
    before = raw.samples.copy()
    wrong = np.argwhere(raw.rng.random((phases, lines)) < share)
    for phase, line in wrong:
        raw.samples[phase, :, line] = before[raw.rng.integers(phases), :, line]


def phase_order(raw: Raw, share: float) -> None:
    """So large a share of the phases stands in another order than acquired, and no time stamp says so."""
    some, other = _exchanged(raw, share)
    raw.samples[some] = raw.samples[other]


def phase_counter(raw: Raw, share: float) -> None:
    """The same by a wrong counter of phases: their lines keep the time stamps that they were acquired at."""
    some, other = _exchanged(raw, share)
    raw.samples[some] = raw.samples[other]
    times = np.array(raw.full.trigger_times_ms)
    times[some] = times[other]
    raw.full = dataclasses.replace(raw.full, trigger_times_ms=tuple(times.tolist()))


def _exchanged(raw: Raw, share: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of phases, and of the phases that stand there instead: shuffled, none where it was.

    Never all of them a place later: that is a cine begun at another phase, and every image of it is right.
    """
    phases = len(raw.samples)
    some = np.sort(raw.rng.choice(phases, max(2, round(share * phases)), replace=False))
    while True:
        other = raw.rng.permutation(some)
        later = set(((other - some) % phases).tolist())
        if 0 not in later and (len(some) < max(phases, 4) or len(later) > 1):
            return some, other


def off_resonance(raw: Raw, cycles: float) -> None:
    """The frequency drifts from heartbeat to heartbeat, by so many cycles at the edge of the body."""
    _drift(raw, cycles * _quadratic(raw.truth.shape[1:]))


def implant(raw: Raw, radius: float) -> None:
    """A void of this radius (pixels) beside the heart, with the field of a dipole around it."""
    ny, nx = raw.truth.shape[1:]
    y, x = np.mgrid[:ny, :nx].astype(np.float32)
    y0, x0 = ny / 2 + 0.12 * ny, nx / 2 + 0.12 * nx
    r2 = np.maximum((y - y0) ** 2 + (x - x0) ** 2, 1)
    field = np.clip((radius**2) * ((y - y0) ** 2 - (x - x0) ** 2) / r2**2, -1, 1)
    shown = 1 - np.exp(-((r2 / (1.5 * radius**2)) ** 2))
    noise = raw.samples - raw.kspace_of(raw.truth)
    raw.truth = np.asarray(raw.truth * shown * np.exp(2j * np.pi * field), np.complex64)
    raw.samples = raw.kspace_of(raw.truth) + noise
    _drift(raw, 0.5 * field)


def too_fast(raw: Raw, acceleration: float) -> None:
    """Another acceleration than the condition's."""
    raw.mask = draw_mask(raw.condition[0], acceleration, shape=raw.mask.shape, acs=raw.acs, rng=raw.rng)


def folding(raw: Raw, part: float) -> None:
    """The field of view is only this part of the usual one along the phase encoding: the object folds."""
    size = raw.truth.shape[1]
    kept = 2 * round(part * size / 2)
    raw.acs = min(raw.acs, kept)
    start = (size - kept) // 2
    inside = slice(start, start + kept)
    coils = raw.full.maps[None] * raw.truth[:, None]
    folded = np.zeros((*coils.shape[:2], kept, coils.shape[3]), np.complex64)
    for row in range(size):
        folded[:, :, (row - start) % kept] += coils[:, :, row]
    raw.truth = np.ascontiguousarray(raw.truth[:, inside])
    raw.full = dataclasses.replace(
        raw.full, images=raw.truth, maps=np.ascontiguousarray(raw.full.maps[:, inside])
    )
    raw.samples = np.zeros_like(folded)
    raw.samples = np.asarray(centred_fft(folded), np.complex64) + raw.noise()
    shape = (len(folded), kept, folded.shape[3])
    raw.mask = draw_mask(*raw.condition, shape=shape, acs=raw.acs, rng=raw.rng)


def wrong_words(raw: Raw, words: float) -> None:
    """The text names another scanner (1), another contrast too (2), another sampling as well (3)."""
    raw.words |= {"field": "0.55T", "vendor": "UIH"}
    if words >= 2:
        raw.words |= {"modality": "T2 mapping", "lifespan": "Fetal"}
    if words >= 3:
        raw.sampling_words |= {"acceleration": "4", "pattern": "uniform"}


def young_network(raw: Raw, _: float) -> None:
    """Weights that were trained for two minutes."""
    raw.network = "young"


def damaged_network(raw: Raw, spread: float) -> None:
    """Weights that are not what was trained: each off by this share of its layer's spread."""
    raw.network = f"damaged {spread:g}"


def inventing_network(raw: Raw, brightness: float) -> None:
    """Detail that no sample contradicts is put into the image, bright as this share of its bright parts."""
    raw.invents = brightness


def _segment(raw: Raw) -> NDArray[np.intp]:
    """The heartbeat of each line: the lines that are sampled anywhere, in turn."""
    lines = np.arange(raw.samples.shape[2])
    order = np.cumsum(raw.mask.any(axis=(0, 2))) if not raw.mask.all() else lines
    return np.asarray(order % SEGMENTS)


def _drift(raw: Raw, cycles: NDArray[np.floating]) -> None:
    """Turn the image by `cycles` `(y, x)` from the first heartbeat to the last."""
    noise = raw.samples - raw.kspace_of(raw.truth)
    segments = _segment(raw)
    for segment in range(SEGMENTS):
        turn = np.exp(2j * np.pi * cycles * segment / (SEGMENTS - 1))
        lines = segments == segment
        raw.samples[:, :, lines] = raw.kspace_of((raw.truth * turn).astype(np.complex64))[:, :, lines]
        raw.samples[:, :, lines] += noise[:, :, lines]


def _quadratic(shape: tuple[int, ...]) -> NDArray[np.float64]:
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    return np.asarray(np.clip(y**2 + x**2 + 0.3 * x, 0, 2) / 2)

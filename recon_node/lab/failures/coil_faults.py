"""What goes wrong with coils, receivers and calibration. Each takes a scan and a strength."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift, zoom

from recon_node.core.fft import centred_fft
from recon_node.lab.failures.raw import Complex, Raw
from recon_node.simulate.example import complex_noise


def swap_coils(raw: Raw, pairs: float) -> None:
    """So many pairs of coils change places after the calibration."""
    raw.calibration = raw.block(raw.samples)
    chosen = raw.strongest_coils(2 * int(pairs))
    for one, other in zip(chosen[::2], chosen[1::2], strict=False):
        raw.samples[:, [one, other]] = raw.samples[:, [other, one]]


def dead_coil(raw: Raw, coils: float) -> None:
    """So many strong coils give nothing after the first third of the phases."""
    chosen = raw.rng.permutation(raw.strongest_coils(2 * int(coils)))[: int(coils)]
    raw.samples[max(1, len(raw.samples) // 3) :, chosen] = 0


def coils_moved(raw: Raw, pixels: float) -> None:
    """The coils moved by so many pixels between calibration and imaging."""
    maps = _unit(_like(raw.full.maps, lambda part: shift(part, (0, pixels, pixels), order=1, mode="nearest")))
    _calibrate_with(raw, maps)


def other_coils(raw: Raw, share: float) -> None:
    """The calibration's sensitivities are to this share those of another coil array."""
    maps = raw.full.maps
    other = maps[raw.rng.permutation(len(maps)), ::-1, ::-1]
    _calibrate_with(raw, _unit((1 - share) * maps + share * other))


def calibration_view(raw: Raw, larger: float) -> None:
    """The calibration's field of view is larger by this share than the header says."""
    coils = raw.full.maps * raw.truth.mean(axis=0)
    size = coils.shape[-2:]
    smaller = _like(coils, lambda part: zoom(part, (1, 1 / (1 + larger), 1 / (1 + larger)), order=1))
    whole = np.zeros_like(coils)
    y, x = ((full - small) // 2 for full, small in zip(size, smaller.shape[-2:], strict=True))
    whole[:, y : y + smaller.shape[-2], x : x + smaller.shape[-1]] = smaller
    _calibrate_with(raw, None, whole)


def calibration_motion(raw: Raw, pixels: float) -> None:
    """The object moves by about so many pixels between the lines of the calibration."""
    block = raw.block(raw.samples)
    lines, size = block.shape[1], raw.samples.shape[-2]
    ky = np.arange(lines) - lines // 2
    by = raw.rng.normal(0, pixels, lines)
    raw.calibration = (block * np.exp(-2j * np.pi * ky * by / size)[:, None]).astype(np.complex64)


def noise_scan(raw: Raw, spread: float) -> None:
    """Whitened with the noise of another protocol: gains off by this spread (of their logarithms)."""
    gains = np.exp(spread * raw.rng.standard_normal(raw.coils))
    raw.samples *= (gains / np.exp(np.log(gains).mean())).astype(np.float32)[None, :, None, None]


def spikes(raw: Raw, size: float) -> None:
    """Five spikes in what was sampled, in all coils, of this size in units of the largest sample."""
    sampled = np.argwhere(raw.mask)
    top = size * float(np.abs(raw.samples).max())
    for phase, ky, kx in sampled[raw.rng.choice(len(sampled), 5, replace=False)]:
        turn = np.exp(2j * np.pi * raw.rng.random(raw.coils)) * raw.rng.uniform(0.3, 1, raw.coils)
        raw.samples[phase, :, ky, kx] += (top * turn).astype(np.complex64)


def lost_lines(raw: Raw, share: float) -> None:
    """Lines are lost: so large a share of them arrives as zeros."""
    lost = raw.rng.random(raw.samples.shape[:1] + raw.samples.shape[2:3]) < share
    raw.samples[np.broadcast_to(lost[:, None, :, None], raw.samples.shape)] = 0


def gain_jump(raw: Raw, factor: float) -> None:
    """The receivers' gain jumps by this factor where half of the lines are acquired."""
    half = raw.samples.shape[2] // 2
    raw.samples[:, :, half + raw.acs // 2 - 3 :] *= np.float32(factor)


def low_signal(raw: Raw, factor: float) -> None:
    """Less signal by this factor, the same noise."""
    residual = raw.samples - raw.kspace_of(raw.full.images)
    raw.truth = np.asarray(raw.full.images / factor, np.complex64)
    raw.samples = raw.kspace_of(raw.truth) + residual


def _calibrate_with(raw: Raw, maps: Complex | None, coil_images: Complex | None = None) -> None:
    """A calibration of the mean image through other maps, or of given coil images, with its own noise."""
    images = maps * raw.truth.mean(axis=0) if maps is not None else coil_images
    if images is None:
        return
    samples = centred_fft(images)[None]
    noise = complex_noise(raw.rng, samples.shape) / np.sqrt(len(raw.samples))
    raw.calibration = raw.block(np.asarray(samples + noise, np.complex64))


def _unit(maps: NDArray[np.complexfloating]) -> Complex:
    size = np.sqrt(np.square(np.abs(maps)).sum(axis=0))
    return np.asarray(maps / np.maximum(size, 1e-6), np.complex64)


def _like(array: Complex, work: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Complex:
    """Real work on real and imaginary part."""
    return np.asarray(work(array.real) + 1j * work(array.imag), np.complex64)

"""A scan on its way to the node, as long as something can still go wrong with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.grid import central
from recon_node.core.types import CoilMaps, KSpace, Prompts
from recon_node.lab.evaluation.heldout import kspace_of
from recon_node.pipeline.stages import calibrate
from recon_node.prompts import metadata_prompt, undersampling_prompt
from recon_node.simulate import draw_mask
from recon_node.simulate.example import FullScan, complex_noise

Complex = NDArray[np.complex64]
Condition = tuple[str, float]
"""Pattern and acceleration."""


@dataclass(slots=True, kw_only=True, eq=False)
class Raw:
    """What a fault may change: everything between the receivers and the reconstruction."""

    full: FullScan
    """The heart and the coil array; a fault replaces it only where the object itself is another one."""
    samples: Complex
    """`(phase, coil, ky, kx)` complex64: every sample, whether the mask takes it or not."""
    mask: NDArray[np.bool_]
    """`(phase, ky, kx)`"""
    truth: Complex
    """`(phase, y, x)`: what a perfect reconstruction would show."""
    rng: np.random.Generator
    condition: Condition
    acs: int = 20
    calibration: Complex | None = None
    """`(coil, ay, ax)` of a calibration scan of its own; None takes the centre of the samples."""
    words: dict[str, str] = field(default_factory=dict)
    """That replace those of the metadata prompt."""
    sampling_words: dict[str, str] = field(default_factory=dict)
    """That replace those of the undersampling prompt."""
    network: str = ""
    """Other weights to reconstruct with, by role (`recon_node.lab.failures.networks`)."""
    invents: float = 0.0
    """Brightness of what is invented within data consistency, in units of the image's bright parts."""

    @property
    def coils(self) -> int:
        """Receive coils."""
        return int(self.samples.shape[1])

    def kspace_of(self, images: Complex, maps: Complex | None = None) -> Complex:
        """Samples `(phase, coil, ky, kx)` of images `(phase, y, x)` through the true maps, without noise."""
        used = self.full.maps if maps is None else maps
        return np.asarray(centred_fft(used[None] * images[:, None]), np.complex64)

    def noise(self) -> Complex:
        """New noise like that of the samples."""
        return complex_noise(self.rng, self.samples.shape)

    def block(self, samples: Complex) -> Complex:
        """The calibration block of samples, mean over phases."""
        rows, columns = (central(size, min(self.acs, size)) for size in samples.shape[-2:])
        return np.asarray(samples[:, :, rows, columns].mean(axis=0), np.complex64)

    def strongest_coils(self, count: int) -> NDArray[np.intp]:
        """The coils that receive most, strongest first."""
        power = np.square(np.abs(self.samples)).sum(axis=(0, 2, 3))
        return np.argsort(power)[::-1][: max(0, count)]

    def bright(self) -> float:
        """Brightness that only a fiftieth of the true image exceeds."""
        return float(np.quantile(np.abs(self.truth), 0.98))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """What the node gets to see of it."""

    kspace: KSpace
    maps: CoilMaps
    prompts: Prompts
    truth: Complex
    network: str
    invents: float


def raw_of(full: FullScan, condition: Condition, entropy: list[int], *, acs: int) -> Raw:
    """A clean scan; `entropy` decides the mask and what faults draw."""
    phases, _, ny, nx = full.kspace.shape
    rng = np.random.default_rng(entropy)
    mask = draw_mask(condition[0], condition[1], shape=(phases, ny, nx), acs=acs, rng=rng)
    return Raw(
        full=full,
        samples=full.kspace.copy(),
        mask=mask,
        truth=full.images,
        rng=rng,
        condition=condition,
        acs=acs,
        words=dict(full.metadata),
    )


def trial_of(raw: Raw) -> Trial:
    """Prepare and calibrate.

    Raises
    ------
    ReconNodeError
        The node refuses the scan.
    """
    kspace = kspace_of(dataclasses.replace(raw.full, kspace=raw.samples), raw.mask, acs=raw.acs)
    if raw.calibration is not None:
        kspace = dataclasses.replace(kspace, calibration=raw.calibration)
    return Trial(
        kspace=kspace,
        maps=calibrate(kspace),
        prompts=Prompts(
            metadata=metadata_prompt(kspace.header, overrides=raw.words),
            undersampling=undersampling_prompt(kspace.sampling, overrides=raw.sampling_words),
        ),
        truth=raw.truth,
        network=raw.network,
        invents=raw.invents,
    )


def shifted(samples: Complex, pixels: NDArray[Any] | float) -> Complex:
    """Samples of an object moved along the phase encoding by `pixels`, a number or one a `(phase, ky)`."""
    size = samples.shape[-2]
    ky = np.arange(size) - size // 2
    turn = np.exp(-2j * np.pi * ky * np.asarray(pixels) / size)
    shape = (1, 1, size, 1) if turn.ndim == 1 else (turn.shape[0], 1, size, 1)
    return np.asarray(samples * turn.reshape(shape), np.complex64)


def moved(images: Complex, pixels: float) -> Complex:
    """Images `(phase, y, x)` moved along y by `pixels`, cyclically."""
    return np.asarray(centred_ifft(shifted(centred_fft(images)[:, None], pixels)[:, 0]), np.complex64)

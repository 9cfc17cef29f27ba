"""A small beating object, seen by a few coils: input for methods whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import centred_fft
from recon_node.core.scan import ScanHeader
from recon_node.core.types import CoilMaps, KSpace
from recon_node.pipeline.arrays import kspace_from_arrays

ACS = 8
"""Lines in the middle that every frame samples."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A disc that grows and shrinks off the centre of a larger one, noise of standard deviation one."""

    phases: int = 4
    coils: int = 5
    ny: int = 36
    nx: int = 32
    snr: float = 40.0
    """Brightness of the object over the noise."""
    seed: int = 0
    maps: CoilMaps = field(init=False)
    truth: NDArray[np.complex64] = field(init=False)
    """`(phase, y, x)` complex64, in the units of the k-space."""
    full: NDArray[np.complex64] = field(init=False)
    """`(phase, coil, ky, kx)` complex64: k-space with nothing left out."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        y, x = np.meshgrid(np.linspace(-1, 1, self.ny), np.linspace(-1, 1, self.nx), indexing="ij")
        support = (x / 0.9) ** 2 + (y / 0.85) ** 2 < 1
        angle = 2 * np.pi * np.arange(self.coils)[:, None, None] / self.coils
        near = 0.4 + (y - 1.2 * np.sin(angle)) ** 2 + (x - 1.2 * np.cos(angle)) ** 2
        coils = support * np.exp(1j * (angle + 0.5 * x)) / near
        coils = coils / np.maximum(np.linalg.norm(coils, axis=0), 1e-9)
        cycle = 2 * np.pi * np.arange(self.phases)[:, None, None] / self.phases
        heart = (x + 0.2) ** 2 + (y - 0.15) ** 2 < (0.35 + 0.08 * np.cos(cycle)) ** 2
        truth = self.snr * (1.0 + heart) * support * np.exp(0.3j * y)
        noise = rng.standard_normal((2, self.phases, self.coils, self.ny, self.nx)) / np.sqrt(2)
        full = centred_fft(coils * truth[:, None]) + noise[0] + 1j * noise[1]
        put = object.__setattr__
        put(self, "maps", CoilMaps(data=coils[None].astype(np.complex64), support=support))
        put(self, "truth", truth.astype(np.complex64))
        put(self, "full", full.astype(np.complex64))

    def lines(self, acceleration: float) -> NDArray[np.bool_]:
        """Random lines of each frame, the middle always: `(phase, ky, kx)`; all of them at 1."""
        rng = np.random.default_rng([self.seed, 1])
        lines = rng.random((self.phases, self.ny)) < 1 / acceleration
        lines[:, (self.ny - ACS) // 2 : (self.ny + ACS) // 2] = True
        return np.repeat(lines[:, :, None], self.nx, axis=2)

    def kspace(self, mask: NDArray[np.bool_] | None = None, *, factor: float = 1.0) -> KSpace:
        """The slice with `mask` (all of it by default), times `factor`; not said to be whitened."""
        sampled = self.lines(1.0) if mask is None else mask
        times = np.arange(self.phases) * 800.0 / self.phases
        return kspace_from_arrays(
            (factor * self.full * sampled[:, None]).astype(np.complex64),
            sampled,
            trigger_times_ms=times.tolist(),
            header=self.header,
            slice_number=3,
        )

    @property
    def header(self) -> ScanHeader:
        """A cine scan at 3 T, 8 mm slices and square pixels of 2 mm."""
        matrix, fov = (self.nx, self.ny, 1), (2.0 * self.nx, 2.0 * self.ny, 8.0)
        return ScanHeader(
            encoded_matrix=matrix,
            encoded_fov_mm=fov,
            recon_matrix=matrix,
            recon_fov_mm=fov,
            vendor="Siemens",
            field_strength_t=3.0,
            protocol="cine_sax",
        )

    def error(self, images: NDArray[np.complex64]) -> float:
        """Distance from the truth inside the object, relative to it (L2)."""
        inside = self.maps.support
        difference = (images - self.truth)[:, inside]
        return float(np.linalg.norm(difference) / np.linalg.norm(self.truth[:, inside]))

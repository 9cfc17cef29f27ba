"""Examples in memory: what training, tests and benchmarks draw from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError
from recon_node.core.fft import centred_fft
from recon_node.core.scan import ScanHeader
from recon_node.simulate.canvas import Plane
from recon_node.simulate.scanner import CoilArray, whitened
from recon_node.simulate.subject import Subject, draw_subject

MIN_MATRIX = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FullScan:
    """One slice, fully sampled, with what is true about its images."""

    images: NDArray[np.complex64]
    """`(phase, y, x)` complex64, noise-free, in units of noise standard deviation."""
    maps: NDArray[np.complex64]
    """`(coil, y, x)` complex64 true sensitivities after whitening, unit root-sum-of-squares everywhere."""
    kspace: NDArray[np.complex64]
    """`(phase, coil, ky, kx)` complex64, ``fft(maps * images)`` plus complex noise of unit variance."""
    metadata: Mapping[str, str]
    """Words of the metadata prompt by slot: lifespan, field, vendor, scanner, modality, view."""
    header: ScanHeader
    pixel_mm: tuple[float, float]
    """(y, x)"""
    trigger_times_ms: tuple[float, ...]
    rr_interval_ms: float

    def heart_centre(self) -> tuple[int, int] | None:
        """Row and column of the heart where that is known; nobody knows it of a real one."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example(FullScan):
    """A drawn heart's slice, with everything that is true about it."""

    lv: NDArray[np.float32]
    """`(phase, y, x)` share of each pixel that is left ventricular cavity."""
    myocardium: NDArray[np.float32]
    """`(phase, y, x)` left ventricular wall."""
    rv: NDArray[np.float32]
    """`(phase, y, x)` right ventricular cavity."""
    lv_volume_ml: NDArray[np.float64]
    """`(phase,)` of the whole ventricle."""
    rv_volume_ml: NDArray[np.float64]
    """`(phase,)`"""

    def heart_centre(self) -> tuple[int, int] | None:
        """Row and column of the middle of both ventricles over the cycle; None where the slice has none."""
        ventricles = (self.lv + self.rv).sum(axis=0, dtype=np.float64)
        if not ventricles.any():
            return None
        places = (np.arange(size) for size in ventricles.shape)
        row, column = (
            round(float(np.average(place, weights=ventricles.sum(axis=1 - axis))))
            for axis, place in enumerate(places)
        )
        return row, column

    @property
    def lvef_percent(self) -> float:
        """Ejection fraction over the phases of this example."""
        return float(100 * (1 - self.lv_volume_ml.min() / self.lv_volume_ml.max()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleDescription:
    """What a drawn slice is of; what is None is drawn at random, as in life."""

    matrix: tuple[int, int] | None = (128, 128)
    """(ny, nx); None draws 128 to 192."""
    phases: int | None = None
    """Frames; None takes what a scan of this modality has."""
    coils: int | None = None
    """Receive coils; None draws 8 to 16."""
    vendor: str | None = None
    """With `model`: see `recon_node.simulate.scanner.MODELS`."""
    model: str | None = None
    field_t: float | None = None
    """Nominal field strength (0.55, 1.5, 3.0, 5.0)."""
    modality: str | None = None
    """With `view` and `lifespan`: in the words of CardioMM's prompts."""
    view: str | None = None
    lifespan: str | None = None
    level: float | None = None
    """Where the slice cuts the ventricle, 0 (base) to 1 (apex); below 0 above the valves."""
    breathing_mm: float | None = None
    """Amplitude of the breathing left over; organs, vessels and the chest wall move with it."""
    arrhythmia: float | None = None
    """Beat jitter as a fraction of the RR interval."""
    infarct: bool | None = None
    """Give the heart a scar."""
    snr_scale: float = 1.0
    """Factor on the signal-to-noise ratio; ``inf`` leaves the noise out (units as for 1)."""
    texture: float = 1.0
    """Depth of the heart's texture, 1 as usual, 0 none."""
    heart: str = "plain"
    """``plain``, or ``detailed``: as hard as real ones, see `recon_node.simulate.detail`."""


def draw_example(
    rng: np.random.Generator, description: ExampleDescription | None = None, **fields: Any
) -> Example:
    """Draw one slice of a simulated scan.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance: the same state gives the same arrays.
    description : ExampleDescription, optional
        What is fixed; the rest is drawn.
    **fields
        Fields of the description that differ from it: ``draw_example(rng, coils=8, modality="cine")``.

    Returns
    -------
    Example

    Raises
    ------
    ConfigError
        For a value that is not in the vocabulary or out of range.
    """
    d = replace(description or ExampleDescription(), **fields)
    ny, nx = rng.choice([128, 144, 160, 176, 192], 2) if d.matrix is None else d.matrix
    shape = (int(ny), int(nx))
    _check_sizes(shape, d.phases, d.coils)
    subject = draw_subject(
        rng,
        phases=d.phases,
        coils=d.coils,
        vendor=d.vendor,
        model=d.model,
        field_t=d.field_t,
        modality=d.modality,
        view=d.view,
        lifespan=d.lifespan,
        breathing_mm=d.breathing_mm,
        arrhythmia=d.arrhythmia,
        infarct=d.infarct,
        texture=d.texture,
        heart=d.heart,
    )
    low, high = (-0.3, -0.1) if subject.view == "through-plane" else (0.05, 0.85)
    share = float(rng.uniform(low, high)) if d.level is None else d.level
    plane = subject.plane(shape, level=share)
    frames = subject.scene.render(plane)
    images, maps = receive(frames.signal, subject, subject.coils, plane, noise_scale=d.snr_scale)
    kspace = centred_fft(maps[None] * images[:, None])
    if np.isfinite(d.snr_scale):
        kspace += complex_noise(rng, kspace.shape)
    lv, rv = subject.scene.volumes_ml()
    return Example(
        images=images,
        maps=maps,
        kspace=kspace,
        metadata=subject.words(),
        header=subject.header(shape),
        lv=frames.lv,
        myocardium=frames.myocardium,
        rv=frames.rv,
        lv_volume_ml=lv,
        rv_volume_ml=rv,
        pixel_mm=(subject.fov_mm / shape[0], subject.fov_mm / shape[1]),
        trigger_times_ms=tuple(map(float, subject.scene.moments.trigger_ms)),
        rr_interval_ms=subject.scene.moments.rr_ms,
    )


def receive(
    signal: NDArray[np.float32], subject: Subject, coils: CoilArray, plane: Plane, *, noise_scale: float = 1.0
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Turn magnetisation into whitened images `(phase, y, x)` and unit maps `(coil, y, x)`."""
    sensitivities = whitened(coils.sensitivities(plane), coils.covariance)
    rss = np.sqrt(np.sum(np.abs(sensitivities) ** 2, axis=0))
    snr = subject.signal_to_noise(plane) * (noise_scale if np.isfinite(noise_scale) else 1.0)
    weight = (snr / subject.reference_rss * rss).astype(np.float32)
    images = signal * (weight * subject.shading(plane))[None]
    return images.astype(np.complex64), sensitivities / rss


def complex_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """Circular complex Gaussian noise with unit variance (1/2 in each part)."""
    pairs = rng.standard_normal((*shape, 2), dtype=np.float32)
    pairs *= np.float32(np.sqrt(0.5))
    return pairs.view(np.complex64)[..., 0]


def _check_sizes(shape: tuple[int, ...], phases: int | None, coils: int | None) -> None:
    if len(shape) != 2 or min(shape) < MIN_MATRIX:
        raise ConfigError(f"matrix is {shape}, expected (ny, nx) of at least {MIN_MATRIX}")
    for name, value in (("phases", phases), ("coils", coils)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}, expected at least 1")

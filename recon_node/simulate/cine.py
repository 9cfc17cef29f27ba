"""A real heart on a simulated scanner: the magnitude images of a cine become a fully sampled scan.

What a cine in an archive has lost is given back: receive coils over its true field of view, a phase of the
object (smooth, changing over the heart cycle, of flow in blood), off-resonance, and noise. What the cine
shows, the noise of its own scan included, is the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from recon_node.core.errors import ConfigError, DataError
from recon_node.core.fft import centred_fft
from recon_node.core.scan import ScanHeader
from recon_node.simulate.canvas import Plane
from recon_node.simulate.example import MIN_MATRIX, FullScan, complex_noise
from recon_node.simulate.scanner import CoilArray, Model, draw_coils, find_models, vendor_in_header, whitened

F32 = NDArray[np.float32]
HEART_MM = 34.0
"""Standard deviation of the window in which the motion of a heart is looked for."""
CENTRAL = 0.25
"""Standard deviation of where hearts lie, in units of the image."""
USUAL_SNR = (20.0, 60.0)
"""Signal of the brightest tenth in the heart over noise that scans are drawn with."""
TE_MS = (1.1, 1.8)
OFF_RESONANCE_HZ = {0.55: 15.0, 1.5: 35.0, 3.0: 70.0, 5.0: 110.0}
"""Standard deviation over the thorax."""
FLOW_RAD = (0.2, 1.2)
"""Largest phase of moving blood that scans are drawn with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cine:
    """Magnitude images of one slice over the heart cycle, at the matrix they were acquired with."""

    images: F32
    """`(phase, y, x)` float32, not negative, any unit."""
    pixel_mm: tuple[float, float]
    """(y, x)"""
    name: str = "cine"
    """Of the clip, unique within its folder."""
    trigger_times_ms: tuple[float, ...] | None = None
    field_t: float | None = None
    vendor: str | None = None
    """In the words of the prompts, where the file says it."""
    phase_axis: int | None = None
    """Axis of the phase encoding, 0 (y) or 1 (x), where the file says it."""
    slice_mm: float | None = None
    """Where the slice lies along its normal, where the file says it: slices of one stack differ in it."""

    def __post_init__(self) -> None:
        shape = self.images.shape
        if len(shape) != 3 or min(shape[1:]) < MIN_MATRIX:
            raise DataError(
                f"{self.name}: images have shape {shape}, expected (phase, y, x), {MIN_MATRIX} pixels or more"
            )
        if shape[0] < 2:
            raise DataError(f"{self.name}: found one frame, expected a cine of at least 2 frames")
        if not (np.isfinite(self.images).all() and self.images.min() >= 0 and self.images.max() > 0):
            raise DataError(f"{self.name}: expected magnitudes: finite, not negative, not all zero")
        if not all(np.isfinite(size) and size > 0 for size in self.pixel_mm):
            raise DataError(f"{self.name}: pixel size is {self.pixel_mm} mm, expected two positive numbers")

    @property
    def encoded_axis(self) -> int:
        """Axis of the phase encoding: as the file says, else the one of coarser pixels, else the shorter."""
        if self.phase_axis is not None:
            return self.phase_axis
        y, x = self.pixel_mm
        if abs(y - x) > 0.01 * max(y, x):
            return 0 if y > x else 1
        return 0 if self.images.shape[1] <= self.images.shape[2] else 1


def heart_centre(images: NDArray[Any], pixel_mm: tuple[float, float]) -> tuple[int, int]:
    """Row and column of where a cine moves most: the heart.

    Parameters
    ----------
    images : ndarray
        `(phase, y, x)`; only magnitudes count.
    pixel_mm : tuple of float
        (y, x)
    """
    return moving_centre(np.abs(images).astype(np.float32).std(axis=0), pixel_mm)


def moving_centre(moves: F32, pixel_mm: tuple[float, float]) -> tuple[int, int]:
    """Row and column around which most moves, where `moves` `(y, x)` says how much each pixel does."""
    near = gaussian_filter(moves, [HEART_MM / 2 / step for step in pixel_mm], mode="constant")
    for axis, size in enumerate(near.shape):  # hearts lie near the middle; bowels and vessels move, too
        off = (np.arange(size) - (size - 1) / 2) / (CENTRAL * size)
        near = near * np.exp(-0.5 * off**2).reshape(-1, *(1,) * (1 - axis)).astype(np.float32)
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    return int(row), int(column)


def heart_window(images: NDArray[Any], pixel_mm: tuple[float, float], side: int = 64) -> tuple[slice, slice]:
    """Rows and columns of the `side` pixels around the heart, inside the image."""
    return _around(heart_centre(images, pixel_mm), images.shape[-2:], side)


def scan_window(scan: FullScan, side: int = 64) -> tuple[slice, slice]:
    """`heart_window` of a scan; of a drawn one around its ventricles, where the slice cuts them.

    A drawn stomach moves with the breathing, and may move more than a small heart.
    """
    centre = scan.heart_centre()
    return _around(centre or heart_centre(scan.images, scan.pixel_mm), scan.images.shape[-2:], side)


def _around(centre: tuple[int, int], shape: tuple[int, ...], side: int) -> tuple[slice, slice]:
    parts = []
    for middle, size in zip(centre, shape, strict=True):
        start = min(max(middle - side // 2, 0), max(size - side, 0))
        parts.append(slice(start, start + min(side, size)))
    return parts[0], parts[1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Imaged:
    """A cine's heart in a scanner: what its receivers would see without noise."""

    images: NDArray[np.complex64]
    """`(phase, y, x)` complex64 in units of noise standard deviation; y along the phase encoding."""
    maps: NDArray[np.complex64]
    """`(coil, y, x)` complex64 after whitening, unit root-sum-of-squares."""
    pixel_mm: tuple[float, float]
    """(y, x)"""
    metadata: dict[str, str]
    """Words of the metadata prompt by slot."""
    header: ScanHeader


def imaged(
    rng: np.random.Generator,
    cine: Cine,
    *,
    coils: int | None = None,
    snr: float | None = None,
    vendor: str | None = None,
    field_t: float | None = None,
    shading: float = 0.0,
) -> Imaged:
    """Put a cine's heart into a scanner; what is None is drawn at random.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of chance.
    cine : Cine
        What lies in the scanner.
    coils : int, optional
        Receive coils, 8 to 24 where drawn.
    snr : float, optional
        Mean signal of the brightest tenth of the pixels around the heart over the noise's standard deviation.
    vendor, field_t : optional
        Of the scanner; the cine's own go before.
    shading : float
        How much of the coils' sensitivity is multiplied into the images (0 none, 1 all): archives keep images
        with and without an intensity correction.

    Raises
    ------
    ConfigError
        For no scanner of that vendor and field, fewer than one coil, or a signal that is not positive.
    """
    machine = _machine(rng, cine, vendor, field_t)
    count = int(rng.integers(8, 25)) if coils is None else coils
    level = float(np.exp(rng.uniform(*np.log(USUAL_SNR)))) if snr is None else snr
    if level <= 0:
        raise ConfigError(f"snr is {level}, expected a positive number")
    plane = _plane(cine)
    array = draw_coils(
        rng, vendor=machine.vendor, coils=count, half_widths_mm=_half_widths(rng, cine, plane), size=1.0
    )
    sensitivities = whitened(array.sensitivities(plane), array.covariance)
    rss = np.sqrt(np.sum(np.abs(sensitivities) ** 2, axis=0))
    magnitude = cine.images * (rss / rss.mean())[None] ** np.float32(shading)
    magnitude *= np.float32(level / _bright(magnitude, cine.pixel_mm))
    images = (magnitude * np.exp(1j * _phase(rng, magnitude, plane, cine, machine))).astype(np.complex64)
    maps = (sensitivities / rss).astype(np.complex64)
    pixel_mm = cine.pixel_mm
    if cine.encoded_axis == 1:
        images, maps, pixel_mm = images.swapaxes(1, 2), maps.swapaxes(1, 2), (pixel_mm[1], pixel_mm[0])
    return Imaged(
        images=np.ascontiguousarray(images),
        maps=np.ascontiguousarray(maps),
        pixel_mm=pixel_mm,
        metadata=_words(machine),
        header=_header(images.shape[1:], pixel_mm, machine, array),
    )


def scan_of_cine(rng: np.random.Generator, cine: Cine, **choices: Any) -> FullScan:
    """Scan a cine's heart, fully sampled; arguments and errors as for `imaged`.

    Rows are phase encoding lines: a cine encoded along x comes transposed.
    """
    seen = imaged(rng, cine, **choices)
    kspace = centred_fft(seen.maps[None] * seen.images[:, None]).astype(np.complex64)
    kspace += complex_noise(rng, kspace.shape)
    times, interval = _times(cine)
    return FullScan(
        images=seen.images,
        maps=seen.maps,
        kspace=kspace,
        metadata=seen.metadata,
        header=seen.header,
        pixel_mm=seen.pixel_mm,
        trigger_times_ms=times,
        rr_interval_ms=interval,
    )


def _machine(rng: np.random.Generator, cine: Cine, vendor: str | None, field_t: float | None) -> Model:
    fits = find_models(vendor=cine.vendor or vendor, field_t=cine.field_t or field_t)
    return fits[int(rng.integers(len(fits)))]


def _plane(cine: Cine) -> Plane:
    ny, nx = cine.images.shape[1:]
    fov = (ny * cine.pixel_mm[0], nx * cine.pixel_mm[1])
    return Plane.make((ny, nx), fov_mm=fov, z=0.0, thickness_mm=8.0)


def _half_widths(rng: np.random.Generator, cine: Cine, plane: Plane) -> tuple[float, float]:
    """Half widths (x, y) of the body, mm: what the images show of it, within what bodies are."""
    mean = gaussian_filter(cine.images.mean(axis=0), 3)
    lit = mean > 0.1 * np.quantile(mean, 0.95)
    seen = [np.quantile(np.abs(axis[lit]), 0.98) for axis in (plane.x, plane.y)]
    return (
        float(np.clip(seen[0] * rng.uniform(1.0, 1.1), 140, 200)),
        float(np.clip(seen[1] * rng.uniform(1.0, 1.1), 95, 140)),
    )


def _bright(magnitude: F32, pixel_mm: tuple[float, float]) -> float:
    rows, columns = heart_window(magnitude, pixel_mm)
    part = np.sort(magnitude[:, rows, columns], axis=None)
    return float(part[-max(1, part.size // 10) :].mean())


def _phase(rng: np.random.Generator, magnitude: F32, plane: Plane, cine: Cine, machine: Model) -> F32:
    """`(phase, y, x)` radians: background, off-resonance at the echo, change over the cycle, flow."""
    frames = len(magnitude)
    turn = (2 * np.pi * np.arange(frames) / frames).astype(np.float32)
    x, y = plane.x / np.float32(180), plane.y / np.float32(180)
    terms = np.stack(
        [np.ones_like(x), x, y, x * y, x * x - 0.2, y * y - 0.2, x**3 - x * y * y, y**3 - y * x * x]
    )
    background = np.tensordot(rng.normal(0, [np.pi, 0.7, 0.7, 0.5, 0.5, 0.5, 0.4, 0.4]), terms, axes=1)
    hertz = OFF_RESONANCE_HZ[machine.nominal_t] * _smooth_field(rng, cine, 45.0)
    still = background + 2 * np.pi * hertz * rng.uniform(*TE_MS) / 1e3
    swing = np.tensordot(rng.normal(0, 0.08, len(terms)), terms, axes=1)
    changing = np.cos(turn + rng.uniform(0, 2 * np.pi))[:, None, None] * swing
    blood = _blood(magnitude, cine.pixel_mm) * _smooth_field(rng, cine, 25.0)
    speed = np.maximum(np.sin(turn - rng.uniform(0, 1)), 0) - 0.5 * np.maximum(np.sin(2 * turn + 1.0), 0)
    flow = rng.uniform(*FLOW_RAD) * blood * speed[:, None, None]
    return np.asarray(still[None] + changing + flow, np.float32)


def _smooth_field(rng: np.random.Generator, cine: Cine, scale_mm: float) -> F32:
    """`(y, x)` random field of unit deviation that changes over `scale_mm`."""
    shape = cine.images.shape[1:]
    field = gaussian_filter(
        rng.standard_normal(shape).astype(np.float32),
        [scale_mm / step for step in cine.pixel_mm],
        mode="wrap",
    )
    return np.asarray(field / max(float(field.std()), 1e-12), np.float32)


def _blood(magnitude: F32, pixel_mm: tuple[float, float]) -> F32:
    """`(phase, y, x)` 0 to 1: bright and in the moving part, with soft edges."""
    centre = heart_centre(magnitude, pixel_mm)
    ny, nx = magnitude.shape[1:]
    y = (np.arange(ny) - centre[0])[:, None] * pixel_mm[0] / 55.0
    x = (np.arange(nx) - centre[1])[None] * pixel_mm[1] / 55.0
    near = np.exp(-((y * y + x * x) ** 2))
    level = _bright(magnitude, pixel_mm)
    blurred = gaussian_filter(magnitude, (0, 1.2, 1.2))
    return np.asarray(np.clip((blurred / level - 0.45) / 0.3, 0, 1) * near, np.float32)


def _times(cine: Cine) -> tuple[tuple[float, ...], float]:
    frames = len(cine.images)
    times = cine.trigger_times_ms
    if times is None or len(times) != frames or not (np.diff(times) > 0).all():
        times = tuple(float(t) for t in np.arange(frames) * (900.0 / frames))
    step = float(np.median(np.diff(times)))
    return tuple(map(float, times)), float(times[-1] - times[0] + step)


def _words(machine: Model) -> dict[str, str]:
    return {
        "lifespan": "Adult",
        "field": f"{machine.nominal_t}T",
        "vendor": machine.vendor,
        "scanner": machine.name,
        "modality": "cine",
        "view": "short-axis",
    }


def _header(
    shape: tuple[int, ...], pixel_mm: tuple[float, float], machine: Model, coils: CoilArray
) -> ScanHeader:
    ny, nx = shape
    matrix, fov = (nx, ny, 1), (nx * pixel_mm[1], ny * pixel_mm[0], 8.0)
    return ScanHeader(
        encoded_matrix=matrix,
        encoded_fov_mm=fov,
        recon_matrix=matrix,
        recon_fov_mm=fov,
        vendor=vendor_in_header(machine.vendor),
        model=machine.header_name,
        field_strength_t=machine.header_t,
        receiver_channels=len(coils.gains),
        protocol="cine",
    )

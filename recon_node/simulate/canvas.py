"""Painting with anti-aliased analytic shapes: coverage from signed distance, tissues in layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Region = tuple[slice, slice]
TEXEL_MM = 0.5
TEXTURE_SIZE = 512


def coverage(distance: F32, width: float | F32) -> F32:
    """Covered share of a pixel whose centre lies `distance` mm inside an edge that is `width` mm soft."""
    return np.asarray(np.clip(distance / width + 0.5, 0, 1), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texture:
    """Periodic random patterns of zero mean and unit deviation, looked up in mm."""

    grain: F32
    """Fractal grain."""
    strands: F32
    """Thin connected strands (septa of fat, trabeculae), 0 to 1."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Texture:
        """Draw one pair of patterns (256 mm period)."""
        n = TEXTURE_SIZE
        ky = np.fft.fftfreq(n, TEXEL_MM)[:, None]
        kx = np.fft.rfftfreq(n, TEXEL_MM)[None]
        k = np.hypot(ky, kx).astype(np.float32)  # cycles per mm
        fields = []
        for slope, low, cut in ((1.3, 0.010, 0.28), (1.9, 0.03, 0.12)):
            weight = (k + low) ** -slope * np.exp(-((k / cut) ** 4))
            weight[0, 0] = 0
            noise = rng.standard_normal((*k.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
            pattern = np.fft.irfft2(noise * weight, s=(n, n)).astype(np.float32)
            fields.append(pattern / pattern.std())
        return cls(
            grain=fields[0], strands=np.exp(-((fields[1] / 0.25) ** 2)) * np.clip(0.4 + fields[0], 0, 1)
        )

    def at(self, pattern: F32, x: F32, y: F32, offset: float = 0.0) -> F32:
        """Nearest texel of `pattern` at (x, y) mm, moved by `offset` mm along both axes."""
        ix = ((x + np.float32(offset)) * np.float32(1 / TEXEL_MM)).astype(np.int32) & (TEXTURE_SIZE - 1)
        iy = ((y - np.float32(offset)) * np.float32(1 / TEXEL_MM)).astype(np.int32) & (TEXTURE_SIZE - 1)
        return pattern.ravel().take(iy * TEXTURE_SIZE + ix)


class SignalCanvas:
    """Paints signal directly: one image `(y, x)`."""

    def __init__(self, shape: tuple[int, int], signals: NDArray[np.float64]) -> None:
        self.image: F32 = np.zeros(shape, np.float32)
        self.signals = signals.astype(np.float32)

    def layer(self, alpha: F32, tissue: int, gain: F32 | float = 1.0, region: Region = np.s_[:, :]) -> None:
        """Cover `region` with `tissue` by `alpha`, its signal multiplied by `gain`."""
        self.value(alpha, self.signals[tissue] * gain, region)

    def value(self, alpha: F32, signal: F32 | float, region: Region = np.s_[:, :]) -> None:
        """Cover `region` with a given signal by `alpha`."""
        part = self.image[region]
        part += alpha * (signal - part)


class FractionCanvas:
    """Paints tissue fractions `(tissue, y, x)`, for what every frame shares under changing contrast."""

    def __init__(self, shape: tuple[int, int], tissues: int) -> None:
        self.fractions: F32 = np.zeros((tissues, *shape), np.float32)

    def layer(self, alpha: F32, tissue: int, gain: F32 | float = 1.0, region: Region = np.s_[:, :]) -> None:
        """Cover `region` with `tissue` by `alpha`, its signal multiplied by `gain`."""
        part = self.fractions[(slice(None), *region)]
        part *= 1 - alpha
        part[tissue] += alpha * gain

    def image(self, signals: NDArray[np.float64]) -> F32:
        """Signal `(y, x)` under one contrast."""
        return np.tensordot(signals.astype(np.float32), self.fractions, axes=1)


Canvas = SignalCanvas | FractionCanvas


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoid:
    """An ellipsoid with one axis along the slice normal, turned in plane."""

    x: float
    y: float
    a: float
    b: float
    angle: float = 0.0
    """Radians from x to the a axis, towards y."""
    z: float = 0.0
    """Centre along the slice normal, mm."""
    c: float = 1e6
    """Semi-axis along the slice normal, mm."""
    power: float = 2.0
    """2 is an ellipse, more makes it boxier."""

    def at(self, z: float) -> Ellipsoid | None:
        """The ellipse in the plane at `z`, None where the plane misses."""
        rest = 1 - ((z - self.z) / self.c) ** 2
        if rest <= 0.02:
            return None
        s = float(np.sqrt(rest))
        return Ellipsoid(x=self.x, y=self.y, a=self.a * s, b=self.b * s, angle=self.angle, power=self.power)

    def distance(self, x: F32, y: F32) -> F32:
        """Mm inside the edge (first order), negative outside."""
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        u = (c * dx + s * dy) * np.float32(1 / self.a)
        v = (c * dy - s * dx) * np.float32(1 / self.b)
        if self.power != 2.0:
            f = (np.abs(u) ** self.power + np.abs(v) ** self.power) ** np.float32(1 / self.power)
            return np.asarray((1 - f) * np.float32(min(self.a, self.b)), np.float32)
        f = np.sqrt(u * u + v * v)
        slope = np.sqrt((u / self.a) ** 2 + (v / self.b) ** 2) + np.float32(1e-6)
        return np.asarray((1 - f) * np.minimum(f / slope, np.float32(max(self.a, self.b))), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """Pixel grid of a slice in phantom coordinates (mm): x to the right, y down, z along the normal."""

    x: F32
    """`(y, x)`."""
    y: F32
    """`(y, x)`."""
    z: float
    pixel_mm: float
    thickness_mm: float

    @classmethod
    def make(
        cls, shape: tuple[int, int], *, fov_mm: tuple[float, float], z: float, thickness_mm: float
    ) -> Plane:
        """Grid of `shape` (y, x) over `fov_mm` (y, x), index ``n // 2`` at the origin."""
        steps = [f / n for f, n in zip(fov_mm, shape, strict=True)]
        y, x = ((np.arange(n) - n // 2) * s for n, s in zip(shape, steps, strict=True))
        grid_y, grid_x = np.meshgrid(y.astype(np.float32), x.astype(np.float32), indexing="ij")
        return cls(x=grid_x, y=grid_y, z=z, pixel_mm=float(np.mean(steps)), thickness_mm=thickness_mm)

    def region(self, shape: Ellipsoid, margin: float) -> Region | None:
        """Rows and columns that `shape` may touch, None if none."""
        reach = max(shape.a, shape.b) + margin
        rows = _span(self.y[:, 0], shape.y, reach)
        columns = _span(self.x[0], shape.x, reach)
        return None if rows is None or columns is None else (rows, columns)


def _span(axis: F32, centre: float, reach: float) -> slice | None:
    start, stop = np.searchsorted(axis, [centre - reach, centre + reach])
    return slice(int(start), int(stop)) if stop > start else None

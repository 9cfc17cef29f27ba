"""The machine: vendors and models, receive coils, receiver noise.

Coils are circular loops on an ellipse around the thorax; their sensitivity is the transverse field
``Bx - i By`` that a unit current would make (reciprocity; Hoult and Richards, J Magn Reson 24:71, 1976),
summed over straight segments by Biot and Savart's law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError
from recon_node.simulate.canvas import Plane

Complex = NDArray[np.complex128]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A scanner model."""

    vendor: str
    """As CardioMM's prompts name it: Siemens, GE, Philips, UIH."""
    name: str
    """As the prompts name it, for example Vida."""
    header_name: str
    """As the scanner writes it into the header, for example MAGNETOM Vida."""
    nominal_t: float
    header_t: float


def _models(vendor: str, prefix: str, names: str, nominal_t: float, header_t: float) -> tuple[Model, ...]:
    return tuple(
        Model(vendor=vendor, name=n, header_name=f"{prefix}{n}", nominal_t=nominal_t, header_t=header_t)
        for n in names.split(", ")
    )


MODELS: tuple[Model, ...] = (
    *_models("Siemens", "MAGNETOM ", "Free.Max", 0.55, 0.55),
    *_models("Siemens", "MAGNETOM ", "Avanto, Aera, Sola", 1.5, 1.494),
    *_models("Siemens", "MAGNETOM ", "Vida, Skyra, Prisma, CIMA.X", 3.0, 2.89362),
    *_models("GE", "SIGNA ", "Artist, Voyager", 1.5, 1.5),
    *_models("GE", "SIGNA ", "Premier, Architect", 3.0, 3.0),
    *_models("Philips", "", "Ambition, Achieva", 1.5, 1.5),
    *_models("Philips", "", "Ingenia, Elition", 3.0, 3.0),
    *_models("UIH", "uMR ", "670", 1.5, 1.5),
    *_models("UIH", "uMR ", "790, 880", 3.0, 3.0),
    *_models("UIH", "uMR ", "Jupiter", 5.0, 5.0),
)
VENDORS = ("Siemens", "GE", "Philips", "UIH")
NOMINAL_FIELDS_T = (0.55, 1.5, 3.0, 5.0)

_VENDOR_IN_HEADER = {"Siemens": "SIEMENS", "GE": "GE MEDICAL SYSTEMS", "Philips": "Philips", "UIH": "UIH"}


def vendor_in_header(vendor: str) -> str:
    """The manufacturer as its scanners write it."""
    return _VENDOR_IN_HEADER[vendor]


def find_models(
    *, vendor: str | None = None, field_t: float | None = None, model: str | None = None
) -> list[Model]:
    """Every model that fits.

    Raises
    ------
    ConfigError
        If none does; says what there is.
    """
    fits = [
        m
        for m in MODELS
        if (vendor is None or m.vendor.lower() == vendor.lower())
        and (field_t is None or abs(m.nominal_t - field_t) < 0.2)
        and (model is None or model.lower() in (m.name.lower(), m.header_name.lower()))
    ]
    if not fits:
        known = "; ".join(f"{m.vendor} {m.name} {m.nominal_t} T" for m in MODELS)
        raise ConfigError(
            f"no scanner for vendor {vendor or 'any'}, field {field_t or 'any'} T, "
            f"model {model or 'any'}; there are: {known}"
        )
    return fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a vendor spreads its loops over the thorax."""

    front: float
    """Share of the loops on the chest; the rest lie in the table."""
    rows: int
    """Rows along the body."""
    radius_mm: float
    gap_mm: float
    """Distance from the skin."""
    spread_rad: float
    """Angle that the front array covers to each side."""
    coupling: float
    """Noise correlation of neighbours."""


LAYOUTS = {
    "Siemens": Layout(front=0.5, rows=2, radius_mm=100, gap_mm=60, spread_rad=1.25, coupling=0.30),
    "GE": Layout(front=0.6, rows=2, radius_mm=90, gap_mm=52, spread_rad=1.45, coupling=0.22),
    "Philips": Layout(front=0.5, rows=1, radius_mm=112, gap_mm=68, spread_rad=1.05, coupling=0.38),
    "UIH": Layout(front=0.55, rows=2, radius_mm=95, gap_mm=58, spread_rad=1.35, coupling=0.26),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoilArray:
    """Loops around one body and their receivers."""

    centres_mm: FloatArray
    """`(coil, 3)` in phantom coordinates (x, y, z)."""
    normals: FloatArray
    """`(coil, 3)` unit."""
    radius_mm: float
    gains: Complex
    """`(coil,)` receiver gain and phase."""
    covariance: Complex
    """`(coil, coil)` of the receiver noise, Hermitian, in receiver units (before whitening)."""

    def sensitivities(self, plane: Plane, *, grid: int = 24) -> NDArray[np.complex64]:
        """`(coil, y, x)` sensitivities, computed on `grid` points a side and interpolated by cubics."""
        rows = _cubic_weights(plane.y[:, 0].astype(float), grid)
        columns = _cubic_weights(plane.x[0].astype(float), grid)
        y, x = rows[1], columns[1]
        gy, gx = np.meshgrid(y, x, indexing="ij")
        points = np.stack([gx, gy, np.full_like(gx, plane.z)], axis=-1)
        coarse = np.stack(
            [
                gain * _loop_field(points, centre, normal, self.radius_mm)
                for centre, normal, gain in zip(self.centres_mm, self.normals, self.gains, strict=True)
            ]
        )
        fine = rows[0].astype(np.float32) @ coarse.astype(np.complex64) @ columns[0].T.astype(np.float32)
        return np.asarray(fine, np.complex64)


def _cubic_weights(axis: FloatArray, grid: int) -> tuple[FloatArray, FloatArray]:
    """Matrix of Catmull-Rom weights from `grid` nodes (which overhang by one each side) to `axis`."""
    step = (axis[-1] - axis[0]) / (grid - 3)
    nodes = axis[0] + step * (np.arange(grid) - 1)
    position = np.clip((axis - nodes[0]) / step, 1, grid - 2 - 1e-9)
    left = position.astype(int)
    t = position - left
    weights = np.zeros((axis.size, grid))
    cubic = np.stack(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ]
    )
    for k in range(4):
        weights[np.arange(axis.size), left - 1 + k] = cubic[k]
    return weights, nodes


def _loop_field(points: FloatArray, centre: FloatArray, normal: FloatArray, radius: float) -> Complex:
    """Transverse field ``Bx - i By`` (z is the main field's axis) of a unit current in a circular loop."""
    helper = np.array([0.0, 0.0, 1.0]) if abs(normal[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    u = np.cross(normal, helper)
    u /= np.linalg.norm(u)
    v = np.cross(normal, u)
    angle = np.linspace(0, 2 * np.pi, 25)
    corners = centre + radius * (np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v)
    middle, step = (corners[1:] + corners[:-1]) / 2, np.diff(corners, axis=0)
    rel = points[..., None, :] - middle
    inverse = 1 / (np.sum(rel**2, axis=-1) + 60.0) ** 1.5  # wires have a thickness
    bx = np.sum((step[:, 1] * rel[..., 2] - step[:, 2] * rel[..., 1]) * inverse, axis=-1)
    by = np.sum((step[:, 2] * rel[..., 0] - step[:, 0] * rel[..., 2]) * inverse, axis=-1)
    return np.asarray(radius * (bx - 1j * by))


def draw_coils(
    rng: np.random.Generator,
    *,
    vendor: str,
    coils: int,
    half_widths_mm: tuple[float, float],
    size: float = 1.0,
) -> CoilArray:
    """Draw an array of `coils` loops for a body of the given half widths (x, y).

    Raises
    ------
    ConfigError
        For less than one coil.
    """
    if coils < 1:
        raise ConfigError(f"{coils} coils were asked for, expected at least 1")
    layout = LAYOUTS[vendor]
    front = min(coils, max(1, round(layout.front * coils)))
    angles = np.concatenate(
        [
            -np.pi / 2 + _spaced(front, layout.rows) * layout.spread_rad,
            np.pi / 2 + _spaced(coils - front, layout.rows) * 0.95,
        ]
    )
    angles = angles + rng.normal(0, 0.06, coils) + rng.normal(0, 0.05)
    row = np.concatenate([np.arange(n) % layout.rows for n in (front, coils - front)])
    z = (row - (layout.rows - 1) / 2) * 85 * size + rng.normal(0, 9, coils)
    a, b = (w + layout.gap_mm for w in half_widths_mm)
    centres = np.stack([a * np.cos(angles), b * np.sin(angles), z], axis=1)
    normals = np.stack([-np.cos(angles) / a, -np.sin(angles) / b, rng.normal(0, 0.001, coils)], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    gains = rng.lognormal(0, 0.15, coils) * np.exp(2j * np.pi * rng.random(coils))
    radius = layout.radius_mm * min(1.0, 0.55 + 3.2 / coils + 0.2 * size)
    return CoilArray(
        centres_mm=centres,
        normals=normals,
        radius_mm=radius,
        gains=gains,
        covariance=_covariance(rng, centres, radius, gains, layout.coupling),
    )


def _spaced(count: int, rows: int) -> FloatArray:
    """Positions -1..1 of `count` loops dealt out over `rows` rows."""
    columns = -(-count // rows)
    if columns <= 1:
        return np.zeros(count)
    column = np.arange(count) // rows
    stagger = (np.arange(count) % rows) * 0.5 / columns
    return np.asarray(-1 + 2 * column / (columns - 1) + stagger)


def _covariance(
    rng: np.random.Generator, centres: FloatArray, radius: float, gains: Complex, coupling: float
) -> Complex:
    """Noise of loops that share tissue: correlation falls with distance; positive definite by build."""
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    near = np.exp(-((apart / (1.6 * radius)) ** 2))
    phase = np.exp(1j * rng.normal(0, 0.6, len(centres)))
    correlation = (1 - coupling) * np.eye(len(centres)) + coupling * near * np.outer(phase, phase.conj())
    level = np.abs(gains) * rng.lognormal(0, 0.1, len(centres))
    turn = gains / np.abs(gains)
    return np.asarray(correlation * np.outer(level * turn, (level * turn).conj()))


def whitened(sensitivities: NDArray[np.complex64], covariance: Complex) -> NDArray[np.complex64]:
    """`(coil, ...)` after multiplication by the inverse Cholesky factor of `covariance`."""
    factor = np.linalg.inv(np.linalg.cholesky(covariance)).astype(np.complex64)
    flat = factor @ sensitivities.reshape(len(factor), -1)
    return np.asarray(flat.reshape(sensitivities.shape), np.complex64)

"""The heart: ventricles with exact volumes, papillary muscles, atria, and how it all deforms.

Local coordinates (mm): `p` from the left ventricle's axis towards the right ventricle, `q` across,
`h` along the axis from the endocardial apex to the base. Both left ventricular surfaces are half
ellipsoids cut at the valve plane, so that ``volume = 2/3 pi radius^2 length`` holds exactly; the wall
keeps its volume while the cavity shrinks, and the valve plane moves towards the apex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.simulate.canvas import F32

ANGLES = 720
"""Entries of the table that ripples the endocardium."""
MYOCARDIUM_DENSITY_G_PER_ML = 1.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heart:
    """One heart at end diastole and how far it contracts."""

    edv_ml: float
    ejection_fraction: float
    length_mm: float
    """Left ventricular cavity, apex to valve plane."""
    shortening: float
    """Share of that length lost at end systole."""
    myocardium_ml: float
    apex_mm: float
    """Wall thickness at the apex."""
    rv_offset_mm: float
    rv_radial_mm: float
    rv_tangential_mm: float
    rv_contraction: float
    twist_rad: float
    """Rotation of the apex at end systole."""
    ripple: F32
    """`(ANGLES,)` relative radius of the endocardium over the angle; its mean square is 1."""
    fat_mm: F32
    """`(ANGLES,)` thickness of the epicardial fat; most in the grooves between the ventricles."""
    papillary_rad: tuple[float, ...]
    papillary_mm: float
    scar_rad: tuple[float, float] | None = None
    """(centre, half width) of an infarcted sector."""
    scar_depth: float = 0.5
    """Share of the wall, from the endocardium outwards, that is scar."""

    def at(self, filling: float) -> HeartState:
        """The heart at one moment, `filling` 0 (end systole) to 1 (end diastole)."""
        emptied = 1 - filling
        volume = self.edv_ml * (1 - self.ejection_fraction * emptied)
        length = self.length_mm * (1 - self.shortening * emptied)
        outer = length + self.apex_mm
        squeeze = self.rv_contraction * emptied
        return HeartState(
            heart=self,
            filling=filling,
            volume_ml=volume,
            length=length,
            radius=float(np.sqrt(1500 * volume / (np.pi * length))),
            outer_length=outer,
            outer_radius=float(np.sqrt(1500 * (volume + self.myocardium_ml) / (np.pi * outer))),
            rv_offset=self.rv_offset_mm * (1 - 0.55 * squeeze),
            rv_radial=self.rv_radial_mm * (1 - squeeze),
            rv_tangential=self.rv_tangential_mm * (1 - 0.5 * squeeze),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeartState:
    """The heart at one moment; lengths in mm."""

    heart: Heart
    filling: float
    volume_ml: float
    length: float
    radius: float
    outer_length: float
    outer_radius: float
    rv_offset: float
    rv_radial: float
    rv_tangential: float

    def right_volume_ml(self) -> float:
        """Right ventricular cavity: its ellipsoid less what the left ventricle takes, by quadrature."""
        theta = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        edges = np.linspace(0, self.length, 61)
        h = ((edges[:-1] + edges[1:]) / 2)[:, None]
        s = np.sqrt(np.maximum(1 - ((self.length - h) / (0.92 * self.length)) ** 2, 0))
        outer = self.outer_radius * np.sqrt(np.maximum(1 - ((self.length - h) / self.outer_length) ** 2, 0))
        c, d = np.cos(theta) / self.rv_radial, np.sin(theta) / self.rv_tangential
        k = self.rv_offset * s / self.rv_radial
        root = np.sqrt(np.maximum((c * k) ** 2 - (c**2 + d**2) * (k**2 - s**2), 0))
        reach = np.where(s > 0, (c * k + root) / (c**2 + d**2), 0)
        area = 0.5 * np.sum(np.maximum(reach**2 - outer**2, 0), axis=1) * (2 * np.pi / theta.size)
        return float(np.sum(area) * (edges[1] - edges[0]) / 1e3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Local:
    """Pixels in local coordinates at one moment, with what the surfaces need."""

    p: F32
    q: F32
    h: F32
    r: F32
    angle: NDArray[np.int32]
    """Index into tables over the angle."""
    across: bool
    """True for a short-axis plane (h is its normal)."""
    pixel_mm: float
    thickness_mm: float

    @classmethod
    def make(
        cls, p: F32, q: F32, h: F32 | float, *, across: bool, pixel_mm: float, thickness_mm: float
    ) -> Local:
        """Add radius and angle to (p, q, h)."""
        height = np.asarray(h, np.float32)
        angle = (np.arctan2(q, p) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
        return cls(
            p=p,
            q=q,
            h=height,
            r=np.hypot(p, q),
            angle=angle,
            across=across,
            pixel_mm=pixel_mm,
            thickness_mm=thickness_mm,
        )

    def half_ellipsoid(self, r: F32, radius: float, length: float, top: float) -> tuple[F32, F32]:
        """Distance inside a half ellipsoid whose equator is at ``h = top``, and the edge's softness (mm)."""
        u = r * np.float32(1 / radius)
        w = np.maximum(top - self.h, 0) * np.float32(1 / length)
        f = np.sqrt(u * u + w * w)
        gu, gw = u * np.float32(1 / radius), w * np.float32(1 / length)
        slope = np.sqrt(gu * gu + gw * gw) + np.float32(1e-6)
        distance = (1 - f) * np.minimum(f / slope, np.float32(radius))
        return distance, self.softness(gw / slope)

    def softness(self, along: F32) -> F32:
        """Width of an edge whose normal has the component `along` on the h axis."""
        if not self.across:
            return np.full_like(along, self.pixel_mm)
        return self.pixel_mm * np.sqrt(np.maximum(1 - along**2, 0)) + self.thickness_mm * along

    def below(self, top: float) -> F32:
        """Share of each pixel (with its slice thickness) that lies on the apex's side of ``h = top``."""
        width = self.thickness_mm if self.across else self.pixel_mm
        return np.asarray(np.clip((top - self.h) / np.float32(width) + np.float32(0.5), 0, 1), np.float32)


def profile(height: F32, radius: float, length: float, top: float) -> F32:
    """Radius of a half ellipsoid at `height`."""
    w = np.clip((top - height) / np.float32(length), 0, 1)
    return np.asarray(np.float32(radius) * np.sqrt(1 - w * w), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """Where each pixel's matter was at end diastole (local coordinates, mm)."""

    p: F32
    q: F32
    h: F32
    depth: F32
    """0 at the endocardium, 1 at the epicardium (outside the wall less than 0, more than 1)."""


def material(local: Local, now: HeartState, rest: HeartState) -> Material:
    """Undo contraction: radial stretch of cavity and wall, twist, valve-plane motion, drag outside."""
    height = rest.length * np.clip(local.h / np.float32(now.length), 0, 1) + np.maximum(
        local.h - now.length, 0
    )
    ripple = now.heart.ripple[local.angle]
    endo = profile(local.h, now.radius, now.length, now.length) * ripple + np.float32(0.3)
    endo_rest = profile(height, rest.radius, rest.length, rest.length) * ripple + np.float32(0.3)
    epi = np.maximum(profile(local.h, now.outer_radius, now.outer_length, now.length), endo + 1)
    epi_rest = np.maximum(profile(height, rest.outer_radius, rest.outer_length, rest.length), endo_rest + 1)
    depth = (local.r - endo) / (epi - endo)
    inside = local.r * (endo_rest / endo)
    wall = endo_rest + depth * (epi_rest - endo_rest)
    side = np.maximum(local.p, 0) / (local.r + np.float32(1e-3))
    right_edge = now.rv_offset + now.rv_radial
    loss = (rest.rv_offset + rest.rv_radial) - right_edge
    beyond = np.maximum(local.r - epi - side * np.maximum(right_edge - epi, 0), 0)
    drag = ((epi_rest - epi) * (1 - side) + loss * side * side) * np.exp(beyond * np.float32(-1 / 18))
    radius = np.where(depth < 0, inside, np.where(depth < 1, wall, local.r + drag))
    scale = radius / (local.r + np.float32(1e-3))
    turn = now.heart.twist_rad * (1 - now.filling) * (0.5 - np.clip(height / rest.length, 0, 1))
    turn = turn * np.clip(np.float32(1.6) - depth * np.float32(0.6), 0, 1)
    c, s = np.cos(turn), np.sin(turn)
    p, q = local.p * scale, local.q * scale
    return Material(p=c * p + s * q, q=c * q - s * p, h=height, depth=depth)


def draw_heart(rng: np.random.Generator, *, size: float = 1.0, infarct: bool = False) -> Heart:
    """Draw a heart.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : float
        Body size, 1 for a mean adult; volumes go with its third power.
    infarct : bool
        Give it a scarred sector, thinner to contract.
    """
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    order = np.arange(2, 15)
    amount = rng.standard_normal(order.size) * 0.030 / np.sqrt(order / 2)
    ripple = 1 + amount @ np.cos(order[:, None] * angle + rng.uniform(0, 2 * np.pi, (order.size, 1)))
    ripple /= np.sqrt(np.mean(ripple**2))
    low = np.arange(1, 6)
    waves = (rng.standard_normal(5) * 0.35 / low) @ np.cos(
        low[:, None] * angle + rng.uniform(0, 6.28, (5, 1))
    )
    turn = np.abs(np.angle(np.exp(1j * angle)))
    fat = rng.uniform(1.5, 4.5) * np.maximum(1 + waves, 0.3) + 5 * np.exp(-(((turn - 1.2) / 0.3) ** 2))
    volume = size**3
    centre = rng.uniform(-1.2, 1.2) + np.pi
    return Heart(
        edv_ml=float(np.clip(rng.normal(142, 28), 80, 240)) * volume,
        ejection_fraction=float(np.clip(rng.normal(0.50 if infarct else 0.60, 0.09), 0.22, 0.76)),
        length_mm=float(rng.uniform(82, 98)) * size,
        shortening=float(rng.uniform(0.10, 0.18)),
        myocardium_ml=float(np.clip(rng.normal(112, 24), 65, 210)) * volume,
        apex_mm=float(rng.uniform(4.5, 7)) * size,
        rv_offset_mm=float(rng.uniform(25, 30)) * size,
        rv_radial_mm=float(rng.uniform(34, 39)) * size,
        rv_tangential_mm=float(rng.uniform(40, 47)) * size,
        rv_contraction=float(rng.uniform(0.14, 0.24)),
        twist_rad=float(rng.uniform(0.1, 0.3)),
        ripple=ripple.astype(np.float32),
        fat_mm=(fat * size).astype(np.float32),
        papillary_rad=(float(rng.normal(2.25, 0.15)), float(rng.normal(-2.35, 0.15))),
        papillary_mm=float(rng.uniform(3.6, 5.2)) * size,
        scar_rad=(float(centre), float(rng.uniform(0.35, 0.9))) if infarct else None,
        scar_depth=float(rng.uniform(0.3, 0.9)),
    )

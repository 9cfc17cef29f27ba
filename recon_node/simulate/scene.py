"""One slice through body and heart, painted phase by phase, with the ventricles' exact truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.simulate.anatomy import Anatomy, Warped, paint_lungs, paint_wall
from recon_node.simulate.canvas import (
    F32,
    Ellipsoid,
    FractionCanvas,
    Plane,
    SignalCanvas,
    Texture,
    coverage,
)
from recon_node.simulate.contrast import BLOOD, FAT, MYOCARDIUM, SCAR, TISSUES, Contrast
from recon_node.simulate.detail import Detail
from recon_node.simulate.geometry import LONG_AXIS_TILT_RAD
from recon_node.simulate.heart import Heart, HeartState, Local, Material, material
from recon_node.simulate.motion import Moments

CHEST_RISE = 0.5
"""How far the sternum rises for each mm that the heart goes down."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """What a slice looks like and what is in it; phases first."""

    signal: F32
    """`(phase, y, x)` signed transverse magnetisation."""
    lv: F32
    """`(phase, y, x)` share of each pixel that is left ventricular cavity (papillary muscles included)."""
    myocardium: F32
    """`(phase, y, x)` left ventricular wall."""
    rv: F32
    """`(phase, y, x)` right ventricular cavity."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """Everything that decides the pictures of one subject under one contrast."""

    anatomy: Anatomy
    heart: Heart
    texture: Texture
    moments: Moments
    contrast: Contrast
    long_axis: bool
    """The plane holds the heart's axis; otherwise it is perpendicular to it."""
    centre_mm: tuple[float, float]
    """(x, y) of the heart's centre at z = 0."""
    rv_rad: float
    """Direction of the right ventricle from the left one, radians above the image's left."""
    texture_depth: float = 1.0
    detail: Detail | None = None
    """What a heart as hard as a real one has besides."""

    def states(self) -> list[HeartState]:
        """The heart in every phase."""
        return [self.heart.at(float(f)) for f in self.moments.filling]

    def volumes_ml(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Left and right ventricular volume of every phase."""
        states = self.states()
        return np.array([s.volume_ml for s in states]), np.array([s.right_volume_ml() for s in states])

    def render(self, plane: Plane) -> Frames:
        """Paint every phase of one slice."""
        rest = self.heart.at(1.0)
        shape = (len(self.moments.filling), *plane.x.shape)
        out = Frames(**{name: np.empty(shape, np.float32) for name in ("signal", "lv", "myocardium", "rv")})
        still = not self.moments.breath_mm.any()
        for i, now in enumerate(self.states()):
            canvas = SignalCanvas(plane.x.shape, self.contrast.signals[i])
            masks = self._inside(canvas, plane, now, rest, i)
            if i == 0 or not still:
                fixed, cavity = self._wall(plane, float(self.moments.breath_mm[i]))
            wall = fixed.image(self.contrast.signals[i])
            out.signal[i] = wall + cavity * (canvas.image - wall)
            out.lv[i], out.myocardium[i], out.rv[i] = masks
        if self.detail is not None:
            level = self.detail.noise * float(np.abs(self.contrast.signals[:, BLOOD]).max())
            noise = np.random.default_rng(self.detail.seed).standard_normal(shape, dtype=np.float32)
            out.signal[:] += np.float32(level) * noise
        return out

    # -- geometry ----------------------------------------------------------------------------------

    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """In-plane unit vectors of `p` and of the second local axis (q, or h in a long-axis view)."""
        a = self.rv_rad
        p = np.array([-np.cos(a), -np.sin(a)])
        if self.long_axis:
            tilt = a + LONG_AXIS_TILT_RAD
            p = np.array([-np.cos(tilt), -np.sin(tilt)])
            return p, np.array([p[1], -p[0]])
        return p, np.array([-p[1], p[0]])

    def _local(self, plane: Plane, breath: float, beat: float) -> Local:
        size = self.anatomy.size
        cx = self.centre_mm[0] + 0.12 * plane.z + 2.0 * size * beat
        cy = self.centre_mm[1] - 0.06 * plane.z + 0.9 * breath - 1.2 * size * beat
        dx, dy = plane.x - np.float32(cx), plane.y - np.float32(cy)
        e, f = self._axes()
        p = dx * np.float32(e[0]) + dy * np.float32(e[1])
        second = dx * np.float32(f[0]) + dy * np.float32(f[1])
        middle = self.heart.length_mm / 2
        across = not self.long_axis
        q, h = (
            (second, middle - plane.z + 0.35 * breath)
            if across
            else (np.full_like(p, plane.z), second + np.float32(middle))
        )
        return Local.make(p, q, h, across=across, pixel_mm=plane.pixel_mm, thickness_mm=plane.thickness_mm)

    def _warp(self, plane: Plane, local: Local, moved: Material, breath: float) -> Warped:
        """Take heartbeat and breath out of the pixel coordinates."""
        e, f = (v.astype(np.float32) for v in self._axes())
        du = moved.p - local.p
        dv = moved.q - local.q if local.across else (moved.h - local.h) * np.exp(-np.abs(moved.depth) * 0.3)
        x = plane.x + du * e[0] + dv * f[0]
        y = plane.y + du * e[1] + dv * f[1] - np.float32(breath)
        reach = max(float(np.abs(x - plane.x).max()), float(np.abs(y - plane.y).max()))
        return Warped(x=x, y=y, z=plane.z - 0.3 * breath, reach_mm=reach)

    # -- painting ----------------------------------------------------------------------------------

    def _wall(self, plane: Plane, breath: float) -> tuple[FractionCanvas, F32]:
        """Everything outside the cavity, and the cavity's share of each pixel.

        The chest rises with the breath: most at the sternum, not at all at the back, which lies on the table.
        """
        body = self.anatomy.body
        height = np.clip((body.y + body.b - plane.y) / (2 * body.b), 0, 1)
        risen = plane.y + np.float32(CHEST_RISE * breath) * height.astype(np.float32)
        at = Warped(x=plane.x, y=risen, z=plane.z, reach_mm=abs(CHEST_RISE * breath))
        painted = FractionCanvas(plane.x.shape, len(TISSUES))
        paint_wall(painted, self.anatomy, plane, at, self.texture)
        cavity = coverage(self.anatomy.cavity.distance(at.x, at.y), plane.pixel_mm)
        return painted, cavity * (1 - coverage(self.anatomy.spine.distance(at.x, at.y), plane.pixel_mm))

    def _inside(
        self, canvas: SignalCanvas, plane: Plane, now: HeartState, rest: HeartState, phase: int
    ) -> tuple[F32, F32, F32]:
        breath = float(self.moments.breath_mm[phase])
        local = self._local(plane, breath, 1 - now.filling)
        moved = material(local, now, rest)
        at = self._warp(plane, local, moved, breath)
        paint_lungs(canvas, self.anatomy, plane, at, self.texture)
        self._aorta(canvas, plane, at, phase)
        masks = self._heart(canvas, local, moved, now, phase)
        if self.contrast.tag_spacing_mm:
            self._tags(canvas, at, phase)
        return masks

    def _aorta(self, canvas: SignalCanvas, plane: Plane, at: Warped, phase: int) -> None:
        pulse = np.exp(-(((self.moments.cycle[phase] - 0.2) / 0.12) ** 2))
        lumen = self.anatomy.aorta
        lumen = Ellipsoid(
            x=lumen.x, y=lumen.y, a=lumen.a * (1 + 0.06 * pulse), b=lumen.b * (1 + 0.06 * pulse)
        )
        wall = lumen.distance(plane.x, plane.y)
        canvas.layer(coverage(wall + 2.8, plane.pixel_mm), FAT)
        canvas.layer(coverage(wall + 1.4, plane.pixel_mm), MYOCARDIUM, 0.9)
        swirl = self.texture.at(self.texture.grain, at.x, at.y, 170.0 + 9.0 * phase)
        canvas.layer(coverage(wall, plane.pixel_mm), BLOOD, (1 + 0.25 * pulse * (swirl * 0.3 - 0.2)) * 0.95)

    def _blood(self, p: F32, q: F32, phase: int, side: float) -> F32:
        """Signal gain of moving blood: the pattern drifts with the flow, more of it in systole."""
        drift = np.float32(40 * self.moments.cycle[phase] + side)
        a = self.texture.at(self.texture.grain, p * 0.6 + drift, q * 0.6 - drift, 120.0)
        depth = 0.05 + 0.05 * (1 - self.moments.filling[phase])
        gain = 1 + np.float32(depth * self.texture_depth) * a
        if self.detail is None:
            return gain
        return gain + self.detail.swirl(self.texture, p + np.float32(side), q, phase, self._speed(phase))

    def _speed(self, phase: int) -> float:
        """How fast the ventricles fill or empty, 0 to 1."""
        change = np.abs(np.gradient(self.moments.filling)) if len(self.moments.filling) > 1 else np.zeros(1)
        return float(change[phase] / max(float(change.max()), 1e-6))

    def _heart(
        self, canvas: SignalCanvas, local: Local, moved: Material, now: HeartState, phase: int
    ) -> tuple[F32, F32, F32]:
        tex = self.texture
        second = moved.q if local.across else moved.h
        grain = tex.at(tex.grain, moved.p, second, 200.0)
        fibres = self._fibres(grain, moved, second)
        rv_blood = np.float32(self.contrast.rv_blood[phase])
        base = local.below(now.length)
        outer, outer_soft = local.half_ellipsoid(local.r, now.outer_radius, now.outer_length, now.length)
        right, right_soft = _right(local, now, 0.0)
        envelope = np.maximum(outer, right) + now.heart.fat_mm[local.angle] * (1 + 0.12 * grain)
        canvas.layer(coverage(envelope, outer_soft) * local.below(now.length + 24), FAT, 1 + 0.1 * grain)
        self._atria(canvas, local, moved, now, phase)
        rv_wall = coverage(right + 3.0 + 0.6 * grain, right_soft) * base
        canvas.layer(rv_wall, MYOCARDIUM, fibres)
        ragged = tex.at(tex.grain, moved.p * 1.3, second * 1.3, 240.0) * now.heart.papillary_mm
        rv = coverage(right, right_soft) * base
        canvas.value(rv, rv_blood * self._blood(moved.p, second, phase, 30.0))
        rim = rv * coverage(0.3 + 0.55 * ragged - right, local.pixel_mm) * np.float32(0.8)
        canvas.layer(self._rough(rim, rv, right, moved, local, left=False), MYOCARDIUM, fibres)
        epi = coverage(outer, outer_soft) * base
        canvas.layer(epi, MYOCARDIUM, fibres)
        self._scar(canvas, local, moved, epi)
        ripple = now.heart.ripple[local.angle]
        inner, inner_soft = local.half_ellipsoid(local.r / ripple, now.radius, now.length, now.length)
        lv = coverage(inner, inner_soft) * base
        canvas.layer(lv, BLOOD, self._blood(moved.p, second, phase, 0.0))
        rim = lv * coverage(0.3 * ragged - inner, local.pixel_mm) * np.float32(0.7)
        canvas.layer(self._rough(rim, lv, inner, moved, local, left=True), MYOCARDIUM, fibres)
        self._papillary(canvas, local, now, lv, fibres)
        return lv, np.maximum(epi - lv, 0), rv * (1 - coverage(outer, outer_soft))

    def _fibres(self, grain: F32, moved: Material, second: F32) -> F32:
        """Signal gain of muscle."""
        if self.detail is None:
            return 1 + np.float32(0.065 * self.texture_depth) * grain
        fine = self.detail.solid(self.texture, moved.p, second, moved.h, 77.0)
        deep = 1 + np.float32(self.detail.grain * self.texture_depth) * fine
        return np.asarray(np.maximum(deep, 0.2), np.float32)

    def _rough(self, rim: F32, cavity: F32, inside: F32, moved: Material, local: Local, *, left: bool) -> F32:
        """The rough inner side of a ventricle: `rim` of a plain heart, or trabeculae."""
        if self.detail is None:
            return rim
        reach = self.detail.left_mm if left else self.detail.right_mm
        second = moved.q if local.across else moved.h
        pattern = self.detail.solid(self.texture, moved.p, second, moved.h, 20.0 if left else 50.0)
        return cavity * self.detail.trabeculae(pattern, inside, reach, local.pixel_mm)

    def _scar(self, canvas: SignalCanvas, local: Local, moved: Material, epi: F32) -> None:
        if self.heart.scar_rad is None:
            return
        centre, half = self.heart.scar_rad
        angle = np.arctan2(moved.q, moved.p)
        apart = np.abs(np.angle(np.exp(1j * (angle - centre)))).astype(np.float32)
        sector = np.clip((half - apart) * local.r / local.pixel_mm + 0.5, 0, 1)
        depth = np.clip((self.heart.scar_depth - moved.depth) * 9 / local.pixel_mm + 0.5, 0, 1)
        level = np.clip((local.h - 8) / 6, 0, 1) * np.clip((0.75 * self.heart.length_mm - local.h) / 6, 0, 1)
        canvas.layer((epi * sector * depth * level).astype(np.float32), SCAR)

    def _papillary(self, canvas: SignalCanvas, local: Local, now: HeartState, lv: F32, fibres: F32) -> None:
        size = now.heart.papillary_mm
        where = np.clip((local.h / now.length - 0.22) * 8, 0, 1) * np.clip(
            (0.72 - local.h / now.length) * 8, 0, 1
        )
        bulk = where * size
        w = np.clip((now.length - local.h) / np.float32(now.length), 0, 1)
        endo = now.radius * np.sqrt(1 - w * w)
        away = np.maximum(endo - 1.15 * size - 1.0, 0)
        for angle in now.heart.papillary_rad:
            c, s = np.cos(angle), np.sin(angle)
            u = (local.p * c + local.q * s - away) / 1.25
            v = -local.p * s + local.q * c
            distance = bulk - np.sqrt(u * u + v * v)
            canvas.layer((lv * coverage(distance, local.pixel_mm)).astype(np.float32), MYOCARDIUM, fibres)

    def _atria(
        self, canvas: SignalCanvas, local: Local, moved: Material, now: HeartState, phase: int
    ) -> None:
        """Left and right atrium and the aortic root above the valve plane."""
        above = 1 - local.below(now.length - 1)
        if not np.any(above):
            return
        second = moved.q if local.across else moved.h
        size, full = self.anatomy.size, 1 + 0.10 * (1 - now.filling)
        top = now.length
        rooms = (
            (44, 2, 29, 33, 28, float(self.contrast.rv_blood[phase])),
            (-4, -6, 28, 32, 28, float(canvas.signals[BLOOD])),
            (16, 16, 14, 14, 80, float(canvas.signals[BLOOD])),
        )
        for p, q, a, b, c, blood in rooms:
            u = (local.p - p * size) / (a * size * full)
            v = (local.q - q * size) / (b * size * full)
            w = (local.h - top - 0.75 * c * size) / (c * size * full)
            f = np.sqrt(u * u + v * v + w * w)
            distance = (1 - f) * np.float32(0.9 * min(a, b) * size)
            canvas.layer(coverage(distance + 2.0 * size, local.pixel_mm) * above, MYOCARDIUM)
            canvas.value(
                coverage(distance, local.pixel_mm) * above,
                np.float32(blood) * self._blood(moved.p, second, phase, p),
            )

    def _tags(self, canvas: SignalCanvas, at: Warped, phase: int) -> None:
        """Grid of SPAMM lines that moves with the tissue and fades with T1 (Axel 1989)."""
        k = np.float32(2 * np.pi / self.contrast.tag_spacing_mm)
        lines = np.maximum(np.cos(k * (at.x + at.y) * 0.7071), np.cos(k * (at.x - at.y) * 0.7071))
        depth = np.clip((lines - 0.55) / 0.35, 0, 1) * np.exp(-phase / max(len(self.moments.cycle), 1) * 0.9)
        canvas.image *= 1 - 0.85 * depth.astype(np.float32)


def _right(local: Local, now: HeartState, grow: float) -> tuple[F32, F32]:
    """Distance inside the right ventricle's ellipsoid (left ventricle not taken off) and softness."""
    length = 0.92 * now.length
    w = np.maximum(now.length - local.h, 0) / np.float32(length)
    s = np.sqrt(np.maximum(1 - w * w, 0))
    a, b = now.rv_radial + grow, now.rv_tangential + grow
    u, v = (local.p - now.rv_offset * s) / np.float32(a), local.q / np.float32(b)
    f = np.sqrt(u * u + v * v + w * w)
    gw = w / np.float32(length)
    slope = np.sqrt((u / a) ** 2 + (v / b) ** 2 + gw**2) + np.float32(1e-6)
    return (1 - f) * np.minimum(f / slope, np.float32(min(a, b))), local.softness(gw / slope)

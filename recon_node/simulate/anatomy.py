"""What surrounds the heart: chest wall, lungs with vessels, liver, spleen, stomach, spine, aorta.

Coordinates in mm for a mean adult, x to the image's right (the patient's left), y down (posterior and
towards the feet), z along the stack from base (negative) to apex; `size` scales all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recon_node.simulate.canvas import F32, Canvas, Ellipsoid, Plane, Region, Texture, coverage
from recon_node.simulate.contrast import AIR, BLOOD, BONE, FAT, FLUID, LIVER, LUNG, MUSCLE, SPLEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Organ:
    """A shape filled with one tissue."""

    shape: Ellipsoid
    tissue: int
    grain: float = 0.06
    """Relative depth of its texture."""
    strands: float = 0.0
    """Share of the signal that thin strands take (negative) or add."""
    gain: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The body around the heart."""

    size: float
    body: Ellipsoid
    fat_mm: float
    muscle_mm: float
    cavity: Ellipsoid
    wall: tuple[Organ, ...]
    """Fixed parts: ribs, sternum, spine, muscles of the back."""
    organs: tuple[Organ, ...]
    """Parts that breathe: liver, spleen, vessels, in the order of painting."""
    vessels: tuple[Organ, ...]
    """Vessels of the lungs, which the heart drags along."""
    aorta: Ellipsoid
    spine: Ellipsoid
    """Outline of the vertebral body, which juts into the cavity."""


def draw_anatomy(rng: np.random.Generator, *, size: float = 1.0) -> Anatomy:
    """Draw a body; `size` is 1 for a mean adult."""
    width, depth = rng.normal(168, 8) * size, rng.normal(118, 7) * size
    fat, muscle = rng.uniform(6, 24) * size, rng.uniform(9, 15) * size
    body = Ellipsoid(x=0, y=6 * size, a=width, b=depth, power=2.35)
    inset = fat + muscle
    behind = rng.uniform(38, 44) * size + 0.5 * fat
    half = depth - (inset + behind) / 2
    cavity = Ellipsoid(x=0, y=body.y - depth + inset + half, a=width - inset, b=half, power=2.2)
    spine_x = -14 * size + rng.normal(0, 3)
    back = cavity.y + cavity.b - 10 * size
    aorta = Ellipsoid(
        x=spine_x + rng.uniform(24, 32) * size,
        y=back - rng.uniform(18, 24) * size,
        a=11.5 * size,
        b=11 * size,
    )
    return Anatomy(
        size=size,
        body=body,
        fat_mm=fat,
        muscle_mm=muscle,
        cavity=cavity,
        wall=(*_ribs(rng, cavity, muscle, size), *_spine(spine_x, back, size)),
        organs=_abdomen(rng, cavity, size),
        vessels=_lung_vessels(rng, cavity, size),
        aorta=aorta,
        spine=Ellipsoid(x=spine_x, y=back + 4 * size, a=21 * size, b=17 * size, power=2.6),
    )


def _jitter(rng: np.random.Generator, shape: Ellipsoid, size: float, amount: float = 0.06) -> Ellipsoid:
    f = 1 + amount * rng.standard_normal(5)
    return replace(
        shape,
        x=shape.x * size * f[0],
        y=shape.y * size * f[1],
        a=shape.a * size * f[2],
        b=shape.b * size * f[3],
        z=shape.z * size,
        c=shape.c * size * f[4],
        angle=shape.angle + amount * float(rng.standard_normal()),
    )


def _ribs(rng: np.random.Generator, cavity: Ellipsoid, muscle: float, size: float) -> tuple[Organ, ...]:
    out = []
    count = int(rng.integers(13, 17))
    for i in range(count):
        angle = 2 * np.pi * (i + 0.5 + rng.uniform(-0.2, 0.2)) / count
        if abs(np.sin(angle) - 1) < 0.06:  # the spine is there
            continue
        c, s = np.cos(angle), np.sin(angle)
        radius = (np.abs(c / cavity.a) ** 2.2 + np.abs(s / cavity.b) ** 2.2) ** (-1 / 2.2) + 0.45 * muscle
        shape = Ellipsoid(
            x=cavity.x + radius * c,
            y=cavity.y + radius * s,
            a=rng.uniform(8, 15) * size,
            b=rng.uniform(3.6, 4.8) * size,
            angle=float(np.arctan2(c * cavity.a, -s * cavity.b) + rng.normal(0, 0.08)),
        )
        out.append(Organ(shape=shape, tissue=AIR))
        marrow = replace(shape, a=shape.a - 1.6 * size, b=max(shape.b - 1.6 * size, 0.8))
        out.append(Organ(shape=marrow, tissue=BONE, gain=1.5, grain=0.15))
    sternum = Ellipsoid(x=-24 * size, y=cavity.y - cavity.b - 5 * size, a=17 * size, b=6.5 * size)
    out.append(Organ(shape=sternum, tissue=AIR))
    out.append(
        Organ(shape=replace(sternum, a=sternum.a - 2, b=sternum.b - 2), tissue=BONE, gain=1.5, grain=0.2)
    )
    return tuple(out)


def _spine(x: float, back: float, size: float) -> tuple[Organ, ...]:
    y = back + 4 * size
    vertebra = Ellipsoid(x=x, y=y, a=19 * size, b=15 * size, power=2.6)
    canal = Ellipsoid(x=x, y=y + 22 * size, a=9.5 * size, b=8 * size)
    parts = [
        Organ(
            shape=Ellipsoid(x=x - 32 * size, y=y + 22 * size, a=24 * size, b=15 * size),
            tissue=MUSCLE,
            strands=0.3,
        ),
        Organ(
            shape=Ellipsoid(x=x + 32 * size, y=y + 22 * size, a=24 * size, b=15 * size),
            tissue=MUSCLE,
            strands=0.3,
        ),
        Organ(shape=replace(vertebra, a=vertebra.a + 2, b=vertebra.b + 2), tissue=AIR),
        Organ(shape=vertebra, tissue=BONE, gain=1.25, grain=0.14),
        Organ(shape=replace(canal, a=canal.a + 2.5, b=canal.b + 2.5), tissue=AIR),
        Organ(shape=canal, tissue=FLUID, grain=0.08),
        Organ(shape=Ellipsoid(x=x, y=canal.y, a=4.6 * size, b=3.6 * size), tissue=MUSCLE, gain=1.3),
        Organ(shape=Ellipsoid(x=x, y=canal.y + 19 * size, a=3.4 * size, b=9 * size), tissue=BONE, gain=1.1),
    ]
    return tuple(parts)


def _abdomen(rng: np.random.Generator, cavity: Ellipsoid, size: float) -> tuple[Organ, ...]:
    liver = _jitter(rng, Ellipsoid(x=-64, y=46, a=84, b=56, z=52, c=100, angle=-0.16), size)
    spleen = _jitter(rng, Ellipsoid(x=110, y=38, a=22, b=36, z=50, c=75, angle=0.5), size)
    stomach = _jitter(rng, Ellipsoid(x=62, y=50, a=40, b=25, z=50, c=66, angle=-0.2), size)
    wide = 4 * size
    pad = Ellipsoid(x=-22 * size, y=cavity.y - 0.90 * cavity.b, a=58 * size, b=17 * size)
    organs = [
        Organ(shape=pad, tissue=FAT, grain=0.12, strands=0.15),
        *(
            Organ(shape=_jitter(rng, shape, size, 0.1), tissue=FAT, grain=0.12, strands=0.15)
            for shape in (
                Ellipsoid(x=72, y=16, a=24, b=12, z=20, c=50, angle=-0.7),
                Ellipsoid(x=-26, y=14, a=26, b=14, z=-5, c=55, angle=0.5),
                Ellipsoid(x=8, y=34, a=46, b=13, z=0, c=70, angle=0.05),
            )
        ),
        Organ(
            shape=replace(liver, a=liver.a + wide, b=liver.b + wide, c=liver.c + wide),
            tissue=MUSCLE,
            gain=0.8,
        ),
        Organ(shape=liver, tissue=LIVER, grain=0.07),
        Organ(shape=replace(spleen, a=spleen.a + wide, b=spleen.b + wide), tissue=FAT, gain=0.9, grain=0.1),
        Organ(shape=spleen, tissue=SPLEEN, grain=0.05),
        Organ(shape=replace(stomach, a=stomach.a + wide, b=stomach.b + wide), tissue=MUSCLE, grain=0.15),
        Organ(shape=stomach, tissue=FLUID, gain=0.45, grain=0.35, strands=0.4),
        Organ(
            shape=Ellipsoid(
                x=stomach.x, y=stomach.y - 0.45 * stomach.b, a=0.6 * stomach.a, b=0.4 * stomach.b
            ),
            tissue=AIR,
        ),
    ]
    for _ in range(int(rng.integers(12, 20))):  # hepatic and portal veins
        away, turn = np.sqrt(rng.random()) * 0.85, rng.uniform(0, 2 * np.pi)
        shape = Ellipsoid(
            x=liver.x + away * liver.a * np.cos(turn),
            y=liver.y + away * liver.b * np.sin(turn),
            a=rng.uniform(2.5, 13) * size,
            b=rng.uniform(1.3, 3.2) * size,
            angle=rng.uniform(0, np.pi),
            z=liver.z * rng.uniform(0, 1),
            c=rng.uniform(25, 70) * size,
        )
        organs.append(Organ(shape=shape, tissue=BLOOD, gain=0.9))
    cava = Ellipsoid(x=-30 * size, y=cavity.y + 0.52 * cavity.b, a=13 * size, b=10 * size, angle=0.4)
    organs.append(Organ(shape=cava, tissue=BLOOD, grain=0.08))
    return tuple(organs)


def _lung_vessels(rng: np.random.Generator, cavity: Ellipsoid, size: float) -> tuple[Organ, ...]:
    out = []
    for _ in range(int(rng.integers(70, 110))):
        away, turn = np.sqrt(rng.random()) * 0.95, rng.uniform(0, 2 * np.pi)
        calibre = rng.uniform(0.7, 2.6) * (1.15 - 0.6 * away) * size
        shape = Ellipsoid(
            x=cavity.x + away * cavity.a * np.cos(turn),
            y=cavity.y + away * cavity.b * np.sin(turn),
            a=calibre * rng.uniform(1, 4),
            b=calibre,
            angle=turn + rng.normal(0, 0.5),
            z=rng.uniform(-60, 60) * size,
            c=rng.uniform(15, 60) * size,
        )
        out.append(Organ(shape=shape, tissue=BLOOD, gain=float(rng.uniform(0.5, 1.0))))
    return tuple(out)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Warped:
    """Coordinates of the matter at each pixel, for one moment."""

    x: F32
    y: F32
    z: float
    reach_mm: float = 0.0
    """Farthest that any pixel's matter came."""


def _gain(organ: Organ, texture: Texture, x: F32, y: F32) -> F32 | float:
    gain: F32 | float = organ.gain
    if organ.grain:
        gain = organ.gain * (
            1 + np.float32(organ.grain) * texture.at(texture.grain, x, y, 37.0 * organ.tissue)
        )
    if organ.strands:
        gain = gain * (1 - np.float32(organ.strands) * texture.at(texture.strands, x, y, 11.0))
    return gain


def paint_organs(
    canvas: Canvas, organs: tuple[Organ, ...], plane: Plane, at: Warped, texture: Texture
) -> None:
    """Paint shapes in order, each only where it may be."""
    for organ in organs:
        shape = organ.shape.at(at.z)
        region: Region | None = (
            None if shape is None else plane.region(shape, at.reach_mm + 2 * plane.pixel_mm)
        )
        if shape is None or region is None:
            continue
        x, y = at.x[region], at.y[region]
        alpha = coverage(shape.distance(x, y), plane.pixel_mm)
        canvas.layer(alpha, organ.tissue, _gain(organ, texture, x, y), region)


def paint_wall(canvas: Canvas, anatomy: Anatomy, plane: Plane, at: Warped, texture: Texture) -> None:
    """Paint skin, fat, muscle, ribs and spine: everything outside the cavity; `at` carries the breath."""
    x, y = at.x, at.y
    body = anatomy.body.distance(x, y)
    skin, fat, muscle = 2.2 * anatomy.size, anatomy.fat_mm, anatomy.muscle_mm
    grain = texture.at(texture.grain, x, y)
    strands = texture.at(texture.strands, x, y)
    canvas.layer(coverage(body, plane.pixel_mm), MUSCLE, 0.7)
    canvas.layer(coverage(body - skin, plane.pixel_mm), FAT, (1 + 0.09 * grain) * (1 - 0.2 * strands))
    muscles = coverage(body - fat - 1.8 * grain, plane.pixel_mm)
    canvas.layer(muscles, MUSCLE, 1 + 0.10 * grain)
    streak = texture.at(texture.strands, x * np.float32(0.55), y * np.float32(1.6), 60.0)
    canvas.layer(muscles * (streak * np.float32(0.55)), FAT)
    inner = anatomy.cavity.distance(x, y)
    canvas.layer(coverage(inner + 0.25 * muscle + 0.8 * grain, plane.pixel_mm), FAT, 1 + 0.08 * grain)
    paint_organs(canvas, anatomy.wall, plane, at, texture)


def paint_lungs(canvas: Canvas, anatomy: Anatomy, plane: Plane, at: Warped, texture: Texture) -> None:
    """Fill the cavity with lung, its vessels and the organs below; `at` carries breath and heartbeat."""
    grain = texture.at(texture.grain, at.x, at.y, 90.0)
    everywhere = np.ones(plane.x.shape, np.float32)
    canvas.layer(everywhere, LUNG, np.maximum(1 + 0.35 * grain, 0.1))
    paint_organs(canvas, anatomy.vessels, plane, at, texture)
    paint_organs(canvas, anatomy.organs, plane, at, texture)

"""Turn images the way radiologists look at them, with the geometry turned along.

A viewer shows rows and columns as they are stored. Raw data has them along read and phase encoding,
wherever the scanner put those; so an image is mirrored or transposed (never resampled) until the
patient's left is on the right side of the picture and the front (or the head) is up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from recon_node.core.scan import SliceGeometry
from recon_node.core.types import ImageSeries
from recon_node.images.geometry import image_affine

_LEFT, _BACK, _FEET = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)
_DISPLAY = ((_BACK, _FEET), (_LEFT, _FEET), (_LEFT, _BACK))
"""Where rows and columns run in a sagittal, coronal and axial picture (by the normal's main axis)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """How to turn an image: transposed first, then mirrored."""

    transpose: bool = False
    """Phase encoding then runs along rows (InPlanePhaseEncodingDirection ROW)."""
    flip_y: bool = False
    flip_x: bool = False


def display_orientation(geometry: SliceGeometry) -> Orientation:
    """The turn, of the eight there are, that comes nearest to how such a plane is shown.

    Images whose directions are not known are left as they are.
    """
    if not geometry.known:
        return Orientation()
    read, phase = np.array(geometry.read_dir), np.array(geometry.phase_dir)
    row, column = _DISPLAY[int(np.argmax(np.abs(np.cross(read, phase))))]

    def agreement(turn: Orientation) -> float:
        x, y = (phase, read) if turn.transpose else (read, phase)
        right = -(x @ row) if turn.flip_x else x @ row
        down = -(y @ column) if turn.flip_y else y @ column
        return float(right + down)

    turns = (Orientation(transpose=t, flip_y=y, flip_x=x) for t, y, x in product((False, True), repeat=3))
    return max(turns, key=lambda turn: round(agreement(turn), 6))


def orient(images: ImageSeries, orientation: Orientation) -> ImageSeries:
    """Images turned as `orientation` says; every pixel stays at its place in the patient."""
    data, geometry = images.data, images.geometry
    if orientation.transpose:
        fov = geometry.fov_mm
        data = data.swapaxes(-2, -1)
        geometry = replace(
            geometry,
            read_dir=geometry.phase_dir,
            phase_dir=geometry.read_dir,
            fov_mm=(fov[1], fov[0], fov[2]),
        )
    rows, columns = data.shape[-2:]
    if orientation.flip_y:
        data = data[..., ::-1, :]
        centre = _place(geometry, (rows, columns), y=rows - 1 - rows // 2, x=columns // 2)
        geometry = replace(geometry, phase_dir=_negated(geometry.phase_dir), position_mm=centre)
    if orientation.flip_x:
        data = data[..., ::-1]
        centre = _place(geometry, (rows, columns), y=rows // 2, x=columns - 1 - columns // 2)
        geometry = replace(geometry, read_dir=_negated(geometry.read_dir), position_mm=centre)
    return replace(images, parts=None, data=np.ascontiguousarray(data), geometry=geometry)


def _place(geometry: SliceGeometry, shape: tuple[int, int], *, y: int, x: int) -> tuple[float, float, float]:
    where = image_affine(geometry, shape) @ np.array([x, y, 0.0, 1.0])
    return float(where[0]), float(where[1]), float(where[2])


def _negated(direction: tuple[float, float, float]) -> tuple[float, float, float]:
    return -direction[0], -direction[1], -direction[2]

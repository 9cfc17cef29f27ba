"""Where the simulated slices lie in the patient (DICOM LPS coordinates, mm)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LONG_AXIS_LPS = np.array([0.66, -0.55, -0.51])
"""From base to apex: to the left, forward and down."""
DOWN_LPS = np.array([0.05, 0.64, -0.76])
"""Down in a short-axis image: posterior and towards the feet."""
HEART_LPS = np.array([28.0, -34.0, 12.0])
"""The phantom's origin relative to the isocentre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """Directions of an image in the patient, orthonormal and right-handed."""

    read: Vector
    """Along increasing x (columns)."""
    phase: Vector
    """Along increasing y (rows)."""
    normal: Vector
    """``read x phase``."""
    sense: float
    """+1 where phantom z runs along `normal`, -1 against it."""

    def position(self, z: float, pixel_mm: tuple[float, float]) -> Vector:
        """Centre of the field of view of the slice at phantom `z`.

        The phantom's origin is at pixel index ``n // 2``, the centre of an even field of view half a
        pixel (y, x) before it.
        """
        half = -0.5 * (pixel_mm[1] * self.read + pixel_mm[0] * self.phase)
        return np.asarray(HEART_LPS + self.sense * z * self.normal + half)


LONG_AXIS_TILT_RAD = 0.5
"""How much more the heart's axis is turned in a long-axis picture than in a short-axis one."""


def orientation(view: str, rv_rad: float = 0.35) -> Orientation:
    """Oblique directions of a short-axis stack or of a four-chamber slice through the same heart.

    Parameters
    ----------
    view : {"short-axis", "long-axis", "through-plane"}
        ``through-plane`` slices (flow) lie parallel to the short-axis ones.
    rv_rad : float
        Direction of the right ventricle in the short-axis picture, radians above its left.
    """
    axis = LONG_AXIS_LPS / np.linalg.norm(LONG_AXIS_LPS)
    down = DOWN_LPS - axis * float(DOWN_LPS @ axis)
    down /= np.linalg.norm(down)
    right = np.cross(axis, down)
    if view != "long-axis":
        return Orientation(read=right, phase=down, normal=np.cross(right, down), sense=-1.0)
    towards_rv = -np.cos(rv_rad) * right - np.sin(rv_rad) * down
    tilt = rv_rad + LONG_AXIS_TILT_RAD
    read = np.sin(tilt) * axis - np.cos(tilt) * towards_rv
    phase = -np.cos(tilt) * axis - np.sin(tilt) * towards_rv
    return Orientation(read=read, phase=phase, normal=np.cross(read, phase), sense=1.0)

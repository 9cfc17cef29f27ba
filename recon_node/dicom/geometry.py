"""Image plane of a slice as the Image Plane module wants it (PS3.3 C.7.6.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon_node.core.errors import DicomError
from recon_node.core.scan import SliceGeometry

MAX_SKEW = 0.02
"""Cosine between read and phase direction above which they are not a rounding error off square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlane:
    """Where the pixels of an image lie, in mm, DICOM patient coordinates (LPS)."""

    position: tuple[float, ...]
    """Centre of the first pixel (x, y, z)."""
    orientation: tuple[float, ...]
    """Direction along a row (increasing column), then along a column; orthonormal."""
    spacing: tuple[float, float]
    """Between rows (dy), between columns (dx)."""
    location: float
    """Along the normal, row direction x column direction."""
    thickness: float


def image_plane(geometry: SliceGeometry, shape: tuple[int, int]) -> ImagePlane:
    """Image plane of an image of `shape` (rows, columns).

    The centred Fourier transform puts `geometry.position_mm` on the centre of pixel ``n // 2``, so
    ImagePositionPatient = position - (columns // 2) dx read_dir - (rows // 2) dy phase_dir.

    Raises
    ------
    DicomError
        Where the directions are not finite, zero, or far from square to each other.
    """
    read, phase = np.array(geometry.read_dir, float), np.array(geometry.phase_dir, float)
    numbers = [*read, *phase, *geometry.position_mm, *geometry.fov_mm]
    if not np.isfinite(numbers).all() or not read.any() or not phase.any() or min(geometry.fov_mm) <= 0:
        raise DicomError(
            f"slice geometry is not usable: read {geometry.read_dir}, phase {geometry.phase_dir},"
            f" position {geometry.position_mm} mm, field of view {geometry.fov_mm} mm"
        )
    read /= np.linalg.norm(read)
    phase /= np.linalg.norm(phase)
    skew = float(read @ phase)
    if abs(skew) > MAX_SKEW:
        raise DicomError(f"read and phase directions are not square to each other: cosine {skew:.3f}")
    phase -= skew * read
    phase /= np.linalg.norm(phase)
    rows, columns = shape
    dy, dx = geometry.fov_mm[1] / rows, geometry.fov_mm[0] / columns
    corner = np.array(geometry.position_mm) - (columns // 2) * dx * read - (rows // 2) * dy * phase
    return ImagePlane(
        position=tuple(corner.tolist()),
        orientation=(*read.tolist(), *phase.tolist()),
        spacing=(dy, dx),
        location=float(corner @ np.cross(read, phase)),
        thickness=geometry.fov_mm[2],
    )

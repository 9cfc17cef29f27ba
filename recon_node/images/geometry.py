"""Where pixels lie in the patient: index to millimetre, in DICOM (LPS) coordinates.

The centred Fourier transform puts the point `SliceGeometry.position_mm` on the centre of pixel
``n // 2`` of each axis, so that is where every index is counted from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon_node.core.scan import SliceGeometry

Shape = tuple[int, int]


def pixel_size_mm(geometry: SliceGeometry, shape: Shape) -> tuple[float, float]:
    """Distance between pixel centres (dy, dx) in mm of an image of `shape` (y, x)."""
    return geometry.fov_mm[1] / shape[0], geometry.fov_mm[0] / shape[1]


def image_affine(geometry: SliceGeometry, shape: Shape) -> NDArray[np.float64]:
    """Matrix from pixel indices to patient coordinates.

    Parameters
    ----------
    geometry : SliceGeometry
        Of the image.
    shape : (int, int)
        Rows and columns (y, x).

    Returns
    -------
    ndarray
        `(4, 4)` float64: ``A @ (column, row, slice, 1)`` is the pixel's centre in mm, DICOM patient
        coordinates (LPS; negate the first two rows for NIfTI's RAS).
    """
    dy, dx = pixel_size_mm(geometry, shape)
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(geometry.read_dir, dx)
    affine[:3, 1] = np.multiply(geometry.phase_dir, dy)
    affine[:3, 2] = np.multiply(geometry.slice_dir, geometry.fov_mm[2])
    affine[:3, 3] = geometry.position_mm - affine[:3, 0] * (shape[1] // 2) - affine[:3, 1] * (shape[0] // 2)
    return affine


def moved(
    geometry: SliceGeometry, shape: Shape, *, old: Shape, new_centre: tuple[float, float]
) -> SliceGeometry:
    """Geometry after pixels were cropped, padded or flipped.

    Parameters
    ----------
    geometry : SliceGeometry
        Of the old image.
    shape : (int, int)
        Rows and columns of the new image; its pixels are as large as the old ones.
    old : (int, int)
        Rows and columns of the old image.
    new_centre : (float, float)
        Index (y, x) in the old image of what is now pixel ``(y // 2, x // 2)``.
    """
    dy, dx = pixel_size_mm(geometry, old)
    where = image_affine(geometry, old) @ np.array([new_centre[1], new_centre[0], 0.0, 1.0])
    return replace(
        geometry,
        position_mm=(float(where[0]), float(where[1]), float(where[2])),
        fov_mm=(shape[1] * dx, shape[0] * dy, geometry.fov_mm[2]),
    )

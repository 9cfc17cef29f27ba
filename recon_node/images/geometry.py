"""Where pixels lie in the patient: index to millimetre, in DICOM (LPS) coordinates.

The centred Fourier transform puts the point `SliceGeometry.position_mm` on the centre of pixel
``n // 2`` of each axis, so that is where every index is counted from.
"""

from __future__ import annotations

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

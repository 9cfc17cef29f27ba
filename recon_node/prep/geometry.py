"""Where a slice lies, from the headers of its acquisitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.choices import Orientation
from recon_node.core.scan import ScanHeader, SliceGeometry

Vector = tuple[float, float, float]
SQUARE = 0.999
"""Cosine between the slice direction and the normal of the image: 2.6 degrees."""


def directions_known(head: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether acquisition headers `(...)` have read and phase directions that span a plane, `(...)` bool."""
    read, phase = (np.asarray(head[name], dtype=float) for name in ("read_dir", "phase_dir"))
    with np.errstate(invalid="ignore", over="ignore"):
        area = np.linalg.norm(np.cross(read, phase), axis=-1)
        product = np.linalg.norm(read, axis=-1) * np.linalg.norm(phase, axis=-1)
        return np.asarray((area > 0.5 * product) & (product > 0) & np.isfinite(area))


def odd_normal(head: NDArray[Any]) -> list[str]:
    """A doubt where the slice direction of an acquisition header is not square to the other two."""
    normal = np.asarray(head["slice_dir"], dtype=float)
    if not directions_known(head) or not 0.5 < np.linalg.norm(normal) < 2:
        return []
    read, phase = (_unit(np.asarray(head[name], dtype=float)) for name in ("read_dir", "phase_dir"))
    square = np.cross(read, phase)
    if abs(float(_unit(square) @ _unit(normal))) >= SQUARE:
        return []
    return ["the file's slice direction is not square to its read and phase directions: one of them is wrong"]


def must_conjugate(header: ScanHeader, head: NDArray[Any], orientation: Orientation) -> bool:
    """Whether k-space is to be conjugated so that an inverse FFT agrees with the direction vectors.

    Siemens' vectors describe the image that a forward FFT of the raw data gives. Files without
    directions (simulations) and data of other vendors follow the usual inverse FFT.
    """
    if orientation != "auto":
        return orientation == "conjugate"
    return _is_siemens(header) and bool(directions_known(head))


def orientation_verified(header: ScanHeader, head: NDArray[Any], orientation: Orientation) -> bool:
    """Whether directions and data are known to agree: Siemens', those the site decided on, or no directions.

    No source was found for the convention of other vendors' converters.
    """
    return orientation != "auto" or _is_siemens(header) or not bool(directions_known(head))


def _is_siemens(header: ScanHeader) -> bool:
    return "siemens" in (header.vendor or "").lower()


def slice_geometry(
    header: ScanHeader,
    head: NDArray[Any],
    fov_x_mm: float,
    slice_number: int,
    orientation: Orientation = "auto",
) -> tuple[SliceGeometry, tuple[str, ...]]:
    """Geometry of the grid that a slice is sorted on, and what had to be assumed.

    Parameters
    ----------
    header : ScanHeader
    head : ndarray
        Header of one acquisition of the slice (scalar of dtype ACQUISITION_HEADER).
    fov_x_mm : float
        Field of view along x after removal of oversampling.
    slice_number : int
        Used to lay slices side by side where the file gives no positions at all.
    orientation : {"auto", "conjugate", "as-is"}
        As the data were treated.
    """
    slab = header.encoded_matrix[2] > 1
    thickness = header.encoded_fov_mm[2] if slab else header.recon_fov_mm[2]
    fov = (fov_x_mm, header.encoded_fov_mm[1], thickness)
    position = np.asarray(head["position"], dtype=float)
    if directions_known(head):
        read, phase = (_unit(np.asarray(head[name], dtype=float)) for name in ("read_dir", "phase_dir"))
        normal = np.asarray(head["slice_dir"], dtype=float)
        normal = _unit(normal) if 0.5 < np.linalg.norm(normal) < 2 else _unit(np.cross(read, phase))
        verified = orientation_verified(header, head, orientation)
        geometry = replace(
            _geometry(position, read, phase, normal, fov, known=True, verified=verified),
            conjugated=must_conjugate(header, head, orientation),
        )
        notes = [] if verified else [_unverified(header)]
        if not np.isfinite(position).all():
            notes.append("the file gives no place of the slice: 0, 0, 0 was put in its place")
        return geometry, tuple(notes)
    read, phase, normal = np.eye(3)
    if not position.any() and slice_number:
        position = normal * slice_number * fov[2]
    note = "the file gives no slice directions: axial ones were put in their place"
    return _geometry(position, read, phase, normal, fov, known=False), (note,)


def partition_geometry(geometry: SliceGeometry, partition: int, partitions: int) -> SliceGeometry:
    """Geometry of one partition of a slab whose thickness is the slab's."""
    thickness = geometry.fov_mm[2] / partitions
    shift = (partition - (partitions - 1) / 2) * thickness
    position = np.asarray(geometry.position_mm) + shift * np.asarray(geometry.slice_dir)
    fov = (geometry.fov_mm[0], geometry.fov_mm[1], thickness)
    return replace(geometry, position_mm=_vector(position), fov_mm=fov)


def _unverified(header: ScanHeader) -> str:
    vendor = header.vendor or "an unnamed vendor"
    return (
        f"orientation of data by {vendor} not verified, images may be mirrored: "
        "compare with the scanner's own, then set prep.orientation to as-is or conjugate"
    )


def _geometry(
    position: NDArray[Any],
    read: NDArray[Any],
    phase: NDArray[Any],
    normal: NDArray[Any],
    fov: Vector,
    *,
    known: bool,
    verified: bool = True,
) -> SliceGeometry:
    return SliceGeometry(
        position_mm=_vector(position if np.isfinite(position).all() else np.zeros(3)),
        read_dir=_vector(read),
        phase_dir=_vector(phase),
        slice_dir=_vector(normal),
        fov_mm=fov,
        known=known,
        verified=verified,
    )


def _unit(vector: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(vector / np.linalg.norm(vector))


def _vector(values: NDArray[Any]) -> Vector:
    x, y, z = (float(v) for v in values)
    return x, y, z

"""Slices of two folders that show the same part of the patient, and one of them on the other's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from recon_node.dicom.read import DicomSlice, Plane

LEAST_PARALLEL = np.cos(np.radians(5.0))
"""Cosine of the angle between planes up to which they count as the same slice."""
_LEAST_APART_MM = 1.0
_LEAST_SHARED = 0.1
"""Part of the pixels that has to lie in both images."""
_SAME_PIXEL = 0.01
"""Shift, in pixels, below which nothing is resampled."""


def pairs(
    ones: Sequence[DicomSlice], others: Sequence[DicomSlice]
) -> tuple[list[tuple[DicomSlice, DicomSlice]], list[DicomSlice]]:
    """For each slice the one of the other folder that shows the same, by geometry, whatever its name.

    Where both folders have the patient, or the study, only these can meet; a patient whom the other folder
    does not know meets nobody, unless both folders are of one patient each, whom they may call differently.
    Of several at the same place the nearest is taken, then the one with the same number of images, then the
    first by its description.

    Returns
    -------
    (list of pairs, list of DicomSlice)
        The pairs, and slices without a partner.
    """
    found, alone = [], []
    alike = max(len({one.patient for one in some}) for some in (ones, others)) <= 1
    for one in ones:
        near = [other for other in _of_the_patient(one, others, alike) if _same_place(one, other)]
        if not near:
            alone.append(one)
            continue
        found.append((one, min(near, key=lambda other: _distance(one, other))))
    return found, alone


def _of_the_patient(one: DicomSlice, others: Sequence[DicomSlice], alike: bool) -> Sequence[DicomSlice]:
    """Slices of the patient; of the study where there are some."""
    same = [other for other in others if other.patient == one.patient]
    study = [other for other in same if other.study == one.study]
    return study or same or (others if alike else ())


def _same_place(one: DicomSlice, other: DicomSlice) -> bool:
    a, b = one.plane, other.plane
    if one.quantity != other.quantity or abs(float(np.dot(a.normal, b.normal))) < LEAST_PARALLEL:
        return False
    thickness = max(min(a.thickness or b.thickness, b.thickness or a.thickness), 2 * _LEAST_APART_MM)
    if _apart(a, b) > thickness / 2:
        return False
    return float(np.mean(_inside(b, _coordinates(a, b)))) >= _LEAST_SHARED


def _distance(one: DicomSlice, other: DicomSlice) -> tuple[float, bool, str]:
    return round(_apart(one.plane, other.plane), 1), len(one) != len(other), other.description


def _apart(a: Plane, b: Plane) -> float:
    """Distance in mm of the centre of `a` from the plane of `b`."""
    return abs(float(np.dot(_centre(a) - np.asarray(b.position), b.normal)))


def _centre(plane: Plane) -> NDArray[np.float64]:
    rows, columns = plane.shape
    centre: NDArray[np.float64] = (
        np.asarray(plane.position)
        + np.asarray(plane.down) * plane.spacing[0] * (rows - 1) / 2
        + np.asarray(plane.across) * plane.spacing[1] * (columns - 1) / 2
    )
    return centre


def _coordinates(a: Plane, b: Plane) -> NDArray[np.float64]:
    """Where the pixels of `a` lie in `b`, `(2, y, x)` in its pixels, seen straight from the front."""
    rows, columns = np.meshgrid(*map(np.arange, a.shape), indexing="ij")
    points = (
        np.asarray(a.position)
        + rows[..., None] * np.asarray(a.down) * a.spacing[0]
        + columns[..., None] * np.asarray(a.across) * a.spacing[1]
        - np.asarray(b.position)
    )
    return np.stack(
        [points @ np.asarray(b.down) / b.spacing[0], points @ np.asarray(b.across) / b.spacing[1]]
    )


def _inside(b: Plane, where: NDArray[np.float64]) -> NDArray[np.bool_]:
    last = np.asarray(b.shape)[:, None, None] - 1
    inside: NDArray[np.bool_] = np.all((where >= -_SAME_PIXEL) & (where <= last + _SAME_PIXEL), axis=0)
    return inside


def resampled(
    images: NDArray[np.float32], source: Plane, target: Plane
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Images of one plane on the pixels of another.

    Parameters
    ----------
    images : ndarray
        `(frame, y, x)` float32 on `source`.
    source, target : Plane
        In the same patient's coordinates, nearly in one plane.

    Returns
    -------
    (ndarray, ndarray)
        `(frame, y, x)` float32 by cubic splines, and `(y, x)` bool: where there is anything. Where the pixels
        are the same (within 1 % of their size), the images as they are.
    """
    where = _coordinates(target, source)
    inside = _inside(source, where)
    grid = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"))
    if source.shape == target.shape and float(np.abs(where - grid).max()) < _SAME_PIXEL:
        return images, inside
    moved = [map_coordinates(image, where, order=3, mode="nearest") for image in images]
    return np.stack(moved).astype(np.float32), inside


def in_time(one: DicomSlice, other: DicomSlice) -> NDArray[np.intp]:
    """For each image of `one` the index of that of `other` at the same part of the heart's cycle."""
    if len(one) == len(other):
        return np.arange(len(one))
    gaps = np.abs(one.cycle[:, None] - other.cycle[None])
    return np.asarray(np.argmin(np.minimum(gaps, 1 - gaps), axis=1))

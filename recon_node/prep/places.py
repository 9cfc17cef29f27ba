"""Where the slices of a scan lie, one compared with another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.scan import SliceGeometry

APART_MM = 1.0
"""Between lines of one slice: more is another slice, or a patient who moved."""
PARALLEL = 0.99
"""Cosine between the normals of slices that lie over each other."""
CLOSE, FAR = 0.5, 12.0
"""Distance of neighbours over their thickness that is not doubted: overlaps are rare, gaps small."""
SAME_MM = 0.01
MOST_PLACES = 64
"""Of lines with one slice counter: more are a moving table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one slice lies."""

    slice: int
    position_mm: tuple[float, float, float]
    normal: tuple[float, float, float]
    known: bool
    thickness_mm: float | None

    @classmethod
    def of(cls, number: int, geometry: SliceGeometry, *, thickness_known: bool) -> Place:
        """The place of slice `number`."""
        return cls(
            slice=number,
            position_mm=geometry.position_mm,
            normal=geometry.slice_dir,
            known=geometry.known,
            thickness_mm=geometry.fov_mm[2] if thickness_known else None,
        )

    def distance_mm(self, other: Place) -> float | None:
        """Distance of the planes of two parallel slices; None where they are not parallel."""
        mine, theirs = np.array(self.normal), np.array(other.normal)
        if abs(float(mine @ theirs)) < PARALLEL:
            return None
        return abs(float(self._apart(other) @ mine))

    def beside(self, other: Place) -> bool:
        """Whether it lies in the plane of another, which is parallel, but not at its place."""
        distance = self.distance_mm(other)
        apart = float(np.linalg.norm(self._apart(other)))
        return distance is not None and distance <= SAME_MM and apart >= APART_MM

    def _apart(self, other: Place) -> NDArray[np.float64]:
        return np.asarray(np.array(self.position_mm) - np.array(other.position_mm))


def doubts_about(place: Place, others: list[Place]) -> list[str]:
    """What speaks against the place of a slice, from those of the others."""
    others = [other for other in others if other.slice != place.slice]
    if not others:
        return []
    if not place.known:
        return ["the file gives no places of its slices: their order and distances are not known"]
    distances = {o.slice: d for o in others if o.known and (d := place.distance_mm(o)) is not None}
    same = [number for number, distance in distances.items() if distance <= SAME_MM]
    if same:
        first, second = sorted((same[0], place.slice))
        if any(other.slice == same[0] and place.beside(other) for other in others):
            return [f"slices {first} and {second} lie in one plane by the file: their places may be wrong"]
        return [f"slices {first} and {second} have one place in the file: where they lie is not known"]
    if not distances or not place.thickness_mm:
        return []
    nearest = min(distances.values())
    if not CLOSE * place.thickness_mm <= nearest <= FAR * place.thickness_mm:
        thick = f"{place.thickness_mm:.3g} mm"
        return [f"slices of {thick} lie {nearest:.3g} mm apart: thickness or places may be wrong"]
    return []


def clusters(positions: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Indices of `(line, 3)` positions that are one place, in the order of their first lines."""
    left = np.arange(len(positions))
    found = []
    while len(left):
        near = np.linalg.norm(positions[left] - positions[left[0]], axis=1) <= APART_MM
        found.append(left[near])
        left = left[~near]
    return found


def finite_positions(head: NDArray[Any]) -> NDArray[np.float64]:
    """`(line, 3)` positions in mm; those that are no numbers as nan throughout."""
    positions = head["position"].astype(np.float64)
    positions[~np.isfinite(positions).all(axis=1)] = np.nan
    return np.asarray(positions)

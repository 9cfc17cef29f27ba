"""Where the slices of a scan lie, one compared with another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
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


class Places:
    """Where the slices of a scan lie, each place once: many contrasts and repetitions have the same."""

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[object, Place]] = {}
        self._counts: Counter[Place] = Counter()
        self._table: _Table | None = None

    def keep(self, index: Hashable, head: object, place: Callable[[], Place]) -> Place:
        """The place of one k-space; made anew only where it came from another line's `head`."""
        former = self._found.get(index)
        if former is not None and former[0] is head:
            return former[1]
        new = place()
        if former is not None:
            self._counts[former[1]] -= 1
            if not self._counts[former[1]]:
                del self._counts[former[1]]
        self._found[index] = (head, new)
        self._counts[new] += 1
        if self._counts[new] == 1 or former is not None:
            self._table = None
        return new

    def doubts_about(self, place: Place) -> list[str]:
        """What speaks against the place of a slice, from those of the others."""
        if self._table is None:
            self._table = _Table(list(self._counts))
        return self._table.doubts_about(place)


class _Table:
    """Places as columns, so that thousands are compared at once."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.slice = np.array([place.slice for place in places])
        self.known = np.array([place.known for place in places])
        self.position = np.array([place.position_mm for place in places])
        self.normal = np.array([place.normal for place in places])

    def doubts_about(self, place: Place) -> list[str]:
        others = self.slice != place.slice
        if not others.any():
            return []
        if not place.known:
            return ["the file gives no places of its slices: their order and distances are not known"]
        apart = self.position - np.array(place.position_mm)
        parallel = others & self.known & (np.abs(self.normal @ np.array(place.normal)) >= PARALLEL)
        distance = np.abs(apart @ np.array(place.normal))
        same = parallel & (distance <= SAME_MM)
        if same.any():
            return [self._in_one_plane(place, same, apart)]
        if not parallel.any() or not place.thickness_mm:
            return []
        nearest = float(distance[parallel].min())
        if not CLOSE * place.thickness_mm <= nearest <= FAR * place.thickness_mm:
            thick = f"{place.thickness_mm:.3g} mm"
            return [f"slices of {thick} lie {nearest:.3g} mm apart: thickness or places may be wrong"]
        return []

    def _in_one_plane(self, place: Place, same: NDArray[np.bool_], apart: NDArray[np.float64]) -> str:
        other = int(self.slice[np.argmax(same)])
        first, second = sorted((other, place.slice))
        beside = same & (self.slice == other) & (np.linalg.norm(apart, axis=1) >= APART_MM)
        if beside.any():
            return f"slices {first} and {second} lie in one plane by the file: their places may be wrong"
        return f"slices {first} and {second} have one place in the file: where they lie is not known"


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

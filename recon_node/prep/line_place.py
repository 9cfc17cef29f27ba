"""Where the lines of one slice say they lie, and whether they agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.prep.geometry import directions_known

TURNED = 0.999
"""Cosine between read directions below which lines do not belong to one image."""


class LinePlace:
    """Place and directions of a slice, from the first line that gives them."""

    def __init__(self) -> None:
        self.head: Any = None
        """Header of the first line that gives place and directions, `()` of ACQUISITION_HEADER; else any."""
        self.position_mm: NDArray[np.float64] = np.full(3, np.nan)
        """Where the first line that gives a place lies."""
        self.apart_mm = 0.0
        """How far from that line the others say they lie."""
        self.turned = False
        """Whether others say they are turned against it."""
        self._placed = False

    def adopt(self, head: NDArray[Any]) -> None:
        """Take place and directions from other lines `(line,)` than the first."""
        self.head, self._placed, self.position_mm = None, False, np.full(3, np.nan)
        self.compare(head)

    def compare(self, head: NDArray[Any]) -> None:
        """Watch whether all lines `(line,)` give one place and direction."""
        finite = np.isfinite(head["position"]).all(axis=-1)
        if finite.any() and np.isnan(self.position_mm).any():
            self.position_mm = head["position"][int(np.argmax(finite))].astype(np.float64)
        known = directions_known(head)
        placed = known & np.isfinite(head["position"]).all(axis=-1)
        if self.head is None or (placed.any() and not self._placed):
            self.head, self._placed = head[int(np.argmax(placed))], bool(placed.any())
        with np.errstate(invalid="ignore", over="ignore"):
            away = np.linalg.norm(head["position"].astype(float) - self.head["position"], axis=-1)
            along = head["read_dir"].astype(float) @ self.head["read_dir"]
        self.apart_mm = max(self.apart_mm, float(np.where(np.isfinite(away), away, 0).max()))
        self.turned |= self._placed and bool((known & (along < TURNED)).any())

"""When the lines of one slice were acquired."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEPT = ("acquisition", "physiology", "delay")


class LineStamps:
    """Time stamps by line, `(phase, row)` each, in the scanner's units.

    Parameters
    ----------
    phases, rows : int
    """

    def __init__(self, phases: int, rows: int) -> None:
        self.acquisition = np.zeros((phases, rows), dtype=np.uint32)
        """Acquisition time stamps, first one kept."""
        self.physiology = np.zeros((phases, rows), dtype=np.uint32)
        """Physiology time stamps, first one kept."""
        self.delay = np.zeros((phases, rows), dtype=np.float32)
        """Sum of the physiology time stamps of a line that came several times; their mean in the end."""

    def keep(self, phases: NDArray[np.intp], rows: NDArray[np.intp], head: NDArray[Any]) -> None:
        """Stamps of lines `(line,)` that came for the first time."""
        self.acquisition[phases, rows] = head["acquisition_time_stamp"]
        self.physiology[phases, rows] = self.delay[phases, rows] = head["physiology_time_stamp"][:, 0]

    def repeat(self, phases: NDArray[np.intp], rows: NDArray[np.intp], head: NDArray[Any]) -> None:
        """Stamps of lines `(line,)` that came before."""
        np.add.at(self.delay, (phases, rows), head["physiology_time_stamp"][:, 0])

    def average(self, count: NDArray[np.int32]) -> None:
        """Turn sums of delays into means, of lines that came `count` `(phase, row)` times."""
        self.delay /= np.maximum(count[: len(self.delay)], 1)

    def grow(self, more: int) -> None:
        """Room for more phases."""
        for name in _KEPT:
            setattr(self, name, grown(getattr(self, name), more))

    def cut(self, phases: int) -> None:
        """Keep the first phases only."""
        for name in _KEPT:
            setattr(self, name, getattr(self, name)[:phases])


def grown(array: NDArray[Any], more: int, value: int = 0) -> NDArray[Any]:
    """`array` with so many phases more along its first axis; zeros take no memory until they are used."""
    longer = np.zeros((len(array) + more, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    if value:
        longer[len(array) :] = value
    return longer

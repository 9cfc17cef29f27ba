"""The k-space of one slice while its lines arrive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.scan import SliceIndex
from recon_node.prep.kinds import has_any
from recon_node.prep.line_place import LinePlace
from recon_node.prep.line_stamps import LineStamps, grown
from recon_node.prep.readout import Lines

LAST = Flag.LAST_IN_SLICE | Flag.LAST_IN_REPETITION | Flag.LAST_IN_MEASUREMENT
_BY_PHASE = ("data", "mask", "count", "_first_average")


class SliceBuffer:
    """Lines of one slice (and contrast, set, repetition), put where they belong as they come.

    Rows are ``kz * ny + ky``; a line measured several times is averaged sample by sample.

    Parameters
    ----------
    index : SliceIndex
    phases : int
        Phases expected; grows when more arrive.
    shape : (coil, row, kx)
    """

    def __init__(self, index: SliceIndex, phases: int, shape: tuple[int, int, int]) -> None:
        coils, rows, columns = shape
        self.index = index
        self.shape = shape
        self.data = np.zeros((phases, coils, rows, columns), dtype=np.complex64)
        self.mask = np.zeros((phases, rows, columns), dtype=bool)
        self.count = np.zeros((phases, rows), dtype=np.int32)
        """How often each line came, `(phase, row)`."""
        self.lines = 0
        """How many came."""
        self.stamps = LineStamps(phases, rows)
        self.place = LinePlace()
        self.backwards = 0
        """Lines that were read backwards."""
        self.segments: set[int] = set()
        self.ends_here = False
        """Whether the latest line is flagged as the last of its slice, in the last phase there is."""
        self.overtaken = False
        """Whether lines of another slice came after the last of this one."""
        self.repeated = 0
        """Lines that came again with the same average counter."""
        self._phases = phases
        self._average_of: dict[tuple[int, int], set[int]] = {}
        self._samples_of: dict[tuple[int, int], NDArray[np.int32]] = {}
        self._first_average = np.full((phases, rows), -1, dtype=np.int32)

    def add(self, phases: NDArray[np.intp], rows: NDArray[np.intp], lines: Lines) -> None:
        """Put lines `(line, coil, kx)` at their phases and rows."""
        self._grow(int(phases.max()) + 1)
        self.lines += len(rows)
        averages = lines.head["idx"]["average"].astype(np.int32)
        self.segments.update(np.unique(lines.head["idx"]["segment"]).tolist())
        self.backwards += int(has_any(lines.head["flags"], Flag.IS_REVERSE).sum())
        self.place.compare(lines.head)
        self.ends_here = bool(
            has_any(lines.head["flags"][-1:], LAST)[0] and int(phases[-1]) == self._phases - 1
        )
        places = phases * self.shape[1] + rows
        _, first = np.unique(places, return_index=True)
        fresh = np.zeros(len(places), dtype=bool)
        fresh[first] = True
        fresh &= self.count[phases, rows] == 0
        self._put(phases[fresh], rows[fresh], lines, np.flatnonzero(fresh), averages)
        again = np.flatnonzero(~fresh)
        self.stamps.repeat(phases[again], rows[again], lines.head[again])
        for i in again.tolist():
            self._add_again(int(phases[i]), int(rows[i]), lines.data[i], lines.covered[i], int(averages[i]))

    def _put(
        self,
        phases: NDArray[np.intp],
        rows: NDArray[np.intp],
        lines: Lines,
        which: NDArray[np.intp],
        averages: NDArray[np.int32],
    ) -> None:
        everything = len(which) == len(lines.data)
        data = lines.data if everything else lines.data[which]
        self.data[phases, :, rows, :] = data
        self.mask[phases, rows] = lines.covered if everything else lines.covered[which]
        self.count[phases, rows] = 1
        self._first_average[phases, rows] = averages[which]
        self.stamps.keep(phases, rows, lines.head[which])

    def _add_again(
        self,
        phase: int,
        row: int,
        line: NDArray[np.complex64],
        covered: NDArray[np.bool_],
        average: int,
    ) -> None:
        key = (phase, row)
        seen = self._average_of.setdefault(key, {int(self._first_average[phase, row])})
        self.repeated += average in seen
        seen.add(average)
        samples = self._samples_of.setdefault(key, self.mask[phase, row].astype(np.int32))
        samples += covered
        self.data[phase, :, row] += line
        self.mask[phase, row] |= covered
        self.count[phase, row] += 1

    def average(self) -> None:
        """Turn sums of repeated lines into averages; once, when the slice is complete."""
        for (phase, row), samples in self._samples_of.items():
            self.data[phase, :, row] /= np.maximum(samples, 1).astype(np.float32)
        self._samples_of.clear()
        self.stamps.average(self.count)
        self.stamps.cut(self._phases)
        for name in _BY_PHASE:
            setattr(self, name, getattr(self, name)[: self._phases])

    def _grow(self, phases: int) -> None:
        """Make room for phases that no limit announced."""
        self._phases = max(self._phases, phases)
        if phases <= len(self.data):
            return
        more = max(phases, len(self.data) * 3 // 2) - len(self.data)
        for name in _BY_PHASE:
            setattr(self, name, grown(getattr(self, name), more, -1 if name == "_first_average" else 0))
        self.stamps.grow(more)

    @property
    def phases_seen(self) -> NDArray[np.bool_]:
        """`(phase,)` bool."""
        return np.asarray(self.count[: self._phases].any(axis=1))

    @property
    def fewest_repeats(self) -> int:
        """How often the line came that came least often, of those that came at all."""
        return int(self.count[self.count > 0].min(initial=np.iinfo(np.int32).max))

    @property
    def lines_by_phase(self) -> NDArray[np.intp]:
        """Distinct lines of each phase that was seen."""
        found = np.count_nonzero(self.count, axis=1)
        return np.asarray(found[found > 0])

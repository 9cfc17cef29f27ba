"""The slices of a scan while their lines arrive: which line belongs to which, and which are complete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.budget import ScanMemory, kspace_bytes
from recon_node.core.errors import InconsistentReadouts, LimitReached, UnsupportedScan
from recon_node.core.scan import ScanHeader, SliceIndex
from recon_node.prep.counters import along_time, name_of, slice_indices
from recon_node.prep.expectation import could_complete, is_complete
from recon_node.prep.notebook import Notebook
from recon_node.prep.places import APART_MM, MOST_PLACES, clusters, finite_positions
from recon_node.prep.readout import Lines
from recon_node.prep.slices import SliceBuffer

MOST_MISSING_PHASES = 64
"""Phases in a row that may have no line, where the header does not announce as many: a damaged counter must
not make memory for thousands."""
MOST_PHASES = 512
"""That memory is made for before they come."""
MOST_SLICES, MOST_WAITING = 4096, 16_384
"""Slice counters of a scan, and slices (with contrasts, sets and repetitions) that wait for lines at a time:
more are no scan but a damaged counter, or somebody who wants this machine's time."""
MANY_LINES = 0.5
"""Of the lines of a slice that lie elsewhere, from which they are another slice rather than damaged."""


@dataclass(slots=True)
class _Stray:
    """Lines with the counters of a slice, but another place."""

    phases: NDArray[np.intp]
    rows: NDArray[np.intp]
    lines: Lines

    def pick(self, which: NDArray[np.intp]) -> _Stray:
        lines = self.lines
        part = Lines(head=lines.head[which], data=lines.data[which], covered=lines.covered[which])
        return _Stray(self.phases[which], self.rows[which], part)


@dataclass(slots=True)
class _Gone:
    """What is kept of a slice that has left."""

    lines: int
    position: NDArray[np.float64]
    shape: tuple[int, int, int]
    late: int = 0
    late_phases: set[int] = field(default_factory=set)


class SliceCollection:
    """Lines by slice, contrast, set and repetition; those that lie elsewhere than their counters say apart.

    Parameters
    ----------
    headers : sequence of ScanHeader
    dynamic : str
        Counter that makes the phase axis.
    book : Notebook
    memory : ScanMemory
        Charged before a slice gets its own.
    """

    def __init__(
        self, headers: Sequence[ScanHeader], dynamic: str, book: Notebook, memory: ScanMemory
    ) -> None:
        self._memory = memory
        self._headers = headers
        self._dynamic = dynamic
        self._book = book
        self._buffers: dict[SliceIndex, SliceBuffer] = {}
        self._strays: dict[SliceIndex, list[_Stray]] = {}
        self._gone: dict[SliceIndex, _Gone] = {}
        self._slice_numbers: set[tuple[int, int]] = set()
        self._changed: set[SliceIndex] = set()
        """Whose completeness may be another than when it was last asked for."""
        self._last: SliceIndex | None = None
        self._numbers: list[tuple[int, int, NDArray[np.float64]]] = []
        self._revisits = False
        self._lines = 0

    @property
    def empty(self) -> bool:
        """Whether no imaging line ever came."""
        return not self._buffers and not self._gone

    @property
    def waiting(self) -> list[SliceBuffer]:
        """Slices whose lines still arrive."""
        return list(self._buffers.values())

    def add(self, lines: Lines, rows: NDArray[np.intp], encoding: int, shape: tuple[int, int, int]) -> None:
        """Put the imaging lines of one encoding where they belong.

        Raises
        ------
        InconsistentReadouts
            A phase counter that cannot be.
        UnsupportedScan
            Phases beside another dynamic counter.
        """
        header = self._headers[encoding]
        phases = self._phase_counters(lines.head["idx"], header)
        indices, groups, last = slice_indices(lines.head["idx"], encoding, self._dynamic)
        for number, index in enumerate(indices):
            mine = np.flatnonzero(groups == number)
            piece = _Stray(phases, rows, lines)
            self._add_to(index, piece if len(mine) == len(rows) else piece.pick(mine), shape)
        self._overtake(indices, last)

    def _overtake(self, touched: Sequence[SliceIndex], last: SliceIndex) -> None:
        """The scan went on to `last`; all others that it had come to lie behind."""
        for index in (*touched, *([] if self._last is None else [self._last])):
            if index in self._buffers:
                self._buffers[index].overtaken = index != last
                self._changed.add(index)
        self._last = last

    def _add_to(self, index: SliceIndex, piece: _Stray, shape: tuple[int, int, int]) -> None:
        positions = finite_positions(piece.lines.head)
        reference = self._reference(index, positions)
        away = np.linalg.norm(positions - reference, axis=1) > APART_MM
        if away.any():
            stray = piece.pick(np.flatnonzero(away))
            self._memory.hold(stray.lines.data.nbytes, f"lines of {name_of(index)} that lie elsewhere")
            self._strays.setdefault(index, []).append(stray)
            piece = piece.pick(np.flatnonzero(~away))
        if not len(piece.rows):
            return
        if index in self._gone:
            self._gone[index].late += len(piece.rows)
            self._gone[index].late_phases.update(piece.phases.tolist())
            return
        buffer = self._buffer(index, shape)
        self._revisits |= buffer.overtaken
        self._room_for(buffer, int(piece.phases.max()) + 1)
        buffer.add(piece.phases, piece.rows, piece.lines)

    def _reference(self, index: SliceIndex, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The place of a slice: that of its first line that gives one."""
        if index in self._gone:
            return self._gone[index].position
        buffer = self._buffers.get(index)
        if buffer is not None and np.isfinite(buffer.place.position_mm).all():
            return buffer.place.position_mm
        found = positions[np.isfinite(positions).all(axis=1)]
        return found[0] if len(found) else np.full(3, np.nan)

    def _buffer(self, index: SliceIndex, shape: tuple[int, int, int]) -> SliceBuffer:
        if index not in self._buffers:
            self._check_number_of_slices(index)
            limit = self._headers[index.encoding].limits.get(self._dynamic)
            count = min(limit.size, MOST_PHASES) if limit else 1
            self._memory.hold(kspace_bytes(count, *shape), f"k-space of {name_of(index)}")
            self._buffers[index] = SliceBuffer(index, count, shape)
        return self._buffers[index]

    def _check_number_of_slices(self, index: SliceIndex) -> None:
        self._slice_numbers.add((index.encoding, index.slice))
        for count, most, what in (
            (len(self._slice_numbers), MOST_SLICES, "slices"),
            (len(self._buffers) + 1, MOST_WAITING, "slices, contrasts, sets and repetitions without an end"),
        ):
            if count > most:
                raise LimitReached(
                    f"lines of more than {most} {what} came, which no scan has: their counters are damaged"
                )

    def _room_for(self, buffer: SliceBuffer, phases: int) -> None:
        """See that a buffer may grow, which copies what it holds."""
        have = len(buffer.data)
        if phases > have:
            what = f"k-space of {name_of(buffer.index)}"
            self._memory.prove(buffer.data.nbytes, what)
            self._memory.hold(kspace_bytes(max(phases, have * 3 // 2) - have, *buffer.shape), what)

    def _phase_counters(self, idx: NDArray[Any], header: ScanHeader) -> NDArray[np.intp]:
        counters = along_time(idx, header, self._dynamic)
        limit = header.limits.get(self._dynamic)
        if self._dynamic != "phase" and idx["phase"].any():
            raise UnsupportedScan(
                f"scan has several phases and {self._dynamic}s along the phase axis: choose dynamic='phase'"
            )
        self._lines += len(counters)
        highest, announced = int(counters.max()), limit.size if limit is not None else 1
        if highest >= max(announced, self._lines + MOST_MISSING_PHASES):
            raise InconsistentReadouts(
                f"a line counts as {self._dynamic} {highest} after {self._lines} lines of a scan with "
                f"{announced} announced: its counter is damaged"
            )
        if limit is not None and highest >= limit.size:
            self._book.note(f"{self._dynamic} counters go beyond the header's limit of {limit.maximum}")
        return counters

    def may_complete(self, lines: int) -> bool:
        """Whether `lines` more could complete any slice, a new one included."""
        return not self._revisits and any(
            could_complete(buffer, self._headers[index.encoding], self._dynamic, lines)
            for index, buffer in self._buffers.items()
        )

    def complete(self) -> list[SliceBuffer]:
        """Slices that may leave now, in the order of their counters; they are no longer waited for."""
        changed, self._changed = self._changed, set()
        done = [
            index
            for index in changed
            if index in self._buffers and index not in self._strays and self._is_complete(index)
        ]
        return [self._leave(index) for index in sorted(done)]

    def _is_complete(self, index: SliceIndex) -> bool:
        header = self._headers[index.encoding]
        return is_complete(self._buffers[index], header, self._dynamic, revisits=self._revisits)

    def rest(self) -> Iterator[SliceBuffer]:
        """All other slices, at the end of the scan; lines that lie elsewhere become slices or join theirs."""
        for index in sorted(self._strays):
            self._settle(index)
        for index in sorted(self._buffers):
            yield self._leave(index)

    def late(self) -> list[str]:
        """What is to be said of lines that came after their slice had left."""
        said = []
        for index, gone in self._gone.items():
            limit = self._headers[index.encoding].limits.get(self._dynamic)
            if gone.late:
                beyond = limit is not None and min(gone.late_phases) >= limit.size
                why = f": the header announces {limit.size} {self._dynamic}s" if beyond and limit else ""
                said.append(
                    f"{gone.late} lines of {name_of(index)} came after it had been complete: left out{why}"
                )
        return said

    def _leave(self, index: SliceIndex) -> SliceBuffer:
        buffer = self._buffers.pop(index)
        self._memory.hold(-buffer.data.nbytes, "")
        self._gone[index] = _Gone(int(buffer.count.sum()), buffer.place.position_mm, buffer.shape)
        return buffer

    def _settle(self, index: SliceIndex) -> None:
        """Many lines at another place are another slice, whose counter was lost; a few are damaged."""
        piece = _joined(self._strays.pop(index))
        positions = finite_positions(piece.lines.head)
        places = sorted(clusters(positions), key=len, reverse=True)
        here = self._lines_of(index)
        most = max(here, len(places[0]))
        if here < MANY_LINES * most:  # the first lines were the damaged ones
            self._buffers[index].place.adopt(piece.lines.head[places[0]])
            self._join(index, piece.pick(places.pop(0)))
        many = [place for place in places if len(place) >= MANY_LINES * most and len(places) <= MOST_PLACES]
        for place in places[len(many) :]:
            self._join(index, piece.pick(place))
        if many:
            self._book.doubt(
                f"lines of {name_of(index)} lie at {len(many) + 1} places by their headers: sorted by "
                "place into slices of their own"
            )
        shape = self._buffers[index].shape if index in self._buffers else self._gone[index].shape
        for place in sorted(many, key=lambda place: int(place[0])):
            part = piece.pick(place)
            other = replace(index, slice=self._number(index, positions[place[0]]))
            self._buffer(other, shape).add(part.phases, part.rows, part.lines)

    def _lines_of(self, index: SliceIndex) -> int:
        buffer = self._buffers.get(index)
        return int(buffer.count.sum()) if buffer is not None else self._gone[index].lines

    def _join(self, index: SliceIndex, piece: _Stray) -> None:
        if index in self._buffers:
            self._buffers[index].add(piece.phases, piece.rows, piece.lines)
        else:
            self._gone[index].late += len(piece.rows)

    def _number(self, index: SliceIndex, position: NDArray[np.float64]) -> int:
        """The slice number of a place whose counter was lost: one no other slice of its encoding has."""
        for encoding, number, known in self._numbers:
            if encoding == index.encoding and np.linalg.norm(known - position) <= APART_MM:
                return number
        used = [i.slice for i in (*self._buffers, *self._gone) if i.encoding == index.encoding]
        used += [number for encoding, number, _ in self._numbers if encoding == index.encoding]
        free = max(used) + 1
        self._numbers.append((index.encoding, free, position))
        return free


def _joined(strays: list[_Stray]) -> _Stray:
    lines = [stray.lines for stray in strays]
    return _Stray(
        np.concatenate([stray.phases for stray in strays]),
        np.concatenate([stray.rows for stray in strays]),
        Lines(
            head=np.concatenate([part.head for part in lines]),
            data=np.concatenate([part.data for part in lines]),
            covered=np.concatenate([part.covered for part in lines]),
        ),
    )

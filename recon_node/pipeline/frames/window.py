"""Frames while their lines arrive: which are complete, and which of those before are kept beside them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.scan import ScanHeader, SliceIndex
from recon_node.pipeline.frames.lines import FrameLines, RowLines, add_middle, middle_sum
from recon_node.prep.calibration import CalibrationSum
from recon_node.prep.counters import along_time, slice_indices
from recon_node.prep.expectation import FEWEST_LINES, expected_lines, line_limits
from recon_node.prep.kinds import Kind, has_any, kinds
from recon_node.prep.line_patterns import central_run
from recon_node.prep.placed import PlacedLines
from recon_node.prep.readout import Lines
from recon_node.prep.slices import LAST

WINDOW = 12
"""Frames that serve one image at most, itself included."""
MOST_BYTES = 256 << 20
"""Lines that are kept; what was touched longest ago is given up."""
MOST_CALIBRATIONS = 64
"""Slices whose calibration lines are kept, likewise."""
FLAGGED = 0.5
"""Share of the announced lines of a frame below which no flag makes it complete: random patterns were seen to
give a frame a quarter fewer than announced."""
MOST = 0.75
"""The same where nothing but another frame tells; also the share of the range of lines that those of a whole
frame reach over, where none is at the centre."""
_FIRST, _LAST, _REVERSE = map(int, (Flag.FIRST_IN_PHASE, Flag.LAST_IN_PHASE | LAST, Flag.IS_REVERSE))
_SHARING = ("phase", "repetition")
"""Counters along which neighbours show nearly the same, so that lines may be borrowed."""

Key = tuple[SliceIndex, tuple[int, int]]
"""A series (a slice without its repetition), and a frame in it by repetition and phase."""


@dataclass(slots=True)
class _Frame:
    """What came of one frame."""

    pieces: list[RowLines] = field(default_factory=list)
    rows: set[int] = field(default_factory=set)
    bytes: int = 0
    begun: bool = False
    """Whether a flag told its first line, so that one will tell its last."""


class FrameWindow:
    """Takes lines as they are sorted into k-space, and tells which frames they complete.

    A frame is complete by a flag (last in phase, slice, repetition or measurement), with half of the lines
    that the header announces. Where no flag marked its first line, it is also complete once the scan goes on
    to another frame, with most of these lines; or with all of them where lines come in segments (by the
    header, or because the scan was seen to come back to a frame).

    Memory is bounded by `MOST_BYTES`, whatever the scan.
    """

    def __init__(self) -> None:
        self._series: dict[SliceIndex, dict[tuple[int, int], _Frame]] = {}
        self._touched: OrderedDict[Key, None] = OrderedDict()
        self._done: set[Key] = set()
        """Frames that were complete, whether they are still kept or not."""
        self._reference: OrderedDict[tuple[int, int], CalibrationSum] = OrderedDict()
        self._current: Key | None = None
        self._revisits = False
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Of the lines that are kept."""
        return self._bytes

    def see(self, placed: PlacedLines) -> list[FrameLines]:
        """Take lines; the frames that are complete with them, the latest last.

        Those of slabs, of echo planar readouts and of a matrix that contradicts its header are left out.
        """
        header, head = placed.header, placed.lines.head
        backwards = has_any(head["flags"], _REVERSE).any()
        if header.encoded_matrix[2] > 1 or placed.grid.announced is not None or backwards:
            return []
        kind = kinds(head["flags"])
        self._calibrate(placed, np.flatnonzero(kind != Kind.IMAGING))
        imaging = np.flatnonzero(kind != Kind.CALIBRATION)
        done: list[FrameLines] = []
        for key, index, mine in _runs(placed, imaging):
            done += self._take(key, index, _picked(placed, mine), placed)
        self._forget()
        return done

    def _calibrate(self, placed: PlacedLines, which: NDArray[np.intp]) -> None:
        if not len(which):
            return
        coils, columns = placed.lines.data.shape[1:]
        rows = placed.header.encoded_matrix[1]
        slices = placed.lines.head["idx"]["slice"][which]
        for number in np.unique(slices).tolist():
            piece = _picked(placed, which[slices == number])
            key = (placed.encoding, number)
            if key not in self._reference:
                self._reference[key] = middle_sum(coils, rows, columns)
            self._reference.move_to_end(key)
            add_middle(self._reference[key], piece, rows)
        while len(self._reference) > MOST_CALIBRATIONS:
            self._reference.popitem(last=False)

    def _take(self, key: Key, index: SliceIndex, piece: RowLines, placed: PlacedLines) -> list[FrameLines]:
        """Lines of one frame, in a row."""
        done = self._overtaken(key, placed)
        series, number = key
        frames = self._series.setdefault(series, {})
        self._revisits |= self._current != key and (number in frames or key in self._done)
        self._current = key
        if key in self._done:
            return done
        frame = frames.setdefault(number, _Frame())
        frame.pieces.append(piece)
        frame.rows.update(piece.rows.tolist())
        size = piece.lines.data.nbytes
        frame.bytes += size
        self._bytes += size
        self._touched[key] = None
        self._touched.move_to_end(key)
        frame.begun |= bool(has_any(piece.lines.head["flags"], _FIRST).any())
        flagged = has_any(piece.lines.head["flags"], _LAST).any()
        if flagged and _has(FLAGGED, frame, placed.header):
            done.append(self._complete(key, index, placed))
        return done

    def _overtaken(self, key: Key, placed: PlacedLines) -> list[FrameLines]:
        """The frame before, where the scan went on from it for good."""
        before = self._current
        if before is None or before == key or before in self._done or before[0].encoding != placed.encoding:
            return []
        frame = self._series.get(before[0], {}).get(before[1])
        if frame is None or frame.begun:
            return []
        segments = self._revisits or not _by_frames(placed.header)
        if not (_all_came(frame, placed.header) if segments else _has(MOST, frame, placed.header)):
            return []
        index = replace(before[0], repetition=before[1][0])
        return [self._complete(before, index, placed)]

    def _complete(self, key: Key, index: SliceIndex, placed: PlacedLines) -> FrameLines:
        series, number = key
        frames = self._series[series]
        self._done.add(key)
        order = sorted(frames)
        mine = order.index(number)
        near = sorted(range(len(order)), key=lambda i: (abs(i - mine), i > mine))[1:WINDOW]
        if placed.dynamic not in _SHARING:
            near = []
        around = tuple(tuple(frames[order[i]].pieces) for i in near)
        announced = placed.header.limits.get(placed.dynamic)
        reference = self._reference.get((placed.encoding, series.slice))
        own = tuple(frames[number].pieces)
        before = {(series, one) for one in order if one != number} & self._done
        if len(before) >= WINDOW:
            self._drop(next(one for one in self._touched if one in before))
        return FrameLines(
            index=index,
            phase=number[1],
            phases=announced.size if announced else 1,
            own=own,
            around=around,
            reference=None if reference is None else reference.copy(),
            placed=placed,
        )

    def _forget(self) -> None:
        """Give up what was touched longest ago, where there is too much."""
        while self._bytes > MOST_BYTES and len(self._touched) > 1:
            self._drop(next(iter(self._touched)))

    def _drop(self, key: Key) -> None:
        del self._touched[key]
        self._bytes -= self._series[key[0]].pop(key[1]).bytes


def _runs(placed: PlacedLines, which: NDArray[np.intp]) -> list[tuple[Key, SliceIndex, NDArray[np.intp]]]:
    """Lines `which` `(line,)` cut where another frame begins."""
    if not len(which):
        return []
    idx = placed.lines.head["idx"][which]
    phases = along_time(idx, placed.header, placed.dynamic)
    indices, groups, _ = slice_indices(idx, placed.encoding, placed.dynamic)
    cuts = np.flatnonzero((np.diff(groups) != 0) | (np.diff(phases) != 0)) + 1
    runs = []
    for mine in np.split(np.arange(len(which)), cuts):
        index = indices[int(groups[mine[0]])]
        key = (replace(index, repetition=0), (index.repetition, int(phases[mine[0]])))
        runs.append((key, index, which[mine]))
    return runs


def _picked(placed: PlacedLines, mine: NDArray[np.intp]) -> RowLines:
    """Some of the lines, in memory of their own: what they came in may be much larger."""
    lines = placed.lines
    whole = len(mine) == len(placed.rows) and lines.data.base is None
    data = lines.data if whole else lines.data[mine]
    part = Lines(head=lines.head[mine], data=data, covered=lines.covered[mine])
    return RowLines(rows=placed.rows[mine], lines=part)


def _all_came(frame: _Frame, header: ScanHeader) -> bool:
    """Whether a frame has the lines that the header announces, with those of its own calibration block."""
    count = len(frame.rows)
    if count < expected_lines(header):
        return False
    have = np.zeros(header.encoded_matrix[1], np.bool_)
    have[list(frame.rows)] = True
    first, stop = central_run(have)
    if first == stop:  # lines in order may not have come to their block yet
        return max(frame.rows) - min(frame.rows) + 1 >= MOST * line_limits(header).size
    return count >= expected_lines(header, stop - first)


def _has(share: float, frame: _Frame, header: ScanHeader) -> bool:
    """Whether a frame has such a share of the announced lines, where any number is announced."""
    announced = 0.0 if header.acceleration is None else share * expected_lines(header)
    return len(frame.rows) >= max(min(FEWEST_LINES, expected_lines(header)), announced)


def _by_frames(header: ScanHeader) -> bool:
    """Whether lines may come frame after frame: the header does not say that they come in segments."""
    segments = header.limits.get("segment")
    return header.acceleration is not None if segments is None else segments.size == 1

"""The lines of one frame and of those around it, and the k-space that they make together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import KSpace
from recon_node.prep.calibration import Block, CalibrationSum, averaged_block, central_window
from recon_node.prep.clock import read_clock
from recon_node.prep.geometry import slice_geometry
from recon_node.prep.placed import PlacedLines
from recon_node.prep.readout import Lines
from recon_node.prep.sampling import classify_sampling
from recon_node.prep.timing import acquisition_times_s, trigger_times_ms

CALIBRATION_WIDTH = 24
"""Most lines and samples that calibrate."""
LARGEST_STEP = 4
"""Distance between lines up to which coils unfold a frame by themselves, where there are twice as many."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowLines:
    """Lines of one frame that came together."""

    rows: NDArray[np.intp]
    """`(line,)`"""
    lines: Lines


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameLines:
    """A frame whose lines are there, with what came around it by then."""

    index: SliceIndex
    """Of the slice that it belongs to."""
    phase: int
    """Its place on the phase axis."""
    phases: int
    """How many the header announces; at least one."""
    own: tuple[RowLines, ...]
    around: tuple[tuple[RowLines, ...], ...]
    """Other frames of the slice, the nearest in time first."""
    reference: CalibrationSum | None
    """Lines flagged as calibration so far, around the centre; None where there are none."""
    placed: PlacedLines
    """The latest lines, for what all have in common."""

    def kspace(self) -> KSpace:
        """One frame, the lines it misses borrowed where the coils alone would not unfold it.

        Lines that came several times are those that came last. The calibration is None where too few lines
        around the centre came yet.
        """
        placed = self.placed
        coils, columns = placed.lines.data.shape[1:]
        ny = placed.header.encoded_matrix[1]
        data = np.zeros((1, coils, ny, columns), np.complex64)
        mask = np.zeros((1, ny, columns), np.bool_)
        rows = _sampled(self.own, ny)
        _put(self.own, rows, data, mask)
        for other in self._borrowed(rows, coils):
            _put(other, _sampled(other, ny) & ~mask[0].any(axis=1), data, mask)
        block, noise = self.calibration() or (None, None)
        trigger, acquired = _times(self.own, placed.header)
        return KSpace(
            data=data,
            mask=mask,
            header=placed.header,
            index=self.index,
            geometry=self._geometry(),
            sampling=classify_sampling(mask),
            calibration=block,
            calibration_noise=noise if placed.whitened else None,
            trigger_times_ms=trigger,
            acquisition_times_s=acquired,
            whitened=placed.whitened,
            recon_shape=(placed.header.recon_matrix[1], placed.header.recon_matrix[0]),
        )

    def calibration(self) -> Block | None:
        """Lines flagged as calibration first, as for whole slices; else the average of all frames here."""
        if self.reference is not None:
            block = averaged_block(*self.reference.mean(), CALIBRATION_WIDTH)
            if block is not None:
                return block
        coils, columns = self.placed.lines.data.shape[1:]
        middle = middle_sum(coils, self.placed.header.encoded_matrix[1], columns)
        for frame in (self.own, *self.around):
            for piece in frame:
                add_middle(middle, piece, self.placed.header.encoded_matrix[1])
        return averaged_block(*middle.mean(), CALIBRATION_WIDTH)

    def _borrowed(self, rows: NDArray[np.bool_], coils: int) -> Iterator[tuple[RowLines, ...]]:
        """Frames to borrow of, the nearest first, until no lines are further apart than coils unfold."""
        everywhere = rows.copy()
        for frame in self.around:
            everywhere |= _sampled(frame, len(rows))
        first, last = np.flatnonzero(everywhere)[[0, -1]]
        have, most = rows.copy(), max(1, min(LARGEST_STEP, coils // 2))
        for frame in self.around:
            if _largest_step(have[first : last + 1]) <= most:
                return
            have |= _sampled(frame, len(rows))
            yield frame

    def _geometry(self) -> SliceGeometry:
        placed, head = self.placed, self.own[0].lines.head[0]
        geometry, _ = slice_geometry(
            placed.header, head, placed.grid.fov_mm, self.index.slice, placed.orientation
        )
        return geometry


def middle_sum(coils: int, rows: int, columns: int) -> CalibrationSum:
    """An empty sum of the lines around the centre of a grid."""
    high, wide = central_window(rows, CALIBRATION_WIDTH), central_window(columns, CALIBRATION_WIDTH)
    return CalibrationSum(coils, high.stop - high.start, wide.stop - wide.start)


def add_middle(total: CalibrationSum, piece: RowLines, rows: int) -> None:
    """Add those of some lines that lie around the centre of a grid of `rows`."""
    high = central_window(rows, CALIBRATION_WIDTH)
    wide = central_window(piece.lines.data.shape[2], CALIBRATION_WIDTH)
    mine = (piece.rows >= high.start) & (piece.rows < high.stop)
    if mine.any():
        data, covered = piece.lines.data[mine][..., wide], piece.lines.covered[mine][:, wide]
        total.add(piece.rows[mine] - high.start, data, covered)


def _sampled(frame: Iterable[RowLines], rows: int) -> NDArray[np.bool_]:
    """`(row,)` bool: lines that a frame has."""
    found = np.zeros(rows, np.bool_)
    for piece in frame:
        found[piece.rows] = True
    return found


def _put(
    frame: Iterable[RowLines],
    wanted: NDArray[np.bool_],
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
) -> None:
    """Put the lines of a frame that are `wanted` `(row,)` into k-space `(1, coil, ky, kx)`."""
    for piece in frame:
        mine = np.flatnonzero(wanted[piece.rows])
        rows = piece.rows[mine]
        data[0, :, rows] = piece.lines.data[mine]
        mask[0, rows] = piece.lines.covered[mine]


def _largest_step(have: NDArray[np.bool_]) -> int:
    """Largest distance between neighbouring lines of `(row,)` bool, the ends of the range included."""
    edges = np.concatenate([[-1], np.flatnonzero(have), [len(have)]])
    return int(np.diff(edges).max())


def _times(
    own: Sequence[RowLines], header: ScanHeader
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Time after the R wave (ms) and of the day (s) of a frame, each of one entry; None where not known."""
    stamps = np.concatenate([piece.lines.head["acquisition_time_stamp"] for piece in own])
    physiology = np.concatenate([piece.lines.head["physiology_time_stamp"][:, 0] for piece in own])
    clock = read_clock(header, stamps, physiology)
    seen = np.ones((1, len(stamps)), np.bool_)
    trigger = trigger_times_ms(physiology[None].astype(np.float32), seen, clock.physiology_ms)
    return trigger, acquisition_times_s(stamps[None], seen, clock)

"""Readouts to `KSpace`, slice by slice, as they arrive."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.budget import ScanLimits, ScanMemory, kspace_bytes
from recon_node.core.choices import Dynamic, NoiseHandling, Orientation
from recon_node.core.errors import DataError, InconsistentReadouts
from recon_node.core.scan import Readouts, ScanHeader, SliceGeometry, Waveform
from recon_node.core.types import KSpace
from recon_node.prep.assemble import SliceContext, assemble
from recon_node.prep.calibration import Calibrations
from recon_node.prep.collection import SliceCollection
from recon_node.prep.common import Common
from recon_node.prep.counters import name_of, rows_of
from recon_node.prep.expectation import embeds_calibration, noteworthy
from recon_node.prep.gating import RetrospectiveGating, gated_headers
from recon_node.prep.geometry import odd_normal, slice_geometry
from recon_node.prep.intake import Intake
from recon_node.prep.kinds import Kind, has_any, kinds
from recon_node.prep.notebook import Notebook
from recon_node.prep.placed import OnLines, PlacedLines
from recon_node.prep.places import Place, Places
from recon_node.prep.plausible import plausible, refuse
from recon_node.prep.readout import Lines
from recon_node.prep.slices import LAST, SliceBuffer

_COUNTERS = ("slice", "contrast", "set", "repetition")


class Preparation:
    """Sorts the readouts of one scan into whitened k-space.

    Parameters
    ----------
    headers : sequence of ScanHeader
        One per encoding; each becomes k-spaces of its own.
    orientation : {"auto", "conjugate", "as-is"}
        Whether k-space is conjugated, so that an inverse FFT agrees with the direction vectors; auto
        does so for Siemens data with known directions, and warns of other vendors' with directions.
    noise : {"auto", "none", "unit-parts"}
        auto whitens with the noise scan, or scales coils by the noise at the edges of k-space where
        there is none; none leaves the data alone; unit-parts is for data whitened before to unit
        variance of real and imaginary part each (Gadgetron's NoiseAdjust) and divides by sqrt(2).
    dynamic : {"auto", "phase", "contrast", "repetition", "set"}
        Counter that makes the phase axis; auto is the phase.
    streaming : bool
        Whether slices leave as soon as they are complete; otherwise all at `finish`.
    calibration_width : int
        Most lines and samples of `KSpace.calibration`.
    gating : RetrospectiveGating, optional
        Sorts readouts into cardiac phases by their heartbeats, instead of by the phase counter.
    limits : ScanLimits, optional
        Of the memory that the scan may take.
    watch : callable, optional
        Looks on while lines arrive.

    Raises
    ------
    UnsupportedScan
        A trajectory that is not Cartesian, several slices excited at once, echo planar imaging.
    """

    def __init__(
        self,
        headers: Sequence[ScanHeader],
        *,
        orientation: Orientation = "auto",
        noise: NoiseHandling = "auto",
        dynamic: Dynamic = "auto",
        streaming: bool = True,
        calibration_width: int = 24,
        gating: RetrospectiveGating | None = None,
        limits: ScanLimits | None = None,
        watch: OnLines | None = None,
    ) -> None:
        self._memory = ScanMemory(limits)
        for header in headers:
            refuse(header)
        self._book = Notebook()
        corrected, doubts = plausible(headers)
        self._book.doubt(*doubts)
        for header in corrected:
            self._book.note(*header.remarks, *noteworthy(header, film=dynamic == "auto"))
        self._gating = gating
        if gating is not None:
            gating.header = corrected[0]
        self._headers = corrected if gating is None else gated_headers(corrected, gating.phases)
        self._orientation = orientation
        self._dynamic = "phase" if dynamic == "auto" else dynamic
        self._streaming = streaming
        self._calibration_width = calibration_width
        self._estimate_noise = noise == "auto"
        self._common = Common(orientation, contrasts_apart=self._dynamic != "contrast")
        self._intake = Intake(self._headers, noise, self._common, self._book)
        self._slices = SliceCollection(self._headers, self._dynamic, self._book, self._memory)
        self._calibrations = Calibrations(self._headers, self._memory)
        self._places = Places()
        self._watch = watch
        self._refused: list[str] = []

    @property
    def refused(self) -> list[str]:
        """Why slices did not become k-space, or lost lines; the others did."""
        return [*self._refused, *self._slices.late()]

    def feed(self, block: Readouts | Waveform) -> list[KSpace]:
        """Take readouts in the order of acquisition.

        Returns
        -------
        list of KSpace
            Of every slice that this block completed.

        Raises
        ------
        InconsistentReadouts
            Counters outside the encoded matrix, another number of channels than before.
        UnsupportedScan
            Compressed samples, phases beside another dynamic counter, a slab undersampled along kz, lines
            that are not Cartesian.
        LimitReached
            The scan announces more than may be held, or far more than came.
        """
        self._memory.arrived(block.nbytes)
        if isinstance(block, Readouts):
            block = self._imaging_too(block)
        if self._gating is not None:
            self._memory.hold(block.nbytes, "readouts kept for gating")
            return self._ungated(self._gating.feed(block))
        return [] if isinstance(block, Waveform) else self._feed(block)

    def finish(self) -> list[KSpace]:
        """The slices left, at the end of the scan.

        Raises
        ------
        DataError
            The scan had no imaging lines.
        """
        out = [] if self._gating is None else self._ungated(self._gating.finish())
        if self._slices.empty:
            seen = {"noise": self._intake.noise_samples, **self._book.counts}
            found = ", ".join(f"{count} {name}" for name, count in seen.items() if count) or "nothing"
            raise DataError(f"no imaging lines in this scan (found {found})")
        return out + [piece for buffer in self._slices.rest() for piece in self._emit(buffer)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed about the scan so far, beside the notes of each k-space."""
        gated = () if self._gating is None else self._gating.notes
        return (*self._book.notes, *self._common.notes, *gated)

    def _ungated(self, held: Sequence[Readouts]) -> list[KSpace]:
        """Go on with readouts that gating let go."""
        out: list[KSpace] = []
        for part in held:
            self._memory.hold(-part.nbytes, "")
            out += self._feed(part)
        return out

    def _imaging_too(self, block: Readouts) -> Readouts:
        """Calibration lines embedded in the imaging scan flagged as lines of the image as well."""
        embedding = [i for i, header in enumerate(self._headers) if embeds_calibration(header)]
        if not embedding or not len(block):
            return block
        only = kinds(block.head["flags"]) == Kind.CALIBRATION
        only &= np.isin(block.head["encoding_space_ref"], embedding)
        if not only.any():
            return block
        head = block.head.copy()
        head["flags"][only] ^= np.uint64(
            Flag.IS_PARALLEL_CALIBRATION | Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING
        )
        return Readouts(head=head, samples=block.samples)

    def _feed(self, block: Readouts) -> list[KSpace]:
        part = self._intake.kept(block) if len(block) else None
        if part is None or not len(part):
            return []
        if not self._streaming:
            self._take(part)
            return []
        out: list[KSpace] = []
        for piece in self._pieces(part):
            self._take(piece)
            out += [kspace for buffer in self._slices.complete() for kspace in self._emit(buffer)]
        return out

    def _pieces(self, block: Readouts) -> Iterator[Readouts]:
        """A block cut where slices may leave: how readouts came in blocks must not matter."""
        head = block.head
        cut = has_any(head["flags"][:-1], LAST)
        if self._slices.may_complete(len(block)):
            for name in _COUNTERS:
                if name != self._dynamic:
                    cut |= np.diff(head["idx"][name].astype(np.int32)) != 0
        edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(block)]
        for first, last in itertools.pairwise(edges):
            yield block if last - first == len(block) else block.select(slice(first, last))

    def _take(self, block: Readouts) -> None:
        for encoding, lines in self._intake.lines(block):
            rows = rows_of(lines.head, self._headers[encoding])
            kind = kinds(lines.head["flags"])
            calibrating = kind != Kind.IMAGING
            shape = self._shape(lines, encoding)
            if calibrating.any():
                self._calibrations.add(encoding, lines, rows, calibrating, shape)
            imaging = kind != Kind.CALIBRATION
            if imaging.any():
                part = lines if imaging.all() else _select(lines, imaging)
                self._slices.add(part, rows[imaging], encoding, shape)
            if self._watch is not None:
                self._watch(self._placed(encoding, lines, rows))

    def _placed(self, encoding: int, lines: Lines, rows: NDArray[np.intp]) -> PlacedLines:
        return PlacedLines(
            encoding=encoding,
            lines=lines,
            rows=rows,
            header=self._headers[encoding],
            grid=self._intake.grids[encoding],
            dynamic=self._dynamic,
            orientation=self._orientation,
            whitened=self._intake.whitened,
        )

    def _shape(self, lines: Lines, encoding: int) -> tuple[int, int, int]:
        _, ny, nz = self._headers[encoding].encoded_matrix
        return lines.data.shape[1], ny * nz, lines.data.shape[2]

    def _emit(self, buffer: SliceBuffer) -> list[KSpace]:
        index = buffer.index
        header, grid = self._headers[index.encoding], self._intake.grids[index.encoding]
        image = kspace_bytes(len(buffer.data), *header.recon_matrix)
        # From here on k-space is touched everywhere: it has to be worth that.
        self._memory.prove(max(buffer.data.nbytes, image), f"k-space or images of {name_of(index)}")
        geometry, assumed = slice_geometry(
            header, buffer.place.head, grid.fov_mm, index.slice, self._orientation
        )
        if index.encoding in self._common.perhaps_mirrored:
            geometry = replace(geometry, verified=False)
        doubts = self._compared(buffer, header, geometry)
        if doubts and not geometry.known:
            header = replace(header, unknown=header.unknown | {"pitch"})
        calibration, told = self._calibrations.of(buffer, grid.fov_mm, self._intake.grids)
        context = SliceContext(
            header=header,
            geometry=geometry,
            dynamic=self._dynamic,
            gated=self._gating is not None,
            whitened=self._intake.whitened,
            estimate_noise=self._estimate_noise,
            calibration_width=self._calibration_width,
            announced=grid.announced,
            notes=(*self.notes, *grid.what_was_noticed(), *assumed, *told),
            doubts=(*self._book.doubts, *grid.doubts, *doubts, *odd_normal(buffer.place.head)),
        )
        try:
            return assemble(buffer, calibration, context)
        except InconsistentReadouts:
            raise
        except DataError as error:
            self._refused.append(str(error))
            return []

    def _compared(self, buffer: SliceBuffer, header: ScanHeader, geometry: SliceGeometry) -> list[str]:
        """Doubts about the place of a slice beside all others that are known of by now."""
        thickness_known = "thickness" not in header.unknown
        index = buffer.index

        def mine() -> Place:
            return Place.of(index.slice, geometry, thickness_known=thickness_known)

        place = self._places.keep(index, buffer.place.head, mine)
        if header.encoded_matrix[2] > 1 or "pitch" in header.unknown:
            return []
        for other in self._slices.waiting:
            if other.index.encoding == index.encoding:
                there = partial(self._place, other, header, geometry)
                self._places.keep(other.index, other.place.head, there)
        return self._places.doubts_about(place)

    def _place(self, buffer: SliceBuffer, header: ScanHeader, beside: SliceGeometry) -> Place:
        """Of a slice whose lines still arrive, on the grid of another."""
        number = buffer.index.slice
        there, _ = slice_geometry(header, buffer.place.head, beside.fov_mm[0], number, self._orientation)
        return Place.of(number, there, thickness_known="thickness" not in header.unknown)


def _select(lines: Lines, which: NDArray[np.bool_]) -> Lines:
    return Lines(head=lines.head[which], data=lines.data[which], covered=lines.covered[which])

"""Readouts to `KSpace`, slice by slice, as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import DataError, InconsistentReadouts, UnsupportedScan
from recon_node.core.scan import Readouts, ScanHeader, SliceIndex, Waveform
from recon_node.core.types import KSpace
from recon_node.prep.assemble import SliceContext, assemble
from recon_node.prep.calibration import CalibrationSum
from recon_node.prep.common import Common
from recon_node.prep.counters import name_of, rows_of, slice_indices
from recon_node.prep.expectation import bandwidth_ratio, embeds_calibration, is_complete, noteworthy
from recon_node.prep.gating import RetrospectiveGating, gated_headers
from recon_node.prep.geometry import Orientation, slice_geometry
from recon_node.prep.kinds import COMPRESSED, Kind, has_any, kinds, names_of_others
from recon_node.prep.noise import NoiseScan, Whitening, whitening
from recon_node.prep.readout import Lines, ReadoutGrid
from recon_node.prep.slices import SliceBuffer

NoiseHandling = Literal["auto", "none", "unit-parts"]
Dynamic = Literal["auto", "phase", "contrast", "repetition", "set"]

MOST_MISSING_PHASES = 64
"""Phases in a row that may have no line, where the header does not announce as many: a damaged counter must
not make memory for thousands."""


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

    Raises
    ------
    UnsupportedScan
        A trajectory that is not Cartesian.
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
    ) -> None:
        for header in headers:
            if header.trajectory != "cartesian":
                raise UnsupportedScan(
                    f"encoding {header.encoding} has a {header.trajectory} trajectory; only Cartesian scans "
                    "are reconstructed"
                )
        self._gating = gating
        self._headers = tuple(headers) if gating is None else gated_headers(headers, gating.phases)
        self._orientation = orientation
        self._noise = noise
        self._dynamic = "phase" if dynamic == "auto" else dynamic
        self._streaming = streaming
        self._common = Common(orientation, contrasts_apart=self._dynamic != "contrast")
        self._calibration_width = calibration_width
        self._scan = NoiseScan()
        self._whitening: Whitening | None = None
        self._started = False
        self._coils: int | None = None
        self._embedding = [i for i, header in enumerate(headers) if embeds_calibration(header)]
        self._grids = [ReadoutGrid.of(header) for header in headers]
        self._buffers: dict[SliceIndex, SliceBuffer] = {}
        self._calibration: dict[tuple[int, int], CalibrationSum] = {}
        self._emitted: set[SliceIndex] = set()
        self.refused: list[str] = []
        """Why slices did not become k-space; the others did."""
        self._revisits = False
        self._lines = 0
        self._counts: dict[str, int] = {}
        odd = [note for header in headers for note in noteworthy(header, film=dynamic == "auto")]
        self._notes: dict[str, None] = dict.fromkeys(odd)

    def feed(self, block: Readouts | Waveform) -> list[KSpace]:
        """Take readouts in the order of acquisition.

        Returns
        -------
        list of KSpace
            Of every slice that this block completed.

        Raises
        ------
        InconsistentReadouts
            Counters outside the encoded matrix, another number of channels than before, lines of a
            slice that had been complete.
        UnsupportedScan
            Compressed samples, phases beside another dynamic counter, a slab undersampled along kz.
        """
        if isinstance(block, Readouts):
            block = self._imaging_too(block)
        if self._gating is not None:
            return [piece for part in self._gating.feed(block) for piece in self._feed(part)]
        return [] if isinstance(block, Waveform) else self._feed(block)

    def _imaging_too(self, block: Readouts) -> Readouts:
        """Calibration lines embedded in the imaging scan flagged as lines of the image as well."""
        if not self._embedding or not len(block):
            return block
        only = kinds(block.head["flags"]) == Kind.CALIBRATION
        only &= np.isin(block.head["encoding_space_ref"], self._embedding)
        if not only.any():
            return block
        head = block.head.copy()
        head["flags"][only] ^= np.uint64(
            Flag.IS_PARALLEL_CALIBRATION | Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING
        )
        return Readouts(head=head, samples=block.samples)

    def _feed(self, block: Readouts) -> list[KSpace]:
        if not len(block):
            return []
        if not block.samples.size:
            self._count("without samples", len(block))
            return []
        if has_any(block.head["flags"], COMPRESSED).any():
            raise UnsupportedScan("samples are compressed (ISMRMRD compression flags), expected plain ones")
        if block.head["trajectory_dimensions"].any():
            self._notes["acquisitions carry a trajectory, the header says cartesian: it was ignored"] = None
        kind = kinds(block.head["flags"])
        self._take_noise(block, kind == Kind.NOISE)
        for name, count in names_of_others(block.head["flags"][kind == Kind.OTHER]).items():
            self._count(name, count)
        wanted = kind <= Kind.BOTH
        if not wanted.any():
            return []
        part = block if wanted.all() else block.select(wanted)
        part = self._finite(part)
        for encoding in np.unique(part.head["encoding_space_ref"]).tolist():
            self._take_lines(_of_encoding(part, encoding), encoding)
        return self._completed() if self._streaming else []

    def finish(self) -> list[KSpace]:
        """The slices left, at the end of the scan.

        Raises
        ------
        DataError
            The scan had no imaging lines.
        """
        held = [] if self._gating is None else self._gating.finish()
        out = [piece for part in held for piece in self._feed(part)]
        if not self._buffers and not self._emitted:
            seen = {"noise": self._scan.samples, **self._counts}
            found = ", ".join(f"{count} {name}" for name, count in seen.items() if count) or "nothing"
            raise DataError(f"no imaging lines in this scan (found {found})")
        return out + [piece for index in sorted(self._buffers) for piece in self._emit(index)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed about the scan so far, beside the notes of each k-space."""
        counts = ", ".join(f"{count} {name}" for name, count in self._counts.items() if count)
        left_out = (f"acquisitions left out: {counts}",) if counts else ()
        gated = () if self._gating is None else self._gating.notes
        return (*self._notes, *self._common.notes, *gated, *left_out)

    def _count(self, name: str, count: int) -> None:
        self._counts[name] = self._counts.get(name, 0) + count

    def _take_noise(self, block: Readouts, which: NDArray[np.bool_]) -> None:
        if not which.any():
            return
        lines = np.flatnonzero(kinds(block.head["flags"]) <= Kind.BOTH)
        first = 0 if self._started else int(lines[0]) if len(lines) else len(block)
        if which[first:].any():
            self._notes["a noise scan came after imaging lines and was not used"] = None
        if which[:first].any():
            noise = block.select(np.flatnonzero(which[:first]))
            self._count("noise with signal in it", self._scan.add(noise))

    def _finite(self, block: Readouts) -> Readouts:
        """In memory order, without lines that hold NaN or infinite samples."""
        samples = np.require(block.samples, requirements=["C", "A"])
        block = Readouts(head=block.head, samples=samples)
        flat = samples.reshape(-1).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            energy = np.dot(flat, flat)
        if np.isfinite(energy):
            return block
        good = np.all(np.isfinite(samples), axis=(1, 2))
        if not good.all():
            self._count("with NaN or infinite samples", int((~good).sum()))
        return block.select(good)

    def _start(self, coils: int) -> None:
        """Fix coils and whitening at the first line that is not noise."""
        self._started = True
        self._coils = coils
        if self._noise != "auto" or not self._scan.samples:
            return
        if self._scan.coils != coils:
            self._notes[
                f"the noise scan has {self._scan.coils} channels, the lines {coils}: it was not used"
            ] = None
            return
        self._whitening = whitening(self._scan, bandwidth_ratio(self._headers[0]))
        self._notes.update(dict.fromkeys(self._whitening.notes))

    def _take_lines(self, block: Readouts, encoding: int) -> None:
        if encoding >= len(self._headers):
            raise InconsistentReadouts(
                f"acquisitions refer to encoding {encoding}, the header has {len(self._headers)}"
            )
        if not len(block):
            return
        coils = block.samples.shape[1]
        if not self._started:
            self._start(coils)
        if coils != self._coils:
            raise InconsistentReadouts(f"acquisitions have {coils} channels, earlier ones {self._coils}")
        lines = self._prepared(block, encoding)
        rows = rows_of(lines.head, self._headers[encoding])
        kind = kinds(lines.head["flags"])
        calibrating = kind != Kind.IMAGING
        if calibrating.any():
            self._calibrate(lines, rows, calibrating, encoding)
        imaging = kind != Kind.CALIBRATION
        if imaging.any():
            part = lines if imaging.all() else _select(lines, imaging)
            self._sort(part, rows[imaging], encoding)

    def _prepared(self, block: Readouts, encoding: int) -> Lines:
        header = self._headers[encoding]
        lines = self._grids[encoding].lines(block)
        data = lines.data
        if self._whitening is not None:
            data = self._whitened(self._whitening, lines, encoding)
        elif self._noise == "unit-parts":
            data = data * np.float32(np.sqrt(0.5))
        if self._common.conjugated(header, block.head, encoding):
            data = np.conj(data)
        return Lines(head=lines.head, data=data, covered=lines.covered)

    def _whitened(self, whitening: Whitening, lines: Lines, encoding: int) -> NDArray[np.complex64]:
        groups = list(self._common.by_dwell(lines.head, encoding))
        if len(groups) == 1:
            return whitening.apply(lines.data, groups[0][1])
        parts = [(mine, whitening.apply(lines.data[mine], dwell)) for mine, dwell in groups]
        out = np.empty((len(lines.head), *parts[0][1].shape[1:]), np.complex64)
        for mine, part in parts:
            out[mine] = part
        return out

    def _calibrate(
        self,
        lines: Lines,
        rows: NDArray[np.intp],
        which: NDArray[np.bool_],
        encoding: int,
    ) -> None:
        slices = lines.head["idx"]["slice"]
        for number in np.unique(slices[which]).tolist():
            mine = which & (slices == number)
            key = (encoding, number)
            if key not in self._calibration:
                self._calibration[key] = CalibrationSum(*self._shape(lines, encoding))
            self._calibration[key].add(rows[mine], lines.data[mine], lines.covered[mine])

    def _shape(self, lines: Lines, encoding: int) -> tuple[int, int, int]:
        _, ny, nz = self._headers[encoding].encoded_matrix
        return lines.data.shape[1], ny * nz, lines.data.shape[2]

    def _sort(self, lines: Lines, rows: NDArray[np.intp], encoding: int) -> None:
        header = self._headers[encoding]
        idx = lines.head["idx"]
        phases = self._phase_counters(idx, header)
        indices, groups, last = slice_indices(idx, encoding, self._dynamic)
        for number, index in enumerate(indices):
            mine = groups == number
            if index in self._emitted:
                raise InconsistentReadouts(
                    f"{int(mine.sum())} lines of {name_of(index)} came after it had been complete"
                )
            if index not in self._buffers:
                limit = header.limits.get(self._dynamic)
                phase_count = min(limit.size, 512) if limit else 1
                self._buffers[index] = SliceBuffer(index, phase_count, self._shape(lines, encoding))
            buffer = self._buffers[index]
            self._revisits |= buffer.overtaken
            part = lines if mine.all() else _select(lines, mine)
            buffer.add(phases[mine], rows[mine], part)
        for index, buffer in self._buffers.items():
            buffer.overtaken = index != last

    def _phase_counters(self, idx: NDArray[Any], header: ScanHeader) -> NDArray[np.intp]:
        counters = idx[self._dynamic].astype(np.intp)
        limit = header.limits.get(self._dynamic)
        if limit is not None and bool((counters >= limit.minimum).all()):
            counters -= limit.minimum
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
            self._notes[f"{self._dynamic} counters go beyond the header's limit of {limit.maximum}"] = None
        return counters

    def _completed(self) -> list[KSpace]:
        done = [
            index
            for index, buffer in self._buffers.items()
            if is_complete(buffer, self._headers[index.encoding], self._dynamic, revisits=self._revisits)
        ]
        return [piece for index in sorted(done) for piece in self._emit(index)]

    def _emit(self, index: SliceIndex) -> list[KSpace]:
        buffer = self._buffers.pop(index)
        self._emitted.add(index)
        header, grid = self._headers[index.encoding], self._grids[index.encoding]
        geometry, assumed = slice_geometry(header, buffer.head, grid.fov_mm, index.slice, self._orientation)
        if index.encoding in self._common.perhaps_mirrored:
            geometry = replace(geometry, verified=False)
        calibration = self._calibration.get((index.encoding, index.slice))
        context = SliceContext(
            header=header,
            geometry=geometry,
            dynamic=self._dynamic,
            gated=self._gating is not None,
            whitened=self._whitening is not None or self._noise == "unit-parts",
            estimate_noise=self._noise == "auto",
            calibration_width=self._calibration_width,
            notes=(*self.notes, *grid.what_was_noticed(), *assumed),
        )
        try:
            return assemble(buffer, calibration, context)
        except DataError as error:
            self.refused.append(str(error))
            return []


def _of_encoding(block: Readouts, encoding: int) -> Readouts:
    mine = block.head["encoding_space_ref"] == encoding
    return block if mine.all() else block.select(mine)


def _select(lines: Lines, which: NDArray[np.bool_]) -> Lines:
    return Lines(head=lines.head[which], data=lines.data[which], covered=lines.covered[which])

"""Readouts as they come to lines of k-space: left out or kept, whitened, on the grid of their encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recon_node.core.choices import NoiseHandling
from recon_node.core.errors import InconsistentReadouts, UnsupportedScan
from recon_node.core.scan import Readouts, ScanHeader
from recon_node.prep.common import Common
from recon_node.prep.expectation import bandwidth_ratio
from recon_node.prep.kinds import COMPRESSED, Kind, has_any, kinds, names_of_others
from recon_node.prep.noise import NoiseScan, Whitening, whitening
from recon_node.prep.notebook import Notebook
from recon_node.prep.readout import Lines, ReadoutGrid


class Intake:
    """Takes the readouts of one scan.

    Parameters
    ----------
    headers : sequence of ScanHeader
    noise : {"auto", "none", "unit-parts"}
        As `Preparation` has it.
    common : Common
        What lines have in common.
    book : Notebook
        Told what is odd.
    """

    def __init__(
        self, headers: Sequence[ScanHeader], noise: NoiseHandling, common: Common, book: Notebook
    ) -> None:
        self._headers = headers
        self._noise = noise
        self._common = common
        self._book = book
        self._scan = NoiseScan()
        self._whitening: Whitening | None = None
        self._coils: int | None = None
        self.grids = [ReadoutGrid.of(header) for header in headers]
        """One per encoding."""

    @property
    def whitened(self) -> bool:
        """Whether lines leave in units of the noise's standard deviation."""
        return self._whitening is not None or self._noise == "unit-parts"

    @property
    def noise_samples(self) -> int:
        """Of the noise scan."""
        return self._scan.samples

    def kept(self, block: Readouts) -> Readouts | None:
        """The lines of a block that calibrate or make images; noise is taken, the rest counted.

        Raises
        ------
        UnsupportedScan
            Compressed samples.
        """
        if not block.samples.size:
            self._book.count("without samples", len(block))
            return None
        if has_any(block.head["flags"], COMPRESSED).any():
            raise UnsupportedScan("samples are compressed (ISMRMRD compression flags), expected plain ones")
        if block.head["trajectory_dimensions"].any():
            self._book.note("acquisitions carry a trajectory, the header says cartesian: it was ignored")
        kind = kinds(block.head["flags"])
        self._take_noise(block, kind == Kind.NOISE)
        for name, count in names_of_others(block.head["flags"][kind == Kind.OTHER]).items():
            self._book.count(name, count)
        wanted = kind <= Kind.BOTH
        if not wanted.any():
            return None
        return self._finite(block if wanted.all() else block.select(wanted))

    def lines(self, block: Readouts) -> Iterator[tuple[int, Lines]]:
        """Whitened lines of each encoding in `block`.

        Raises
        ------
        InconsistentReadouts
            Another number of channels than before, or an encoding that the header does not have.
        """
        for encoding in np.unique(block.head["encoding_space_ref"]).tolist():
            if encoding >= len(self._headers):
                raise InconsistentReadouts(
                    f"acquisitions refer to encoding {encoding}, the header has {len(self._headers)}"
                )
            mine = block.head["encoding_space_ref"] == encoding
            part = block if mine.all() else block.select(mine)
            self._check_coils(part.samples.shape[1])
            yield encoding, self._prepared(part, encoding)

    def _check_coils(self, coils: int) -> None:
        if self._coils is None:
            self._start(coils)
        if coils != self._coils:
            raise InconsistentReadouts(f"acquisitions have {coils} channels, earlier ones {self._coils}")

    def _start(self, coils: int) -> None:
        """Fix coils and whitening at the first line that is not noise."""
        self._coils = coils
        if self._noise != "auto" or not self._scan.samples:
            return
        if self._scan.coils != coils:
            self._book.note(
                f"the noise scan has {self._scan.coils} channels, the lines {coils}: it was not used"
            )
            return
        self._whitening = whitening(self._scan, bandwidth_ratio(self._headers[0]))
        self._book.note(*self._whitening.notes)

    def _take_noise(self, block: Readouts, which: NDArray[np.bool_]) -> None:
        if not which.any():
            return
        lines = np.flatnonzero(kinds(block.head["flags"]) <= Kind.BOTH)
        first = 0 if self._coils is not None else int(lines[0]) if len(lines) else len(block)
        if which[first:].any():
            self._book.note("a noise scan came after imaging lines and was not used")
        if which[:first].any():
            noise = block.select(np.flatnonzero(which[:first]))
            self._book.count("noise with signal in it", self._scan.add(noise))

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
            self._book.count("with NaN or infinite samples", int((~good).sum()))
        return block.select(good)

    def _prepared(self, block: Readouts, encoding: int) -> Lines:
        lines = self.grids[encoding].lines(block)
        data = lines.data
        if self._whitening is not None:
            data = self._whitened(self._whitening, lines, encoding)
        elif self._noise == "unit-parts":
            data = data * np.float32(np.sqrt(0.5))
        if self._common.conjugated(self._headers[encoding], block.head, encoding):
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

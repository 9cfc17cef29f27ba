"""One readout as the scanner digitised it to one line of the image's k-space.

Discarded samples are cut, reversed lines turned, asymmetric echoes put where their centre says, and
readout oversampling removed by cropping in image space.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from recon_node.core.acquisition import AcquisitionFlag
from recon_node.core.errors import DataError, InconsistentReadouts
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.grid import central
from recon_node.core.scan import Readouts, ScanHeader
from recon_node.prep.kinds import Kind, has_any, kinds

MUCH_OUTSIDE = 0.15
"""Fraction of the central line's energy beyond the field of view that is worth a note."""
SMALL_PART = 2
"""Readouts that fill at most the image's matrix over this are measured with another matrix than announced."""
FEWEST_SAMPLES = 8
"""Of a readout that an image can be made of."""


_TONE = (0, 1, 2, -1)
"""Samples of a line that carry the pilot tone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lines:
    """Readouts of one encoding on the image's kx grid."""

    head: NDArray[Any]
    """`(line,)` of dtype ACQUISITION_HEADER."""
    data: NDArray[np.complex64]
    """`(line, coil, kx)` complex64."""
    covered: NDArray[np.bool_]
    """`(line, kx)` bool: where something was measured."""


@dataclass(slots=True)
class ReadoutGrid:
    """The kx grid of one encoding, and what was noticed while filling it."""

    full: int
    """Samples of the encoded space, oversampling included."""
    size: int
    """Samples after oversampling was removed."""
    fov_mm: float
    """Field of view of the grid after that, along x."""
    removed_before: bool = False
    """Whether the acquisitions came without the oversampling that the header announces."""
    notes: dict[str, None] = field(default_factory=dict)
    doubts: dict[str, None] = field(default_factory=dict)
    announced: tuple[int, int] | None = None
    """Samples of the header's encoded space, and of the image, where lines fill so little of them that the
    grid is that of the lines, oversampling included."""
    pilot_tone: bool = False
    """A tone of the pilot transmitter stands in some samples of every line, as OCMR's headers say."""
    _looked: bool = False
    _forward_centre: int | None = None
    _widths: set[int] = field(default_factory=set)
    _strongest: float = 0.0
    _outside: float = 0.0

    @classmethod
    def of(cls, header: ScanHeader) -> ReadoutGrid:
        """The grid a header describes: the encoded one, cropped to the image's field of view along x.

        Raises
        ------
        DataError
            The image's field of view is a tiny part of the encoded one.
        """
        full, encoded, wanted = header.encoded_matrix[0], header.encoded_fov_mm[0], header.recon_fov_mm[0]
        size = round(min(1.0, wanted / encoded) * full)
        if size < 2:
            raise DataError(
                f"header: fields of view along x are {encoded:g} mm encoded and {wanted:g} mm in the image, "
                f"which leaves {size} of {full} samples, expected at least 2"
            )
        return cls(
            full=full,
            size=size,
            fov_mm=encoded * size / full,
            pilot_tone=str(header.user.get("PilotTone", 0)) in ("1", "1.0"),
        )

    def lines(self, block: Readouts) -> Lines:
        """Put readouts of one shape on the grid.

        Raises
        ------
        InconsistentReadouts
            More samples than the encoded matrix, or a centre that does not fit into it.
        """
        if self.pilot_tone:
            block = _without_tone(block)
            self.notes["a pilot tone was taken out: samples 0, 1, 2 and the last of every line are zero"] = (
                None
            )
        self._look(block)
        keys = _layouts(block.head)
        first = keys[0]
        if bool(np.all(keys == first)):
            data, covered = self._group(block.samples, first)
            return Lines(head=block.head, data=data, covered=covered)
        coils = block.samples.shape[1]
        data = np.zeros((len(block), coils, self.size), dtype=np.complex64)
        covered = np.zeros((len(block), self.size), dtype=bool)
        for key in np.unique(keys):
            rows = keys == key
            data[rows], covered[rows] = self._group(block.samples[rows], key)
        return Lines(head=block.head, data=data, covered=covered)

    def _look(self, block: Readouts) -> None:
        """Take the grid from the first imaging line, where that fills a small part of the header's matrix."""
        imaging = np.flatnonzero(kinds(block.head["flags"]) != Kind.CALIBRATION)
        if self._looked or not len(imaging):
            return
        self._looked = True
        head, samples = block.head[imaging[0]], block.samples[imaging[0]]
        pre, post = int(head["discard_pre"]), int(head["discard_post"])
        kept = samples[:, pre : samples.shape[1] - post]
        length, centre = kept.shape[1], int(head["center_sample"]) - pre
        if length < FEWEST_SAMPLES or length * SMALL_PART > self.size or abs(centre - length // 2) > 1:
            return
        full, size = self.full, self.size
        if self._widths:
            self.doubts[f"lines have {length} samples, the header's matrix {full}: zero filled"] = None
            return
        self.full = self.size = length
        self.announced = (full, size)

    def _group(
        self, samples: NDArray[np.complex64], layout: Any
    ) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Readouts that share discards, centre and direction."""
        pre, post, total = int(layout["pre"]), int(layout["post"]), samples.shape[2]
        if pre + post >= total:
            raise InconsistentReadouts(f"{total} samples, of which {pre} and {post} are to be discarded")
        kept = samples[:, :, pre : total - post]
        length = kept.shape[2]
        centre = int(layout["centre"]) - pre
        if bool(layout["reverse"]):
            kept, centre = kept[:, :, ::-1], self._turned(centre, length)
        else:
            self._forward_centre = centre
        measured = _measured(kept)
        start = self._place(length, centre)
        if start is None:
            return np.ascontiguousarray(kept), measured
        covered = np.zeros((len(kept), self.full), dtype=bool)
        covered[:, start : start + length] = measured
        if length != self.full:
            padded = np.zeros((*kept.shape[:2], self.full), dtype=np.complex64)
            padded[:, :, start : start + length] = kept
            kept = padded
        if self.size == self.full:
            return np.ascontiguousarray(kept), covered
        return self._cropped(kept, covered)

    def _turned(self, centre: int, length: int) -> int:
        """Centre of a reversed line after turning it.

        Many converters give the centre of the turned line already: the one that forward lines have.
        """
        forward = length // 2 if self._forward_centre is None else self._forward_centre
        return centre if centre == forward else length - 1 - centre

    def _place(self, length: int, centre: int) -> int | None:
        """First sample's index on the oversampled grid; None for lines that are on the final grid."""
        self._widths.add(length)
        if self.removed_before and length > self.size:
            raise InconsistentReadouts(
                f"lines of {length} samples came after lines of {self.size} without readout oversampling"
            )
        whole = self.full in self._widths
        if length == self.size < self.full and abs(centre - length // 2) <= 1 and not whole:
            if not self.removed_before:
                self.notes[
                    f"acquisitions have {length} samples where the header announces {self.full}: readout "
                    "oversampling was removed before"
                ] = None
            self.removed_before = True
            return None
        if length > self.full:
            raise InconsistentReadouts(
                f"acquisitions have {length} samples, the header's encoded matrix has {self.full}"
            )
        if centre <= 0:
            self.notes["acquisitions give no centre sample: the middle of the readout is assumed"] = None
            centre = length // 2 if length == self.full else self.full // 2 - (self.full - length)
        start = self.full // 2 - centre
        if length == self.full and start != 0:
            self.notes[
                f"centre sample is {centre} in lines of {length}: taken for the middle, {self.full // 2}"
            ] = None
            start = 0
        if start < 0 or start + length > self.full:
            raise InconsistentReadouts(
                f"lines of {length} samples with centre {centre} do not fit the encoded matrix of {self.full}"
            )
        return start

    def _watch_energy(self, samples: NDArray[np.complex64]) -> None:
        """Remember of the strongest line so far how much of it is about to be cut off."""
        centre = samples[:, :, samples.shape[2] // 2]
        energy = (centre.real**2 + centre.imag**2).sum(axis=1)
        strongest = int(np.argmax(energy))
        if energy[strongest] > self._strongest:
            self._strongest = float(energy[strongest])
            self._outside = energy_outside(samples[strongest], self.size)

    def what_was_noticed(self) -> tuple[str, ...]:
        """Notes about the readouts so far."""
        if self._outside < MUCH_OUTSIDE:
            return tuple(self.notes)
        cut = (
            f"{self._outside:.0%} of the signal lies beyond the image's field of view along the readout "
            f"({self.size} of {self.full} samples by the header): it was cut off"
        )
        return (*self.notes, cut)

    def _cropped(
        self, samples: NDArray[np.complex64], covered: NDArray[np.bool_]
    ) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Crop in image space; kx samples count as measured where their neighbours on the fine grid are."""
        nearest = np.rint((np.arange(self.size) - self.size // 2) * (self.full / self.size)).astype(int)
        kept = covered[:, np.clip(nearest + self.full // 2, 0, self.full - 1)]
        self._watch_energy(samples)
        data = remove_oversampling(samples, self.size)
        if not kept.all():
            data *= kept[:, None, :]
        return data, kept


def energy_outside(samples: NDArray[np.complex64], size: int) -> float:
    """Fraction of the energy of lines `(..., n)` beyond the central `size` pixels."""
    image = np.abs(centred_ifft(samples, (-1,))) ** 2
    total = float(image.sum())
    return 1 - float(image[..., central(image.shape[-1], size)].sum()) / total if total > 0 else 0.0


def _without_tone(block: Readouts) -> Readouts:
    """Lines without the samples that carry a pilot tone (documentation of the OCMR data set)."""
    if block.samples.shape[2] <= len(_TONE):
        return block
    samples = block.samples.copy()
    samples[:, :, _TONE] = 0
    return Readouts(head=block.head, samples=samples)


def _layouts(head: NDArray[Any]) -> NDArray[Any]:
    keys = np.zeros(len(head), dtype=[("pre", "u2"), ("post", "u2"), ("centre", "u2"), ("reverse", "?")])
    keys["pre"], keys["post"] = head["discard_pre"], head["discard_post"]
    keys["centre"] = head["center_sample"]
    keys["reverse"] = has_any(head["flags"], AcquisitionFlag.IS_REVERSE)
    return keys


def _measured(samples: NDArray[np.complex64]) -> NDArray[np.bool_]:
    """`(line, sample)` bool: False where every coil is exactly zero (never digitised)."""
    zero = samples[:, 0, :] == 0
    if zero.any():
        lines = np.flatnonzero(zero.any(axis=1))
        zero[lines] = (samples[lines] == 0).all(axis=1)
    return np.asarray(~zero)


def remove_oversampling(samples: NDArray[np.complex64], size: int) -> NDArray[np.complex64]:
    """Crop the field of view along the last axis to its central `size` of `n` pixels.

    Both transforms are orthonormal, so white noise keeps its variance per sample.

    Parameters
    ----------
    samples : ndarray
        `(..., n)` complex64, centre at ``n // 2``.
    size : int
        Samples to keep, at most n.

    Returns
    -------
    ndarray
        `(..., size)` complex64.
    """
    full = samples.shape[-1]
    if full % 2 or size % 2:
        image = centred_ifft(samples, (-1,))
        return centred_fft(image[..., central(full, size)], (-1,)).astype(np.complex64, copy=False)
    # For even sizes the shifts are sign alternations that cancel between the two transforms.
    image = scipy.fft.ifft(samples, axis=-1, norm="ortho")
    half = size // 2
    cropped = np.empty((*samples.shape[:-1], size), dtype=np.complex64)
    cropped[..., :half] = image[..., :half]
    cropped[..., half:] = image[..., full - half :]
    return np.asarray(scipy.fft.fft(cropped, axis=-1, norm="ortho", overwrite_x=True), dtype=np.complex64)

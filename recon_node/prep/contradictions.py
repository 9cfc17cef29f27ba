"""Lines that contradict their header: refused by name, or put on the grid that they were measured on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import UnsupportedScan
from recon_node.core.grid import central
from recon_node.core.scan import ScanHeader
from recon_node.prep.readout import energy_outside, remove_oversampling
from recon_node.prep.slices import SliceBuffer

MANY_BACKWARDS = 0.25
"""Of the lines of a slice, and of those read forwards, by which it is echo planar."""
FEWEST_SPOKES = 16
ALIKE, THROUGH, PEAKED = 0.9, 0.3, 0.3
"""Non-Cartesian data: share of lines with their peak at one sample, energy of outer peaks over the
highest, and mean over peak energy of a line."""
LITTLE_PART = 3
"""Lines over at most the matrix over this are fewer than any resolution setting makes."""
EMPTY = 0.02
"""Fraction of the central line's energy up to which a part of the field of view holds nothing but noise."""
Reference = tuple[NDArray[np.complex64], NDArray[np.int32]]
"""Averaged calibration lines `(coil, kz, ky, kx)`, and how often each sample was measured."""


def refuse_echo_planar(buffer: SliceBuffer) -> None:
    """Refuse slices many of whose lines were read backwards, and others not."""
    total = int(buffer.count.sum())
    if min(buffer.backwards, total - buffer.backwards) >= MANY_BACKWARDS * total > 0:
        raise UnsupportedScan(
            f"echo planar (EPI) scan behind a Cartesian header: {buffer.backwards} of {total} lines of slice "
            f"{buffer.index.slice} were read backwards, which needs a phase correction that is not made here"
        )


def refuse_through_centre(data: NDArray[np.complex64]) -> None:
    """Refuse k-space `(coil, ky, kx)` whose outer lines are as strong as the central ones, at one sample.

    Radial spokes and spiral interleaves all pass through the centre; of Cartesian lines only a few do.
    """
    energy = (data.real**2 + data.imag**2).sum(axis=0)
    lines = np.flatnonzero(energy.any(axis=1))
    if len(lines) < FEWEST_SPOKES:
        return
    peaks, strongest = energy[lines].argmax(axis=1), energy[lines].max(axis=1)
    usual = int(np.median(peaks))
    together = np.mean(np.abs(peaks - usual) <= 1)
    outer = np.abs(lines - data.shape[1] // 2) > data.shape[1] // 4
    spread = energy[lines].sum(axis=1) < PEAKED * strongest * data.shape[2]
    if (
        together > ALIKE
        and outer.any()
        and np.median(strongest[outer]) > THROUGH * strongest.max()
        and spread.all()
    ):
        raise UnsupportedScan(
            f"all {len(lines)} lines pass through the centre of k-space (sample {usual}): radial, spiral or "
            "other non-Cartesian data behind a header that says cartesian"
        )


def only_plane(
    data: NDArray[np.complex64], mask: NDArray[np.bool_], reference: Reference | None
) -> tuple[NDArray[np.complex64], NDArray[np.bool_], Reference | None]:
    """The one plane of a slab that was measured."""
    plane = int(np.argmax(mask.any(axis=(0, 2, 3))))
    kept = slice(plane, plane + 1)
    lines = None if reference is None else (reference[0][:, kept], reference[1][kept])
    return np.ascontiguousarray(data[:, :, kept]), np.ascontiguousarray(mask[:, kept]), lines


def on_own_grid(
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    reference: Reference | None,
    announced: tuple[int, int],
    fov_mm: float,
    doubts: list[str],
) -> tuple[NDArray[np.complex64], NDArray[np.bool_], Reference | None]:
    """Lines much shorter than announced on a grid of their own.

    Their field of view is the encoded one, whose oversampling is cut off, unless there is signal in it.
    """
    full, size = announced
    length = data.shape[-1]
    inner = max(2, round(length * size / full))
    middle = data[:, :, data.shape[2] // 2, data.shape[3] // 2]
    bare = inner == length or energy_outside(middle, inner) > EMPTY
    if not bare:
        part = central(length, inner)
        data, mask = remove_oversampling(data, inner), mask[..., part]
        if reference is not None:
            lines = remove_oversampling(reference[0], inner)
            reference = lines, reference[1][..., part]
    doubts.append(
        f"lines have {length} samples where the header's matrix has {full} (image {size}): pixels of "
        f"{fov_mm / data.shape[-1]:.3g} mm along the readout, as measured"
        + (", without oversampling" if bare and size < full else "")
    )
    return data, mask, reference


def little_of_matrix(mask: NDArray[np.bool_], header: ScanHeader, doubts: list[str]) -> None:
    """Say where lines fill a small part of the header's matrix, around its centre."""
    lines = np.flatnonzero(mask.any(axis=(0, 2)))
    count = mask.shape[1]
    extent = int(lines[-1] - lines[0] + 1)
    if extent * LITTLE_PART <= count and lines[0] <= count // 2 <= lines[-1]:
        doubts.append(
            f"lines fill {extent} of the header's {count} along the phase encoding: coarser than its "
            f"pixels of {header.encoded_fov_mm[1] / count:.3g} mm"
        )

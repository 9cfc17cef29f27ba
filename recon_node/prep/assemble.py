"""A complete slice buffer to the `KSpace` values that leave the preparation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError, UnsupportedScan
from recon_node.core.fft import centred_ifft
from recon_node.core.grid import central
from recon_node.core.scan import ScanHeader, SliceGeometry
from recon_node.core.types import KSpace, Sampling
from recon_node.prep.calibration import (
    Block,
    CalibrationSum,
    averaged_block,
    central_window,
    phase_average,
)
from recon_node.prep.clock import read_clock
from recon_node.prep.contradictions import (
    Reference,
    little_of_matrix,
    on_own_grid,
    only_plane,
    refuse_echo_planar,
    refuse_through_centre,
)
from recon_node.prep.expectation import expected_lines, line_limits
from recon_node.prep.geometry import partition_geometry
from recon_node.prep.noise import edge_noise
from recon_node.prep.notebook import listed, short
from recon_node.prep.places import APART_MM
from recon_node.prep.plausible import MOST_ANISOTROPIC, as_slice
from recon_node.prep.readout import MUCH_OUTSIDE, energy_outside
from recon_node.prep.sampling import classify_sampling
from recon_node.prep.slices import SliceBuffer
from recon_node.prep.timing import acquisition_times_s, rr_interval_ms, trigger_times_ms

MOST_NAMED = 8
"""Missing lines of a phase, or phases with missing lines, that a note names."""
SOME_OUTSIDE = 0.05
"""Of the signal, beyond an image whose lines are coarse by the header."""
FEW_LINES = 0.75
"""Fraction of the announced lines below which a note says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceContext:
    """What the assembly needs to know beside the buffer."""

    header: ScanHeader
    geometry: SliceGeometry
    dynamic: str
    gated: bool
    whitened: bool
    estimate_noise: bool
    calibration_width: int
    announced: tuple[int, int] | None
    """Samples along the readout of the header's encoded space and image, where lines fill little of them."""
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def assemble(buffer: SliceBuffer, calibration: CalibrationSum | None, context: SliceContext) -> list[KSpace]:
    """K-space of a slice, or of every partition of a slab.

    Raises
    ------
    DataError
        Every sample is exactly zero: none was digitised.
    UnsupportedScan
        A slab that is undersampled along its slice encoding; lines read in both directions; lines that all
        pass through the centre.
    """
    refuse_echo_planar(buffer)
    buffer.average()
    notes, doubts = [*context.notes], [*context.doubts]
    seen = _phases(buffer, context, notes, doubts)
    data, mask, reference = _cube(buffer, seen, calibration, context.header)
    if data.shape[2] > 1 and np.count_nonzero(mask.any(axis=(0, 2, 3))) == 1:
        data, mask, reference = only_plane(data, mask, reference)
        header = as_slice(context.header)
        fov = (*context.geometry.fov_mm[:2], header.recon_fov_mm[2])
        geometry = dataclasses.replace(context.geometry, fov_mm=fov)
        context = dataclasses.replace(context, header=header, geometry=geometry)
        doubts.append("the header announces a slab, lines of one partition came: taken for a single slice")
    if not mask.any():
        raise DataError(
            f"slice {buffer.index.slice}: its lines hold no sample within the matrix that is not exactly zero"
        )
    if context.announced is not None:
        data, mask, reference = on_own_grid(
            data, mask, reference, context.announced, context.geometry.fov_mm[0], doubts
        )
        matrix = (data.shape[-1], *context.header.recon_matrix[1:])
        context = dataclasses.replace(
            context, header=dataclasses.replace(context.header, recon_matrix=matrix)
        )
    refuse_through_centre(data[0, :, data.shape[2] // 2])
    whitened = context.whitened
    data, reference = _without_silent_coils(data, reference, notes)
    if context.estimate_noise and not whitened:
        whitened = _scale_by_edges(data, reference, mask, notes)
    if data.shape[2] > 1:
        mask = _slab(data, reference, mask, notes)
    flat = np.ascontiguousarray(mask[:, 0])
    sampling = classify_sampling(flat)
    _missing_lines(buffer, seen, sampling, context, notes)
    little_of_matrix(flat, context.header, doubts)
    _check_centre(data[:, :, data.shape[2] // 2], flat, notes)
    common = _common(buffer, seen, sampling, context, data.shape[-1], notes)
    count = data.shape[2]
    kept = _partitions(count, context.header)
    out = []
    for partition in kept:
        piece = np.ascontiguousarray(data[:, :, partition])
        block, noise = _calibration(piece, flat, reference, partition, sampling, context, notes) or (
            None,
            None,
        )
        if block is not None:
            _watch_edges(block, flat.shape[1], context.header, notes, doubts)
        geometry = context.geometry if count == 1 else partition_geometry(context.geometry, partition, count)
        out.append(
            KSpace(
                data=piece,
                mask=flat,
                header=context.header,
                index=dataclasses.replace(buffer.index, partition=partition - kept.start),
                geometry=geometry,
                sampling=sampling,
                calibration=block,
                calibration_noise=noise if whitened else None,
                whitened=whitened,
                noise_estimated=whitened and not context.whitened,
                notes=short((*doubts, *notes)),
                doubts=short(doubts),
                **common,
            )
        )
    return out


def _phases(
    buffer: SliceBuffer, context: SliceContext, notes: list[str], doubts: list[str]
) -> NDArray[np.bool_]:
    """Which phases to keep; those without a sample are named."""
    seen = buffer.phases_seen & buffer.mask.any(axis=(1, 2))
    missing = np.flatnonzero(~seen)
    if len(missing):
        notes.append(
            f"{context.dynamic}s missing and left out: {listed(missing.tolist())} "
            f"(found {int(seen.sum())} of {len(seen)})"
        )
    if buffer.place.apart_mm > APART_MM or buffer.place.turned:
        doubts.append(
            f"lines of slice {buffer.index.slice} give places up to {buffer.place.apart_mm:.0f} mm apart"
            f"{' and directions turned' if buffer.place.turned else ''}: the first was taken for all"
        )
    if buffer.backwards and buffer.backwards < int(buffer.count.sum()):
        doubts.append("lines were read in both directions, without phase correction: ghosts may remain")
    if buffer.repeated:
        hint = (
            "; their time stamps say retrospective gating"
            if buffer.stamps.physiology.any() and not context.gated
            else ""
        )
        notes.append(f"{buffer.repeated} lines came more than once with equal counters, averaged{hint}")
    return seen


def _missing_lines(
    buffer: SliceBuffer, seen: NDArray[np.bool_], sampling: Sampling, context: SliceContext, notes: list[str]
) -> None:
    """Name the lines that a scan without a pattern misses; count them where a pattern has fewer than said."""
    found = buffer.count[seen] > 0
    expected = len(found) * expected_lines(context.header, sampling.acs)
    if sampling.pattern == "full":
        limits = line_limits(context.header)
        shift = context.header.encoded_matrix[1] // 2 - limits.center
        inside = np.zeros(found.shape[1], dtype=bool)
        first, last = max(0, limits.minimum + shift), max(0, limits.maximum + 1 + shift)
        inside[first:last] = context.header.encoded_matrix[2] == 1
        phases = np.flatnonzero(seen)
        gaps = [
            f"{context.dynamic} {phases[p]}: ky {listed((np.flatnonzero(row) - shift).tolist())}"
            for p, row in enumerate(inside & ~found)
            if 0 < row.sum() <= MOST_NAMED
        ]
        if gaps:
            more = f" and {len(gaps) - MOST_NAMED} more" if len(gaps) > MOST_NAMED else ""
            notes.append(f"lines missing in {'; '.join(gaps[:MOST_NAMED])}{more}")
    elif int(found.sum()) < FEW_LINES * expected:
        notes.append(f"found {int(found.sum())} of the {expected} lines that the header announces")


def _cube(
    buffer: SliceBuffer, seen: NDArray[np.bool_], calibration: CalibrationSum | None, header: ScanHeader
) -> tuple[NDArray[np.complex64], NDArray[np.bool_], Reference | None]:
    """Rows unfolded: data `(phase, coil, kz, ky, kx)`, mask `(phase, kz, ky, kx)`."""
    nz, ny = header.encoded_matrix[2], header.encoded_matrix[1]
    data, mask = (buffer.data, buffer.mask) if seen.all() else (buffer.data[seen], buffer.mask[seen])
    data = data.reshape(*data.shape[:2], nz, ny, data.shape[-1])
    mask = mask.reshape(len(mask), nz, ny, mask.shape[-1])
    if calibration is None:
        return data, mask, None
    lines, where = calibration.mean()
    return data, mask, (lines.reshape(-1, nz, ny, lines.shape[-1]), where.reshape(nz, ny, -1))


def _without_silent_coils(
    data: NDArray[np.complex64], reference: Reference | None, notes: list[str]
) -> tuple[NDArray[np.complex64], Reference | None]:
    silent = ~np.array([data[:, coil].any() for coil in range(data.shape[1])])
    if not silent.any() or silent.all():
        return data, reference
    notes.append(f"coils dropped, zero throughout: {', '.join(map(str, np.flatnonzero(silent).tolist()))}")
    kept = np.ascontiguousarray(data[:, ~silent])
    return kept, None if reference is None else (reference[0][~silent], reference[1])


def _scale_by_edges(
    data: NDArray[np.complex64], reference: Reference | None, mask: NDArray[np.bool_], notes: list[str]
) -> bool:
    """Scale coils in place by the noise at the edges of k-space; False where there is none to see."""
    middle = data.shape[2] // 2
    deviation = edge_noise(data[:, :, middle], mask[:, middle])
    if deviation is None:
        notes.append("no noise scan, and no noise to estimate at the edges of k-space: data are not whitened")
        return False
    scale = (1.0 / deviation).astype(np.float32)
    data *= scale[:, None, None, None]
    if reference is not None:
        reference[0][...] *= scale[:, None, None, None]
    notes.append(
        "no noise scan: noise of each coil estimated from the edges of k-space, correlations ignored"
    )
    return True


def _slab(
    data: NDArray[np.complex64], reference: Reference | None, mask: NDArray[np.bool_], notes: list[str]
) -> NDArray[np.bool_]:
    """Transform a slab along kz in place; the mask left is `(phase, 1, ky, kx)`.

    Raises
    ------
    UnsupportedScan
        Lines left out between others along kz: undersampling that needs a 3D reconstruction.
    """
    planes = np.flatnonzero(mask.any(axis=(0, 2, 3)))
    union = np.any(mask, axis=1, keepdims=True)
    inner = mask[:, planes[0] : planes[-1] + 1]
    corners = float(np.mean(union.sum() * inner.shape[1] - inner.sum()) / max(1, inner.sum()))
    if len(planes) < planes[-1] - planes[0] + 1 or corners > 0.5:
        raise UnsupportedScan(
            f"slab undersampled along the slice encoding ({len(planes)} of {planes[-1] - planes[0] + 1} "
            "partitions, or lines missing in some): expected every partition to be sampled alike"
        )
    if corners > 0 or len(planes) < mask.shape[1]:
        notes.append(
            "slice encoding not sampled completely (partial Fourier or corners): zero filled along kz"
        )
    data[...] = centred_ifft(data, (2,))
    if reference is not None:
        reference[0][...] = centred_ifft(reference[0], (1,))
        reference[1][...] = _alike_along_kz(reference[1])
    return np.asarray(union)


def _alike_along_kz(count: NDArray[np.int32]) -> NDArray[np.int32]:
    """How often `(kz, ky, kx)` was measured, after a transform along kz mixed its planes."""
    rarest = np.where(count > 0, count, np.iinfo(np.int32).max).min(axis=0, keepdims=True)
    return np.asarray(np.where(count.any(axis=0, keepdims=True), rarest, 0), dtype=np.int32)


def _partitions(count: int, header: ScanHeader) -> range:
    """Partitions of the image: the central ones where slices were oversampled."""
    encoded, wanted = header.encoded_fov_mm[2], header.recon_fov_mm[2]
    keep = min(count, max(1, round(count * wanted / encoded))) if count > 1 else 1
    return range(count)[central(count, keep)]


def _calibration(
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    reference: Reference | None,
    partition: int,
    sampling: Sampling,
    context: SliceContext,
    notes: list[str],
) -> Block | None:
    """Calibration lines of their own first, then lines every phase has, then the average over phases."""
    width = context.calibration_width
    if reference is not None:
        block = averaged_block(reference[0][:, partition], reference[1][partition], width)
        if block is not None:
            return block
    window = (slice(None), slice(None), *(central_window(n, width) for n in mask.shape[1:]))
    data, mask = data[window], mask[window[1:]]
    mean, count = phase_average(data, mask)
    block = averaged_block(mean, np.where(count == len(mask), count, 0), width) if sampling.acs else None
    if block is None and len(mask) > 1:
        block = averaged_block(mean, count, width)
        if block is not None:
            notes.append("no calibration lines common to all phases: the average over phases calibrates")
    if block is None:
        notes.append("no calibration lines: the centre of k-space is not fully sampled")
    return block


def _watch_edges(
    block: NDArray[np.complex64], lines: int, header: ScanHeader, notes: list[str], doubts: list[str]
) -> None:
    """Say where much signal lies beyond the image along the phase encoding.

    Where the header's lines are coarse as well, its encoded field of view may be too large.
    """
    kept = round(min(1.0, header.recon_fov_mm[1] / header.encoded_fov_mm[1]) * lines)
    if kept >= lines:
        return
    wide = np.zeros((block.shape[0], block.shape[2], lines), np.complex64)
    wide[:, :, central(lines, block.shape[1])] = block.swapaxes(1, 2)
    outside = energy_outside(wide, kept)
    along_x, along_y = (
        fov / size for fov, size in zip(header.encoded_fov_mm[:2], header.encoded_matrix[:2], strict=True)
    )
    coarse = along_y > MOST_ANISOTROPIC * along_x
    if outside > (SOME_OUTSIDE if coarse else MUCH_OUTSIDE):
        (doubts if coarse else notes).append(
            f"{outside:.0%} of the signal lies beyond the image's field of view along the phase encoding: "
            "it was cut off"
        )


def _check_centre(data: NDArray[np.complex64], mask: NDArray[np.bool_], notes: list[str]) -> None:
    """Compare the centre by the counters with where the energy is."""
    for axis, name in ((1, "ky"), (2, "kx")):
        size = mask.shape[axis]
        other = 3 - axis
        lines = mask[0].any(axis=other - 1)
        first = data[0]
        energy = (first.real**2 + first.imag**2).sum(axis=(0, other))
        peak, low, high = (
            int(np.argmax(energy)),
            size // 2 - max(2, size // 40),
            size // 2 + max(2, size // 40),
        )
        if energy[peak] > 0 and lines[low : high + 1].any() and not low <= peak <= high:
            notes.append(
                f"centre of k-space: most energy lies at {name} {peak}, the header puts the centre at "
                f"{size // 2} (of {size}): the image may be blurred or modulated"
            )


def _common(
    buffer: SliceBuffer,
    seen: NDArray[np.bool_],
    sampling: Sampling,
    context: SliceContext,
    columns: int,
    notes: list[str],
) -> dict[str, Any]:
    header, lines = context.header, buffer.count[seen] > 0
    recon = (header.recon_matrix[1], header.recon_matrix[0])
    grid = (header.encoded_matrix[1], columns)
    announced = header.limits.get(context.dynamic)
    phases = max(len(lines), announced.size if announced else 0)
    stamps, physiology = buffer.stamps.acquisition[seen], buffer.stamps.physiology[seen]
    clock = read_clock(header, stamps[lines], physiology[lines])
    notes += clock.notes
    return {
        "trigger_times_ms": trigger_times_ms(buffer.stamps.delay[seen], lines, clock.physiology_ms),
        "acquisition_times_s": acquisition_times_s(stamps, lines, clock),
        "rr_interval_ms": rr_interval_ms(stamps, physiology, lines, clock),
        "lines_found": int(lines.sum()),
        "lines_expected": phases * expected_lines(header, sampling.acs),
        "recon_shape": None if recon == grid else recon,
    }

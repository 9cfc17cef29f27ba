"""Headers that cannot be: corrected where the file proves what was meant, else doubted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from recon_node.core.errors import UnsupportedScan
from recon_node.core.physics import GYROMAGNETIC_HZ_PER_T
from recon_node.core.scan import ScanHeader

Vector = tuple[float, float, float]

WEAKEST_T, STRONGEST_T = 0.01, 12.0
"""Magnets for people: the strongest has 11.7 T."""
FIELDS_DIFFER = 0.1
"""Of the field by which the resonance frequency may differ from it: magnets called 3 T have 2.89."""
LARGEST_MM, SMALLEST_MM = 700.0, 60.0
"""Bores are at most 700 mm wide; a heart does not fit into the smallest."""
METRE_MM = 1000.0
THICKEST_MM, THINNEST_MM = 400.0, 0.2
MOST_ANISOTROPIC = 1.8
"""Ratio of the two sides of a pixel beyond which one of them is doubted."""
MUCH_FINER = 1.5
"""Than the image: no scanner measures that much more than it shows."""
MUCH_COARSER = 0.6
"""Resolution along the readout over that along the phase encoding: no scanner measures it coarser."""
SMALLER, LARGER = 0.95, 3.0
"""Encoded field of view over that of the image: oversampling is rarely more than twofold."""
_SIZES = {"pixel": "pixel size", "thickness": "slice thickness", "pitch": "places of its slices"}
_EPI = re.compile(r"^[%*\s]*(ep2d|ep_2d|ep3d|epfid|epse|epi)(\b|_|\d)", re.IGNORECASE)


def refuse(header: ScanHeader) -> None:
    """Refuse what this node does not reconstruct, by its name.

    Raises
    ------
    UnsupportedScan
        A trajectory that is not Cartesian, several slices excited at once, echo planar imaging.
    """
    if header.trajectory != "cartesian":
        raise UnsupportedScan(
            f"encoding {header.encoding} has a {header.trajectory} trajectory; only Cartesian scans are "
            "reconstructed"
        )
    if header.multiband > 1:
        raise UnsupportedScan(
            f"multiband scan (simultaneous multi-slice): encoding {header.encoding} excites "
            f"{header.multiband} slices at once, which lie folded over each other: not separated here"
        )
    if header.sequence and _EPI.match(header.sequence):
        raise UnsupportedScan(
            f"echo planar (EPI) scan by its sequence {header.sequence[:40]!r}: its lines need a phase "
            "correction that this node does not make"
        )


def plausible(headers: Sequence[ScanHeader]) -> tuple[tuple[ScanHeader, ...], list[str]]:
    """Headers with what the file proves to be meant, and doubts in sentences."""
    missing = [_SIZES[size] for size in _SIZES if any(size in header.unknown for header in headers)]
    doubts = [f"the file gives no {', no '.join(missing)}"] if missing else []
    corrected = []
    for given in headers:
        header = given
        for check in (_in_millimetres, _two_dimensional, _known_field, _believable_size):
            header, doubt = check(header)
            doubts += doubt
        corrected.append(header)
    return tuple(corrected), list(dict.fromkeys(doubts))


def _in_millimetres(header: ScanHeader) -> tuple[ScanHeader, list[str]]:
    """Fields of view below a millimetre or two were written in metres: no scanner has such pixels."""
    wide = (*header.encoded_fov_mm[:2], *header.recon_fov_mm[:2])
    if max(wide) > 2.0:
        thin = [header.encoded_fov_mm[2], header.recon_fov_mm[2]]
        if max(thin) >= 0.1 or "thickness" in header.unknown:
            return header, []
        encoded, recon = (
            (fov[0], fov[1], fov[2] * METRE_MM) for fov in (header.encoded_fov_mm, header.recon_fov_mm)
        )
        what = f"thickness {header.recon_fov_mm[2]:g} mm"
    else:
        encoded, recon = (
            (fov[0] * METRE_MM, fov[1] * METRE_MM, fov[2] * (METRE_MM if fov[2] < 1.0 else 1.0))
            for fov in (header.encoded_fov_mm, header.recon_fov_mm)
        )
        what = f"field of view {wide[2]:g} x {wide[3]:g} mm"
    changed = dataclasses.replace(header, encoded_fov_mm=encoded, recon_fov_mm=recon)
    return changed, [f"the header's {what} can only be metres: taken times 1000"]


def _two_dimensional(header: ScanHeader) -> tuple[ScanHeader, list[str]]:
    """A slab of which the limits announce one partition and the image shows one: a single slice."""
    limit = header.limits.get("kspace_encoding_step_2")
    if header.encoded_matrix[2] == 1 or limit is None or limit.size > 1 or header.recon_matrix[2] > 1:
        return header, []
    return as_slice(header), []


def as_slice(header: ScanHeader) -> ScanHeader:
    """The header of a 2D scan, its thickness that of the image."""
    x, y, _ = header.encoded_matrix
    fov_x, fov_y, _ = header.encoded_fov_mm
    thickness = header.recon_fov_mm[2] / header.recon_matrix[2]
    return dataclasses.replace(
        header,
        encoded_matrix=(x, y, 1),
        encoded_fov_mm=(fov_x, fov_y, thickness),
        recon_matrix=(*header.recon_matrix[:2], 1),
        recon_fov_mm=(*header.recon_fov_mm[:2], thickness),
    )


def _known_field(header: ScanHeader) -> tuple[ScanHeader, list[str]]:
    """The field strength by the resonance frequency, where the one given is that of no magnet."""
    frequency = header.resonance_frequency_hz
    by_frequency = None if not frequency else frequency / GYROMAGNETIC_HZ_PER_T
    doubts = []
    if by_frequency is not None and not WEAKEST_T <= by_frequency <= STRONGEST_T:
        if WEAKEST_T <= by_frequency * 1e6 <= STRONGEST_T:  # written in MHz
            by_frequency, frequency = by_frequency * 1e6, round((frequency or 0) * 1e6)
        else:
            doubts.append(f"a resonance frequency of {frequency} Hz is that of no magnet: left out")
            by_frequency, frequency = None, None
    field = header.field_strength_t
    if field is not None and not WEAKEST_T <= field <= STRONGEST_T:
        instead = f": {by_frequency:.3g} T by the resonance frequency taken" if by_frequency else ": left out"
        doubts.append(f"a field strength of {field:g} T is that of no magnet{instead}")
        field = None if by_frequency is None else float(f"{by_frequency:.4g}")
    elif field is not None and by_frequency is not None and abs(field / by_frequency - 1) > FIELDS_DIFFER:
        doubts.append(
            f"the header's field strength of {field:g} T contradicts its resonance frequency, which is that "
            f"of {by_frequency:.3g} T"
        )
    if (field, frequency) == (header.field_strength_t, header.resonance_frequency_hz):
        return header, doubts
    return dataclasses.replace(header, field_strength_t=field, resonance_frequency_hz=frequency), doubts


def _believable_size(header: ScanHeader) -> tuple[ScanHeader, list[str]]:
    """Doubts about sizes that no scanner makes."""
    doubts = [] if "pixel" in header.unknown else [*_odd_pixels(header), *_odd_views(header)]
    thickness = header.recon_fov_mm[2]
    slab = header.encoded_matrix[2] > 1
    if "thickness" not in header.unknown and not slab and not THINNEST_MM <= thickness <= THICKEST_MM:
        doubts.append(f"a slice thickness of {thickness:g} mm cannot be")
    return header, doubts


def _odd_pixels(header: ScanHeader) -> Iterator[str]:
    """Pixels far from square, and samples much finer or coarser than they."""
    sides = [fov / n for fov, n in zip(header.recon_fov_mm[:2], header.recon_matrix[:2], strict=True)]
    samples = [fov / n for fov, n in zip(header.encoded_fov_mm[:2], header.encoded_matrix[:2], strict=True)]
    if max(sides) > MOST_ANISOTROPIC * min(sides):
        yield (
            f"by the header, pixels are {sides[0]:.3g} mm wide and {sides[1]:.3g} mm high: one of its fields "
            "of view or matrices may be wrong"
        )
    finer, finer_y = (side / sample for side, sample in zip(sides, samples, strict=True))
    if finer < MUCH_COARSER * finer_y:
        yield (
            f"by the header, samples along the readout are {finer_y / finer:.1f} times as coarse as along "
            "the phase encoding: its encoded field of view or matrix may be wrong"
        )
    if finer > MUCH_FINER:
        yield (
            f"by the header, samples along the readout are {finer:.1f} times as fine as pixels: where its "
            "field of view leaves out the oversampling, images are squeezed"
        )


def _odd_views(header: ScanHeader) -> Iterator[str]:
    """Fields of view of no bore and no heart, and those of image and k-space that contradict each other."""
    x, y, _ = header.recon_fov_mm
    if not SMALLEST_MM <= max(x, y) <= LARGEST_MM:
        what = "wider than a bore" if max(x, y) > LARGEST_MM else "smaller than a heart"
        yield f"a field of view of {x:g} x {y:g} mm is {what}: the images' scale may be wrong"
    for name, encoded, shown in zip("xy", header.encoded_fov_mm, header.recon_fov_mm, strict=False):
        if not SMALLER * shown <= encoded <= LARGER * shown:
            yield (
                f"the header's encoded field of view along {name} is {encoded:g} mm, the image's {shown:g} "
                "mm: the images' scale may be wrong"
            )

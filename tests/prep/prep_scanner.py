"""A scanner in memory: images of several coils to the readouts that a file would hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft
from recon_node.core.scan import Limit, Readouts, ScanHeader
from recon_node.core.types import KSpace
from recon_node.prep import Preparation

Array = NDArray[Any]


def make_header(
    shape: tuple[int, int],
    *,
    full_x: int | None = None,
    limits: Mapping[str, int] | None = None,
    centre: int | None = None,
    **fields: Any,
) -> ScanHeader:
    """Header of images of `shape` (y, x); `full_x` samples along the readout; maxima of counters."""
    ny, nx = shape
    full = nx if full_x is None else full_x
    ranges = {"kspace_encoding_step_1": Limit(minimum=0, maximum=ny - 1, center=ny // 2)}
    if centre is not None:
        ranges["kspace_encoding_step_1"] = Limit(minimum=0, maximum=ny - 1, center=centre)
    for name, maximum in (limits or {}).items():
        ranges[name] = Limit(minimum=0, maximum=maximum, center=0)
    options: dict[str, Any] = {
        "encoded_matrix": (full, ny, 1),
        "encoded_fov_mm": (2.0 * full, 2.0 * ny, 8.0),
        "recon_matrix": (nx, ny, 1),
        "recon_fov_mm": (2.0 * nx, 2.0 * ny, 8.0),
        "limits": ranges,
    }
    return ScanHeader(**(options | fields))


def coil_images(rng: np.random.Generator, phases: int, coils: int, shape: tuple[int, int]) -> Array:
    """`(phase, coil, y, x)`: a blob off centre, modulated by coils, so that every coil differs."""
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx]
    y, x = (y - ny / 2) / ny, (x - nx / 2) / nx
    blob = np.exp(-(((y + 0.12) / 0.2) ** 2 + ((x - 0.2) / 0.13) ** 2)) + 0.5 * (np.hypot(y, x) < 0.35)
    weights = rng.standard_normal((phases, coils, 3)) + 1j * rng.standard_normal((phases, coils, 3))
    planes = np.stack([np.ones_like(y), y, x])
    return np.asarray(blob * np.tensordot(weights, planes, axes=1) + 3 * blob)


def acquire(images: Array, full_x: int) -> Array:
    """Oversampled k-space `(phase, coil, ky, full_x)` of images `(phase, coil, y, x)`."""
    nx = images.shape[-1]
    first = full_x // 2 - nx // 2
    wide = np.zeros((*images.shape[:-1], full_x), dtype=np.complex128)
    wide[..., first : first + nx] = images
    return centred_fft(wide).astype(np.complex64)


@dataclass
class Line:
    """One readout to be sent."""

    samples: Array
    """`(coil, sample)`."""
    ky: int = 0
    flags: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    """Header fields."""
    counters: dict[str, int] = field(default_factory=dict)


def block(lines: Iterable[Line]) -> Readouts:
    """Readouts of lines of one shape."""
    sent = list(lines)
    head = np.zeros(len(sent), dtype=ACQUISITION_HEADER)
    samples = np.stack([line.samples for line in sent]).astype(np.complex64)
    head["number_of_samples"], head["active_channels"] = samples.shape[2], samples.shape[1]
    head["center_sample"] = samples.shape[2] // 2
    head["sample_time_us"] = 5.0
    for row, line in zip(head, sent, strict=True):
        row["flags"] = line.flags
        row["idx"]["kspace_encode_step_1"] = line.ky
        for name, value in line.fields.items():
            row[name] = value
        for name, value in line.counters.items():
            row["idx"][name] = value
    return Readouts(head=head, samples=samples)


def lines_of(kspace: Array, mask: Array | None = None, **counters: int) -> list[Line]:
    """Lines of `(phase, coil, ky, kx)`, phase after phase, where `mask` `(phase, ky)`; last one flagged."""
    phases, _, ny, _ = kspace.shape
    sent = [
        Line(kspace[p, :, ky], ky=ky, counters={"phase": p, **counters})
        for p in range(phases)
        for ky in range(ny)
        if mask is None or mask[p, ky]
    ]
    sent[-1].flags |= Flag.LAST_IN_SLICE
    return sent


def noise_lines(noise: Array, *, readouts: int, dwell_us: float = 5.0) -> list[Line]:
    """A noise scan of samples `(coil, n)`, cut into readouts."""
    pieces = np.split(noise, readouts, axis=1)
    fields = {"sample_time_us": dwell_us}
    return [Line(piece, flags=Flag.IS_NOISE_MEASUREMENT, fields=fields) for piece in pieces]


def white(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Complex noise with ``E|n|^2 = 1``."""
    parts = rng.standard_normal((*shape, 2)) * np.sqrt(0.5)
    return parts[..., 0] + 1j * parts[..., 1]


class LateLines(DataError):
    """Lines came after their slice had left."""


def prepare(header: ScanHeader, blocks: Iterable[Readouts], **options: Any) -> list[KSpace]:
    """Everything that leaves the preparation; an error where it left lines out."""
    preparation = Preparation((header,), **({"noise": "none"} | options))
    out = [kspace for part in blocks for kspace in preparation.feed(part)]
    out += preparation.finish()
    if late := [text for text in preparation.refused if "after it had been complete" in text]:
        raise LateLines(late[0])
    return out

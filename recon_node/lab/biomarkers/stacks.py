"""Stacks of slices to measure hearts on: drawn ones with their exact masks, and real ones from a folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.lab.biomarkers.contours import expert_areas
from recon_node.lab.biomarkers.segmenters import Segmentation
from recon_node.lab.evaluation.hearts import around_heart
from recon_node.lab.evaluation.heldout import SALT
from recon_node.simulate import draw_example
from recon_node.simulate.cine import Cine, moving_centre, scan_of_cine
from recon_node.simulate.example import FullScan, complex_noise
from recon_node.simulate.subject import draw_subject

_SLICE = re.compile(r"[-_ ]?sl(?:ice)?[-_ ]?[pm]?\d+(?:\.\d+)?$")
"""The end of a clip's name that tells slices of a stack apart."""
LEAST_SLICES = 3
AGAIN = " #"
"""Between the name of a heart and the number of its scan, from the second on."""
EVEN = 0.1
"""By how much distances between slices may differ from their median."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackSlice:
    """One slice; its scan is made when it is asked for, the same each time."""

    name: str
    make: Callable[[], FullScan]
    truth: Callable[[FullScan], Segmentation | None] = lambda scan: None
    expert_cm2: dict[int, float] = field(default_factory=dict)
    """Area within the experts' endocardial contour, by frame."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Slices of one heart."""

    name: str
    source: str
    """``drawn`` or ``real``."""
    pitch_mm: float | None
    """Distance of neighbouring slices; None where there is no stack to sum up: single slices."""
    slices: tuple[StackSlice, ...]
    true_ml: tuple[float, ...] | None = None
    """Volume of the drawn ventricle by phase, of its shape and not of its slices."""


def drawn_stacks(
    count: int, *, slices: int = 6, phases: int = 16, matrix: int = 96, coils: int = 8, seed: int = 0
) -> Iterator[Stack]:
    """Drawn hearts, cut from base to apex; every slice has noise of its own.

    Raises
    ------
    ConfigError
        As the simulator raises it.
    """
    fixed: dict[str, Any] = {"phases": phases, "coils": coils, "modality": "cine", "view": "short-axis"}
    for number in range(count):
        entropy = (*SALT, seed, number, *b"stack")
        subject = draw_subject(np.random.default_rng(entropy), **fixed)

        def scan(place: int, entropy: tuple[int, ...] = entropy) -> FullScan:
            level = (place + 0.5) / slices
            made = draw_example(
                np.random.default_rng(entropy),
                matrix=(matrix, matrix),
                level=level,
                snr_scale=float("inf"),
                **fixed,
            )
            kspace = centred_fft(made.maps[None] * made.images[:, None]).astype(np.complex64)
            kspace += complex_noise(np.random.default_rng([*entropy, place]), kspace.shape)
            return replace(made, kspace=kspace)

        left, _ = subject.scene.volumes_ml()
        yield Stack(
            name=f"drawn {number}",
            source="drawn",
            pitch_mm=subject.spacing_mm(slices),
            slices=tuple(
                StackSlice(
                    name=f"drawn {number} slice {place}",
                    make=lambda place=place, scan=scan: scan(place),  # type: ignore[misc]
                    truth=_masks,
                )
                for place in range(slices)
            ),
            true_ml=tuple(map(float, left)),
        )


def _masks(scan: FullScan) -> Segmentation | None:
    cavity, wall = getattr(scan, "lv", None), getattr(scan, "myocardium", None)
    if cavity is None or wall is None:
        return None
    return Segmentation(cavity=cavity, wall=wall, pixel_mm=scan.pixel_mm)


def real_stacks(
    cines: Sequence[Cine],
    folder: Path,
    *,
    size: int | None = None,
    coils: int | None = None,
    snr: float | None = None,
    seed: int = 0,
    repeats: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Stack]:
    """Real clips, put together to stacks by their names and places.

    Clips whose names differ only in the slice (``patient_sl04``, ``patient_slp031.6``) and whose files say
    where they lie make a stack, if they are at least `LEAST_SLICES` at even distances. Any other clip stands
    for itself: it has areas, no volumes.

    Parameters
    ----------
    cines : sequence of Cine
        Clips of `folder`.
    folder : Path
        Where contours of experts are looked for beside the clips.
    size : int, optional
        Cut so many pixels a side around the heart, all frames; None leaves the whole field of view.
    coils, snr, seed
        As for `recon_node.lab.evaluation.hearts.HeartStudy`.
    repeats : int
        How often each heart is scanned, each time with other coils, phase and noise; `AGAIN` and a number end
        the names of all scans but the first.
    tell : callable
        Gets a line for each group of clips that makes no stack.
    """
    groups: dict[str, list[Cine]] = defaultdict(list)
    for cine in cines:
        groups[_SLICE.sub("", cine.name)].append(cine)

    def made(name: str, some: Sequence[Cine], pitch: float | None, turn: int) -> Stack:
        again = f"{AGAIN}{turn}" if turn else ""

        def scan(cine: Cine) -> FullScan:
            part = cine if size is None else around_heart(cine, size, len(cine.images))
            rng = np.random.default_rng([*SALT, seed, crc32((cine.name + again).encode())])
            return scan_of_cine(rng, part, coils=coils, snr=snr)

        return Stack(
            name=name + again,
            source="real",
            pitch_mm=pitch,
            slices=tuple(
                StackSlice(
                    name=cine.name + again,
                    make=lambda cine=cine: scan(cine),  # type: ignore[misc]
                    expert_cm2=expert_areas(folder, cine),
                )
                for cine in some
            ),
        )

    parts: list[tuple[str, Sequence[Cine], float | None]] = []
    for name, some in groups.items():
        ordered = sorted(some, key=lambda cine: (cine.slice_mm or 0.0, cine.name))
        pitch = _pitch(ordered)
        if pitch is not None:
            parts.append((name, ordered, pitch))
            continue
        if len(some) > 1:
            tell(f"{name}: {len(some)} clips are no stack (places not known or not even): areas, no volumes")
        parts += [(cine.name, [cine], None) for cine in ordered]
    return [made(*part, turn) for turn in range(repeats) for part in parts]


def heart_of(name: str) -> str:
    """The heart's name out of that of one of its scans."""
    return name.partition(AGAIN)[0]


def _pitch(ordered: Sequence[Cine]) -> float | None:
    places = [cine.slice_mm for cine in ordered if cine.slice_mm is not None]
    if len(places) < max(LEAST_SLICES, len(ordered)):
        return None
    steps = np.diff(places)
    middle = float(np.median(steps))
    return middle if middle > 0 and np.abs(steps - middle).max() <= EVEN * middle else None


def full_images(scan: FullScan) -> NDArray[np.float32]:
    """`(phase, y, x)` magnitudes that the fully sampled scan gives: its noise included."""
    combined = np.stack([(scan.maps.conj() * centred_ifft(frame)).sum(axis=0) for frame in scan.kspace])
    return np.asarray(np.abs(combined), np.float32)


def centre_of(stack: Stack) -> tuple[int, int]:
    """Row and column of the heart, found in all slices together: where most of them move."""
    moves, pixel_mm = [], (1.0, 1.0)
    for one in stack.slices:
        scan = one.make()
        moving = full_images(scan).std(axis=0)
        moves.append(moving / moving.max())
        pixel_mm = scan.pixel_mm
    return moving_centre(np.mean(moves, axis=0, dtype=np.float32), pixel_mm)

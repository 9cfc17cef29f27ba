"""Every slice by every method at every acceleration, measured by one segmenter; what is done is kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import KSpace, Prompts
from recon_node.lab.biomarkers.segmenters import Segmenter, SliceImages
from recon_node.lab.biomarkers.stacks import Stack, StackSlice, centre_of, full_images
from recon_node.lab.evaluation.heldout import SALT, kspace_of
from recon_node.lab.evaluation.records import Record, add_records, read_records
from recon_node.methods.registry import Methods, make_methods
from recon_node.pipeline.stages import calibrate
from recon_node.prompts import embed, metadata_prompt, undersampling_prompt
from recon_node.settings import ReconSettings
from recon_node.simulate import draw_mask
from recon_node.simulate.example import FullScan

FULL = "fully sampled"
"""Condition and method of the images that the others are compared with."""
RECORDS = "areas.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class BiomarkerStudy:
    """What is measured on which hearts."""

    stacks: tuple[Stack, ...]
    methods: tuple[str, ...] = ("sense", "kt", "cardiomm")
    patterns: tuple[str, ...] = ("random",)
    accelerations: tuple[float, ...] = (4, 8, 16, 24)
    acs: int = 20
    seed: int = 0
    words: str = ""
    """What else decides the records, for example how hearts were drawn: other words, other records."""

    @property
    def conditions(self) -> list[tuple[str, float]]:
        """Pattern and acceleration."""
        return [(pattern, rate) for pattern in self.patterns for rate in self.accelerations]

    @property
    def total(self) -> int:
        """Number of measured series: one fully sampled, and each method under each condition."""
        slices = sum(len(stack.slices) for stack in self.stacks)
        return slices * (1 + len(self.methods) * len(self.conditions))


def run(
    study: BiomarkerStudy,
    segmenter: Segmenter,
    recon: ReconSettings,
    folder: Path,
    *,
    minutes: float | None = None,
    report: Callable[[str], None] = lambda said: None,
) -> list[Record]:
    """Do what is left of a study, a line each in ``folder/areas.jsonl``.

    Parameters
    ----------
    study : BiomarkerStudy
        What is measured.
    segmenter : Segmenter
        Measures all of it.
    recon : ReconSettings
        Weights and device of the methods.
    folder : Path
        Made if missing.
    minutes : float, optional
        After which no new slice is begun; the next run goes on.
    report : callable
        Gets a line for every series, those of earlier runs as well.

    Returns
    -------
    list of dict
        Areas by phase of every slice that is done: under condition and method `FULL`, and under each other.

    Raises
    ------
    ConfigError, WeightsError, DataError
        As the methods, the segmenter and the simulator raise them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECORDS
    done = {record["key"]: record for record in read_records(path, "result of a biomarker study")}
    made = {name: make_methods(dataclasses.replace(recon, method=name)) for name in study.methods}
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    wanted: list[str] = []
    for stack in study.stacks:
        centre: tuple[int, int] | None = None
        for place, one in enumerate(stack.slices):
            tasks = _tasks(study, segmenter, stack, one, made)
            wanted += tasks
            left = {key: task for key, task in tasks.items() if key not in done}
            if left and time.monotonic() <= end:
                centre = centre or centre_of(stack)
                slice_ = _Measured(study, segmenter, stack, place, centre, made)
                for key, (condition, method) in left.items():
                    done[key] = {"key": key, **slice_.record(condition, method)}
                    add_records(path, [done[key]])
            for key, (_, method) in tasks.items():
                if key in done:
                    report(f"{one.name} {method}")
    return [done[key] for key in wanted if key in done]


Task = tuple[tuple[str, float] | None, str]


def _tasks(
    study: BiomarkerStudy,
    segmenter: Segmenter,
    stack: Stack,
    one: StackSlice,
    made: Mapping[str, Methods],
) -> dict[str, Task]:
    """Condition and method of every series of a slice, by key."""
    base = f"{stack.source}|{one.name}|{segmenter.name}|{study.words}|{study.seed}"
    tasks: dict[str, Task] = {f"{base}|{FULL}": (None, FULL)}
    for pattern, rate in study.conditions:
        for method in study.methods:
            weights = made[method].weights
            by = method if weights is None else f"{method} {weights.sha256[:12]}"
            tasks[f"{base}|{pattern} {rate:g}x|{by}"] = ((pattern, rate), method)
    return tasks


class _Measured:
    """One slice: its scan, and what was asked of it."""

    def __init__(
        self,
        study: BiomarkerStudy,
        segmenter: Segmenter,
        stack: Stack,
        place: int,
        centre: tuple[int, int],
        methods: dict[str, Methods],
    ) -> None:
        self.study, self.segmenter, self.stack, self.place = study, segmenter, stack, place
        self.centre, self.methods = centre, methods
        self.slice = stack.slices[place]
        self.scan: FullScan = self.slice.make()
        self.truth = self.slice.truth(self.scan)

    def record(self, condition: tuple[str, float] | None, method: str) -> Record:
        """Areas by phase, and where they belong."""
        images = full_images(self.scan) if condition is None else self._reconstructed(condition, method)
        found = self.segmenter.segment(
            SliceImages(images=images, pixel_mm=self.scan.pixel_mm, centre=self.centre, truth=self.truth)
        )
        cavity, wall = found.areas_cm2()
        record: Record = {
            "source": self.stack.source,
            "stack": self.stack.name,
            "slice": self.slice.name,
            "place": self.place,
            "pitch_mm": self.stack.pitch_mm,
            "condition": FULL if condition is None else f"{condition[0]} {condition[1]:g}x",
            "method": method,
            "cavity_cm2": cavity.round(4).tolist(),
            "wall_cm2": wall.round(4).tolist(),
        }
        if condition is None:
            experts = {str(frame): area for frame, area in self.slice.expert_cm2.items()}
            record |= {"expert_cm2": experts, "true_ml": self.stack.true_ml}
        return record

    def _reconstructed(self, condition: tuple[str, float], method: str) -> NDArray[np.float32]:
        case = self._case(condition)
        methods = self.methods[method]
        maps = calibrate(case)
        text: Any = None
        if methods.encoder is not None:
            prompts = Prompts(
                metadata=metadata_prompt(case.header, overrides=dict(self.scan.metadata)),
                undersampling=undersampling_prompt(case.sampling),
            )
            text = embed(prompts, methods.encoder)
        return np.abs(methods.chosen.reconstruct(case, maps, text).data).astype(np.float32)

    def _case(self, condition: tuple[str, float]) -> KSpace:
        pattern, rate = condition
        study = self.study
        rng = np.random.default_rng([*SALT, study.seed, crc32(self.slice.name.encode()), 1])
        shape = (len(self.scan.kspace), *self.scan.kspace.shape[-2:])
        mask = draw_mask(pattern, rate, shape=shape, acs=study.acs, rng=rng)
        return kspace_of(self.scan, mask, acs=study.acs)


def arrays(records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cavity and wall `(slice, phase)` cm2 of records of one stack, in the order of its slices."""
    ordered = sorted(records, key=lambda one: one["place"])
    return (
        np.array([one["cavity_cm2"] for one in ordered]),
        np.array([one["wall_cm2"] for one in ordered]),
    )

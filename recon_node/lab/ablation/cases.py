"""Scans that no network of an ablation was trained on, prepared once for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np

from recon_node.lab.ablation.plan import Plan
from recon_node.lab.evaluation.hearts import few
from recon_node.lab.training.config import DataConfig, TrainConfig
from recon_node.lab.training.data import ExampleSet
from recon_node.lab.training.example import Example
from recon_node.lab.training.sources import Clip, SimulatorClips, clip_of_cine
from recon_node.simulate.cine import Cine

SALT = "ablation"
"""Keeps these scans apart from those of training and of its validation."""
SEED = 7919


@dataclass(frozen=True, slots=True, kw_only=True)
class OneHeart:
    """A source of clips that always shows the same real heart."""

    cine: Cine
    config: DataConfig

    def draw(self, rng: np.random.Generator) -> Clip:
        """Scan it: coils, phase and noise are drawn, the frames evenly taken from its cycle."""
        frames = min(self.config.frames, len(self.cine.images))
        step = max(1, len(self.cine.images) // frames)
        images = np.ascontiguousarray(self.cine.images[::step][:frames])
        return clip_of_cine(
            rng, dataclasses.replace(self.cine, images=images, trigger_times_ms=None), self.config
        )


@dataclass(kw_only=True)
class Case:
    """One scan."""

    name: str
    source: str
    """``drawn`` or ``real``."""
    examples: ExampleSet
    number: int

    @cached_property
    def example(self) -> Example:
        """Undersampled, with its truth."""
        return self.examples[self.number]


def cases_of(plan: Plan, training: TrainConfig, contrast: str, cines: Sequence[Cine]) -> Iterator[Case]:
    """Drawn scans of a set of contrasts, one modality after the other, then real hearts.

    Parameters
    ----------
    plan : Plan
        How many.
    training : TrainConfig
        Of any network with this start and these contrasts: its data settings and first estimate.
    contrast : str
        Name of the set.
    cines : sequence of Cine
        Real hearts.
    """
    modalities = plan.contrasts[contrast]
    for number in range(plan.plan.test_scans):
        modality = modalities[number % len(modalities)]
        data = dataclasses.replace(training.data, modalities=(modality,), examples=None)
        yield Case(
            name=f"{number} {modality}",
            source="drawn",
            examples=_examples(SimulatorClips(data), training, data, SEED),
            number=number,
        )
    for cine in few(cines, plan.plan.test_hearts) if plan.plan.test_hearts else ():
        data = dataclasses.replace(training.data, modalities=("cine",), examples=None)
        source = OneHeart(cine=cine, config=data)
        entropy = crc32(cine.name.encode())
        yield Case(
            name=cine.name, source="real", examples=_examples(source, training, data, entropy), number=0
        )


def _examples(
    source: SimulatorClips | OneHeart, training: TrainConfig, data: DataConfig, seed: int
) -> ExampleSet:
    model = training.model
    return ExampleSet(
        source,
        data,
        seed=seed,
        salt=SALT,
        start=model.kt if model.start == "kt" else None,
        aligned=model.frames if model.aligned else 0,
    )

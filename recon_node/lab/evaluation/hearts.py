"""Methods side by side on real hearts: cines made scans, judged in the heart and in the whole image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.types import Prompts
from recon_node.lab.cines import fingerprint
from recon_node.lab.evaluation.heldout import SALT, Case, kspace_of
from recon_node.lab.evaluation.metrics import Metrics, series_metrics
from recon_node.model import load_weights
from recon_node.pipeline.stages import calibrate
from recon_node.prompts import metadata_prompt, undersampling_prompt
from recon_node.settings import ReconSettings
from recon_node.simulate import draw_mask
from recon_node.simulate.cine import Cine, heart_window, scan_of_cine, scan_window
from recon_node.simulate.example import FullScan

Condition = tuple[str, float]
CONDITIONS: tuple[Condition, ...] = (("uniform", 8), ("random", 8), ("random", 16), ("radial", 16))
"""What is looked at unless others are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartStudy:
    """What is compared on which hearts."""

    cines: tuple[Cine, ...]
    methods: tuple[str, ...] = ("sense", "kt", "cardiomm")
    """Names of methods, and of rivals (`recon_node.lab.evaluation.hearts_run.RIVALS`)."""
    conditions: tuple[Condition, ...] = CONDITIONS
    coils: int | None = None
    """Receive coils; drawn for each heart if None, as its signal-to-noise ratio is."""
    snr: float | None = None
    acs: int = 20
    seed: int = 0

    @property
    def total(self) -> int:
        """Number of results."""
        return len(self.cines) * len(self.methods) * len(self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartResult:
    """One method on one heart under one condition."""

    heart: str
    condition: str
    method: str
    within: Metrics
    """In the 64 x 64 pixels around the heart."""
    whole: Metrics


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeartCase(Case):
    """One heart under one condition, and where the heart lies."""

    window: tuple[slice, slice]


def few(cines: Sequence[Cine], count: int | None) -> tuple[Cine, ...]:
    """At most `count` of the cines, evenly spread over the folder."""
    if count is None or count >= len(cines):
        return tuple(cines)
    return tuple(cines[int(place)] for place in np.linspace(0, len(cines) - 1, count).round())


def around_heart(cine: Cine, side: int, frames: int) -> Cine:
    """At most `side` x `side` pixels around the heart, and `frames` frames evenly taken from the cycle."""
    rows, columns = heart_window(cine.images, cine.pixel_mm, side)
    count = len(cine.images)
    kept = np.unique((np.arange(min(frames, count)) * count / min(frames, count)).astype(int))
    return dataclasses.replace(
        cine,
        images=np.ascontiguousarray(cine.images[kept][:, rows, columns]),
        trigger_times_ms=None,
        phase_axis=cine.encoded_axis,
    )


def heart_cases(study: HeartStudy) -> Iterator[HeartCase]:
    """Every heart under each condition; coils and noise depend on the heart's name and the seed alone."""
    for cine in study.cines:
        entropy = (*SALT, study.seed, crc32(cine.name.encode()))
        scan = scan_of_cine(np.random.default_rng(entropy), cine, coils=study.coils, snr=study.snr)
        yield from scan_cases(scan, study, name=cine.name, entropy=entropy)


def scan_cases(
    scan: FullScan, study: HeartStudy, *, name: str, entropy: Sequence[int]
) -> Iterator[HeartCase]:
    """A fully sampled heart, real or drawn, under each condition; `entropy` decides the masks."""
    window = scan_window(scan)
    for pattern, acceleration in study.conditions:
        mask = draw_mask(
            pattern,
            acceleration,
            shape=(len(scan.kspace), *scan.kspace.shape[-2:]),
            acs=study.acs,
            rng=np.random.default_rng([*entropy, 1]),
        )
        kspace = kspace_of(scan, mask, acs=study.acs)
        yield HeartCase(
            scan=name,
            condition=f"{pattern} {acceleration:g}x",
            truth=scan.images,
            kspace=kspace,
            maps=calibrate(kspace),
            prompts=Prompts(
                metadata=metadata_prompt(kspace.header, overrides=scan.metadata),
                undersampling=undersampling_prompt(kspace.sampling),
            ),
            window=window,
        )


def judged(images: NDArray[np.complex64], case: HeartCase, method: str) -> HeartResult:
    """Images of a method against the truth."""
    part = (slice(None), *case.window)
    return HeartResult(
        heart=case.scan,
        condition=case.condition,
        method=method,
        within=series_metrics(images[part], case.truth[part], normalise=False),
        whole=series_metrics(images, case.truth, normalise=False),
    )


def unseen(cines: Sequence[Cine], recon: ReconSettings, *, tell: Callable[[str], None]) -> list[Cine]:
    """The cines that the network of these settings was not trained on, by what its card says.

    Raises
    ------
    DataError
        It was trained on all of them.
    """
    card = load_weights(recon.weights).card
    prints = set(card.get("hearts", {}).values())
    kept = [cine for cine in cines if fingerprint(cine) not in prints]
    if not kept:
        raise DataError(
            f"hearts: weights {recon.weights} were trained on all {len(cines)} of them: give others, "
            "or compare methods without a network"
        )
    if len(kept) < len(cines):
        tell(f"{len(cines) - len(kept)} clips left out: weights {recon.weights} were trained on them")
    return kept

"""Trust limits for given weights, from simulated hearts that no network was trained on.

A reconstruction counts as good where it is at least as near to the truth as the one that would stand in for
it. Limits are quantiles of the good ones' measures (`recon_node.trust.calibrate`); conditions under which the
network is below its stand-in on average are kept by name. How well the limits tell good from bad is counted
on other hearts.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recon_node.core.errors import ConfigError
from recon_node.lab.evaluation.hearts import HeartStudy, around_heart, heart_cases
from recon_node.lab.evaluation.heldout import SALT, Case, Study, cases
from recon_node.lab.evaluation.metrics import series_metrics
from recon_node.methods.asked_again import AskedAgain
from recon_node.methods.registry import Methods
from recon_node.prompts import embed
from recon_node.simulate.cine import Cine
from recon_node.trust import Limits, Measures, calibrate, group_of, judge, measure

LEAST = 3
"""Scans of a condition that say whether the network is weak there."""
COILS = (8, 10, 12, 16)
"""Coil arrays that limits are measured with."""
SEED_STEP = 10_000
"""Between the hearts of one study's seed and of the next: more scans than that would meet the next one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """One reconstruction of known quality."""

    group: str
    """Of limits, for example ``cine 8x``."""
    condition: str
    """Pattern and acceleration, for example ``random 8x``."""
    gain_db: float
    """PSNR of the network minus that of its stand-in."""
    measures: Measures
    heart: str | None = None
    """Name of a real heart; None of a drawn one."""
    psnr: float = math.nan
    ssim: float = math.nan
    """Of the network's image."""

    @property
    def good(self) -> bool:
        """Whether the network's image is at least as near to the truth as its stand-in's."""
        return self.gain_db >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Limits, and what they were made and judged with."""

    limits: Limits
    made_of: tuple[Scanned, ...]
    outcomes: list[Outcome]
    """Of other hearts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What limits say of good or of bad reconstructions."""

    good: bool
    passed: int
    warned: int
    withheld: int


def scanned(study: Study, methods: Methods) -> Iterator[Scanned]:
    """Reconstruct and measure scans with a network and its stand-in, each one of another heart (`apart`).

    Parameters
    ----------
    study : Study
        How many under which conditions; its methods, coils and motion are not looked at.
    methods : Methods
        Of the method ``cardiomm``.
    """
    for one in apart(study):
        for case in cases(one):
            yield _scanned(case, methods)


def apart(study: Study) -> Iterator[Study]:
    """Studies of one scan each: every scan of every condition has a heart and a coil array of its own.

    About half of the hearts breathe freely and beat irregularly.
    """
    conditions = [(pattern, rate) for pattern in study.patterns for rate in study.accelerations]
    for scan in range(study.scans):
        for place, (pattern, rate) in enumerate(conditions):
            seed = study.seed * SEED_STEP + scan * len(conditions) + place
            rng = np.random.default_rng([*SALT, seed, 3])
            restless = bool(rng.integers(2))
            yield dataclasses.replace(
                study,
                scans=1,
                patterns=(pattern,),
                accelerations=(rate,),
                coils=int(rng.choice(COILS)),
                breathing_mm=float(rng.uniform(2, 5)) if restless else None,
                arrhythmia=float(rng.uniform(0.02, 0.08)) if restless else None,
                seed=seed,
            )


def _scanned(case: Case, methods: Methods, heart: str | None = None) -> Scanned:
    text = None if methods.encoder is None else embed(case.prompts, methods.encoder)
    images = methods.chosen.reconstruct(case.kspace, case.maps, text)
    instead = methods.fallback.reconstruct(case.kspace, case.maps, None)
    learned, classical = (
        series_metrics(made.data, case.truth, normalise=False) for made in (images, instead)
    )
    return Scanned(
        group=group_of(case.prompts),
        condition=case.condition,
        gain_db=learned.psnr - classical.psnr,
        heart=heart,
        psnr=learned.psnr,
        ssim=learned.ssim,
        measures=measure(
            case.kspace,
            case.maps,
            images,
            reconstruct=AskedAgain(method=methods.chosen, maps=case.maps, text=text, images=images),
            reference=AskedAgain(method=methods.fallback, maps=case.maps),
        ),
    )


def derive(found: Iterable[Scanned], *, weights_sha256: str) -> Limits:
    """Limits for the weights with this hash.

    Raises
    ------
    ConfigError
        If too few reconstructions are good to tell what good ones look like.
    """
    everything = list(found)
    gains: dict[str, list[float]] = defaultdict(list)
    for one in everything:
        gains[one.condition].append(one.gain_db)
    weak = {name for name, some in gains.items() if len(some) >= LEAST and float(np.mean(some)) < 0}
    good = [one for one in everything if one.good]
    try:
        limits = calibrate((one.group, one.measures) for one in good)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; {len(good)} of {len(everything)} reconstructions were as good as the fallback's: take "
            "more scans, or train better weights"
        ) from error
    return dataclasses.replace(limits, weak_patterns=frozenset(weak), weights_sha256=weights_sha256)


def outcomes(found: Sequence[Scanned], limits: Limits) -> list[Outcome]:
    """How many good and bad reconstructions each verdict gets; weak patterns are left out of account."""
    said: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for one in found:
        said[one.good][judge(one.measures, limits.of(one.group)).verdict] += 1
    return [
        Outcome(good=good, passed=some["pass"], warned=some["warn"], withheld=some["fallback"])
        for good, some in said.items()
    ]


def calibrated(
    studies: Sequence[Study],
    methods: Methods,
    *,
    weights_sha256: str,
    cines: Sequence[Cine] = (),
    report: Callable[[Scanned], None] = lambda one: None,
) -> Calibration:
    """Limits from these studies and from real hearts, and what they say of other hearts.

    Two of three `cines` make limits, the third tests them; of drawn hearts half as many others test.

    Raises
    ------
    ConfigError
        As `derive`.
    """

    def measured(some: Iterable[Study]) -> list[Scanned]:
        found = []
        for study in some:
            for one in scanned(study, methods):
                found.append(one)
                report(one)
        return found

    def real(some: Sequence[Cine]) -> list[Scanned]:
        found = []
        for cine, case in zip(some, one_each(some, studies[0]), strict=True):
            found.append(_scanned(case, methods, cine.name))
            report(found[-1])
        return found

    making = [cine for number, cine in enumerate(cines) if number % 3 < 2]
    testing = [cine for number, cine in enumerate(cines) if number % 3 == 2]
    made = [*measured(studies), *real(making)]
    limits = derive(made, weights_sha256=weights_sha256)
    said = [f"{len(made) - len(making)} drawn hearts"]
    if making:
        said.append(f"{len(making)} real hearts ({', '.join(cine.name for cine in making)})")
    limits = dataclasses.replace(limits, hearts=tuple(said))
    judged = outcomes([*measured(others(studies)), *real(testing)], limits)
    return Calibration(limits=limits, made_of=tuple(made), outcomes=judged)


def one_each(cines: Sequence[Cine], study: Study) -> Iterator[Case]:
    """Every real heart once, the conditions of `study` in turn; cut to its matrix around the heart."""
    conditions = [(pattern, rate) for pattern in study.patterns for rate in study.accelerations]
    for number, cine in enumerate(cines):
        part = around_heart(cine, study.matrix, study.phases)
        condition = conditions[(number * 5) % len(conditions)]
        yield from heart_cases(HeartStudy(cines=(part,), conditions=(condition,), acs=study.acs))


def others(studies: Sequence[Study]) -> list[Study]:
    """The same conditions on half as many other hearts."""
    return [
        dataclasses.replace(study, seed=study.seed + 1, scans=max(1, study.scans // 2)) for study in studies
    ]

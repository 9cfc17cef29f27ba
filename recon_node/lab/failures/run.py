"""The failure benchmark: hearts that something happens to, reconstructed, measured and judged.

Every case is one line of JSON, kept as soon as it is done: a run that stops goes on where it stopped. What
is kept are measures and truth, not verdicts alone, so that limits and error models can be made, and judged,
without reconstructing again.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from recon_node.core.errors import ReconNodeError
from recon_node.core.types import ImageSeries, KSpace
from recon_node.lab.evaluation.hearts import around_heart
from recon_node.lab.evaluation.heldout import SALT
from recon_node.lab.evaluation.metrics import Metrics, series_metrics
from recon_node.lab.evaluation.records import add_records, read_records
from recon_node.lab.failures.beside import beside
from recon_node.lab.failures.kinds import CLEAN, Kind
from recon_node.lab.failures.networks import inventing, network_of
from recon_node.lab.failures.raw import Complex, Condition, Trial, raw_of, trial_of
from recon_node.methods.asked_again import AskedAgain
from recon_node.methods.registry import Methods
from recon_node.prompts import embed
from recon_node.simulate import draw_example
from recon_node.simulate.cine import Cine, scan_of_cine
from recon_node.simulate.example import FullScan
from recon_node.trust import doubts_of, judge_measures, measure

Record = dict[str, Any]
CASES = "cases.jsonl"
SALT_FAILURES = 0x4641494C
COILS = (8, 10, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureStudy:
    """What goes wrong with which hearts."""

    kinds: tuple[Kind, ...]
    levels: tuple[int, ...] = ()
    """Strengths, 1 to 3; none takes one for each heart in turn."""
    conditions: tuple[Condition, ...] = (("uniform", 8), ("random", 12), ("radial", 16))
    scans: int = 6
    """Drawn hearts, each under one of the conditions in turn."""
    cines: tuple[Cine, ...] = ()
    """Real hearts, as many times as there are conditions."""
    clean: int = 12
    """More hearts, drawn and real, that nothing happens to: what is usual is learned from them."""
    size: int = 96
    phases: int = 8
    acs: int = 20
    seed: int = 0
    beside: int = 4
    """Every so many cases other ways to doubt an image are looked at, too; 0 for none."""

    @property
    def total(self) -> int:
        """Number of cases."""
        return sum(1 for _ in tasks(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One case, before anything is computed."""

    source: str
    """``drawn`` or ``real``."""
    number: int
    """Of the heart."""
    condition: Condition
    kind: str
    level: int
    cine: Cine | None = None

    @property
    def heart(self) -> str:
        """Its name; of a real heart with the number of its scan."""
        return f"drawn {self.number}" if self.cine is None else f"{self.cine.name} #{self.number}"

    @property
    def key(self) -> str:
        """Unique in a study."""
        return f"{self.source}|{self.heart}|{_words(self.condition)}|{self.kind}|{self.level}"


def tasks(study: FailureStudy) -> Iterator[Task]:
    """Every case of a study, clean ones first, then every kind on one heart each, and so on.

    A run that stops early thus has something of everything.
    """
    hearts = [*_hearts(study, "drawn"), *_hearts(study, "real")]
    for source, number, condition, cine, _ in hearts:
        yield Task(source=source, number=number, condition=condition, kind=CLEAN, level=0, cine=cine)
    faulty = [heart for heart in hearts if heart[-1]]
    for turn in range(len(faulty)):
        for place, kind in enumerate(study.kinds):
            source, number, condition, cine, _ = faulty[(place + turn) % len(faulty)]
            for level in study.levels or (1 + (number + place + number // 3) % 3,):
                yield Task(
                    source=source, number=number, condition=condition, kind=kind.name, level=level, cine=cine
                )


def run(
    study: FailureStudy,
    methods: Methods,
    folder: Path,
    *,
    minutes: float | None = None,
    report: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Do what is left of a study, a line each in ``folder/cases.jsonl``.

    Parameters
    ----------
    study, methods
        What goes wrong, and who is to notice.
    folder : Path
        Made if missing.
    minutes : float, optional
        After which no new case is begun; the next run goes on.
    report : callable
        Gets every case, those of earlier runs as well.

    Returns
    -------
    list of dict
        Every case of the study that is done.

    Raises
    ------
    DataError
        The file holds something else than cases.
    ReconNodeError
        The method's weights are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CASES
    done = {record["key"]: record for record in read(path)}
    networks: dict[str, Any] = {}
    circumstances = _circumstances(study, methods)
    wanted = {f"{task.key}|{circumstances}": task for task in tasks(study)}
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    for place, (key, task) in enumerate(wanted.items()):
        if key not in done:
            if time.monotonic() > end:
                continue
            look = study.beside > 0 and place % study.beside == 0
            record = _record(task, study, methods, networks, folder, look=look)
            done[key] = {"key": key, **record}
            add_records(path, [done[key]])
        report(done[key])
    return [done[key] for key in wanted if key in done]


def _circumstances(study: FailureStudy, methods: Methods) -> str:
    """What else decides what becomes of a task: under others it is done anew."""
    name = methods.chosen.name
    by = name if methods.weights is None else f"{name} {methods.weights.sha256[:12]}"
    return f"{study.size} px, {study.phases} phases, acs {study.acs}|{study.seed}|{by}"


def read(path: Path) -> list[Record]:
    """The cases of a file, none where there is no file; a last line that was cut off is left out.

    Raises
    ------
    DataError
        It holds something else.
    """
    return read_records(path, "case of the failure benchmark")


def _hearts(study: FailureStudy, source: str) -> Iterator[tuple[str, int, Condition, Cine | None, bool]]:
    """Source, number, condition, cine, and whether faults happen to it."""
    conditions = study.conditions
    if source == "drawn":
        for number in range(study.scans + study.clean):
            yield source, number, conditions[number % len(conditions)], None, number < study.scans
        return
    faulty = _faulty(len(study.cines), len(conditions), study.scans)
    number = 0
    for turn in range(len(conditions)):
        for place, cine in enumerate(study.cines):
            yield source, number, conditions[(place + turn) % len(conditions)], cine, number in faulty
            number += 1


def _faulty(cines: int, conditions: int, scans: int) -> set[int]:
    """Numbers of the scans of real hearts that faults happen to: others each time, conditions in turn."""
    found: list[int] = []
    for scan in range(min(scans, cines * conditions)):
        place = (2 * scan + 1) * cines // (2 * scans) if scans <= cines else scan % cines
        turns = [(scan + scan // cines - place + more) % conditions for more in range(conditions)]
        found.append(next(n for turn in turns if (n := turn * cines + place) not in found))
    return set(found)


def _record(
    task: Task,
    study: FailureStudy,
    methods: Methods,
    networks: dict[str, Any],
    folder: Path,
    *,
    look: bool,
) -> Record:
    kinds = {kind.name: kind for kind in study.kinds}
    entropy = [*SALT, SALT_FAILURES, study.seed, task.number, crc32(task.heart.encode())]
    raw = raw_of(_full(task, study, entropy), task.condition, [*entropy, 1], acs=study.acs)
    record: Record = {
        "source": task.source,
        "heart": task.heart,
        "condition": _words(task.condition),
        "kind": task.kind,
        "level": task.level,
        "method": methods.chosen.name,
    }
    if task.kind != CLEAN:
        kind = kinds[task.kind]
        record["strength"] = kind.strengths[task.level - 1]
        kind.apply(raw, record["strength"])
    try:
        trial = trial_of(raw)
        if trial.network not in networks:
            weights = methods.weights.name if methods.weights is not None else "default"
            networks[trial.network] = network_of(trial.network, weights, folder)
        record |= _judged(trial, methods, networks[trial.network], task, look=look)
    except ReconNodeError as error:
        record["refused"] = str(error)
    return record


def _judged(trial: Trial, methods: Methods, other: Any, task: Task, *, look: bool) -> Record:
    text = None if methods.encoder is None else embed(trial.prompts, methods.encoder)
    runner = methods.chosen if other is None else other

    def asked(images: ImageSeries | None = None) -> Callable[[KSpace], ImageSeries]:
        again = AskedAgain(method=runner, maps=trial.maps, text=text, images=images)
        if not trial.invents:
            return again
        return inventing(again, trial.maps, brightness=trial.invents, place=task.number)

    start = time.process_time()
    images = asked()(trial.kspace)
    made = time.process_time()
    chosen = asked(images)
    measures = measure(
        trial.kspace,
        trial.maps,
        images,
        reconstruct=chosen,
        reference=AskedAgain(method=methods.fallback, maps=trial.maps),
    )
    seconds = {"reconstruction": made - start, "trust": time.process_time() - made}
    own = methods.standards
    standards = dataclasses.replace(own, calibrated=own.calibrated and other is None)
    verdict = judge_measures(
        measures, trial.kspace, trial.maps, images, prompts=trial.prompts, standards=standards
    )
    found: Record = {
        "truth": _against(images.data, trial.truth).as_dict(),
        "measures": _plain(dataclasses.asdict(measures)),
        "verdict": verdict.verdict,
        "score": verdict.score,
        "reasons": list(verdict.reasons),
        "doubts": doubts_of(trial.kspace, trial.maps, images, prompts=trial.prompts, standards=standards),
        "seconds": seconds,
    }
    if look:
        net = getattr(getattr(runner, "loaded", None), "net", None)
        found["beside"] = beside(trial.kspace, chosen, net, seed=task.number)
    return found


def _against(images: Complex, truth: Complex) -> Metrics:
    """Against the truth, after the one factor that fits best: a unit is no error of an image."""
    made, true = np.abs(images).astype(np.float64), np.abs(truth).astype(np.float64)
    power = float(np.vdot(made, made))
    factor = float(np.vdot(made, true)) / power if power > 0 else 1.0
    found = series_metrics(made * factor, true, normalise=False)
    return dataclasses.replace(found, psnr=found.psnr if math.isfinite(found.psnr) else 200.0)


def _full(task: Task, study: FailureStudy, entropy: list[int]) -> FullScan:
    rng = np.random.default_rng(entropy)
    coils = int(rng.choice(COILS))
    if task.cine is not None:
        return scan_of_cine(rng, around_heart(task.cine, study.size, study.phases), coils=coils)
    return draw_example(
        rng, matrix=(study.size, study.size), phases=study.phases, coils=coils, modality="cine"
    )


def _plain(measures: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON knows: infinite ones become None."""
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else 1e9
        for name, value in measures.items()
        if name != "error_map"
    }


def _words(condition: Condition) -> str:
    return f"{condition[0]} {condition[1]:g}x"


def selected(records: Sequence[Record], **fields: Any) -> list[Record]:
    """Those whose fields have these values."""
    return [one for one in records if all(one.get(name) == value for name, value in fields.items())]

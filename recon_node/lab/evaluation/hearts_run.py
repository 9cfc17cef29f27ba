"""Every method on every heart of a study; results are kept, a line each, so that a stopped one goes on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.code import code_hash
from recon_node.lab.cines import fingerprint
from recon_node.lab.evaluation import bart
from recon_node.lab.evaluation.hearts import HeartCase, HeartResult, HeartStudy, heart_cases, judged
from recon_node.lab.evaluation.metrics import Metrics
from recon_node.lab.evaluation.records import Record, add_records, read_records
from recon_node.methods.registry import find_method, make_methods
from recon_node.prompts import embed
from recon_node.settings import ReconSettings
from recon_node.simulate.cine import Cine

RESULTS = "hearts.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """A method or a rival, ready to make images."""

    name: str
    identity: str
    """What decides its images beside scan and code: results of other weights or settings are others."""
    make: Callable[[HeartCase], NDArray[np.complex64]]


RIVALS: Mapping[str, type[bart.BartKt]] = {"bart": bart.BartKt}
"""What hearts can be reconstructed by that is no part of the node."""
_CODE = (
    *("core", "simulate", "prep", "prompts", "coils", "solvers", "model", "methods", "lab/cines"),
    *("pipeline/stages.py", "lab/evaluation/hearts.py", "lab/evaluation/heldout.py"),
    *("lab/evaluation/metrics.py", "lab/evaluation/bart.py"),
)
"""Code that decides a result."""


def label_of(name: str) -> str:
    """A method or a rival as tables print it; nothing is loaded.

    Raises
    ------
    ConfigError
        There is no such method.
    """
    return RIVALS[name].label if name in RIVALS else find_method(name).label


def maker_of(name: str, recon: ReconSettings) -> Maker:
    """A method of the node by its name, or a rival.

    Raises
    ------
    ConfigError, WeightsError
        There is no such method or weights, or the rival is not installed.
    """
    if name in RIVALS:
        rival = RIVALS[name]()
        return Maker(
            name=name,
            identity=f"{rival} {bart.version()}",
            make=lambda case: rival.images(case.kspace, case.maps),
        )
    methods = make_methods(dataclasses.replace(recon, method=name))

    def make(case: HeartCase) -> NDArray[np.complex64]:
        text = None if methods.encoder is None else embed(case.prompts, methods.encoder)
        return methods.chosen.reconstruct(case.kspace, case.maps, text).data

    weights = "" if methods.weights is None else methods.weights.sha256[:12]
    settings = repr(dataclasses.replace(recon, method=name))
    identity = " ".join((name, weights, hashlib.sha256(settings.encode()).hexdigest()[:12]))
    return Maker(name=name, identity=identity, make=make)


def judged_by_methods(
    cases: Iterable[HeartCase],
    names: Sequence[str],
    recon: ReconSettings,
    *,
    report: Callable[[HeartResult], None] = lambda result: None,
) -> list[HeartResult]:
    """Every case by every method; errors as for `run_heart_study`."""
    makers = [maker_of(name, recon) for name in names]
    results = []
    for case in cases:
        for maker in makers:
            results.append(judged(maker.make(case), case, maker.name))
            report(results[-1])
    return results


def run_heart_study(
    study: HeartStudy,
    recon: ReconSettings,
    *,
    folder: Path | None = None,
    report: Callable[[HeartResult], None] = lambda result: None,
) -> list[HeartResult]:
    """Reconstruct every heart under every condition with every method.

    Parameters
    ----------
    study : HeartStudy
        What is compared.
    recon : ReconSettings
        Of the methods.
    folder : Path, optional
        Made if missing; `RESULTS` in it gets every result, and those that it has by this code and these
        settings are not made again.
    report : callable
        Told of every result.

    Raises
    ------
    ConfigError, WeightsError, DataError
        As the simulator, the masks, methods, rivals and weights raise them, or `RESULTS` is something else.
    """
    makers = [maker_of(name, recon) for name in study.methods]
    kept, code = _Kept(folder), code_hash(_CODE)[:12]
    results: list[HeartResult] = []
    for cine in study.cines:
        circumstances = f"{_circumstances(study, cine)}|{code}"
        keys = {
            (f"{pattern} {rate:g}x", maker.name): f"{circumstances}|{pattern} {rate:g}x|{maker.identity}"
            for pattern, rate in study.conditions
            for maker in makers
        }
        missing = {condition for (condition, _), key in keys.items() if key not in kept.known}
        left = tuple(one for one in study.conditions if f"{one[0]} {one[1]:g}x" in missing)
        cases = heart_cases(dataclasses.replace(study, cines=(cine,), conditions=left))
        for case in cases:
            for maker in makers:
                key = keys[case.condition, maker.name]
                if key not in kept.known:
                    kept.add(key, judged(maker.make(case), case, maker.name))
                report(kept.known[key])
        results += [kept.known[key] for key in keys.values()]
    return results


def _circumstances(study: HeartStudy, cine: Cine) -> str:
    return f"{cine.name}|{fingerprint(cine)}|{study.coils}|{study.snr}|{study.acs}|{study.seed}"


class _Kept:
    """Results by key, those of a folder among them."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / RESULTS
        self.known: dict[str, HeartResult] = {}
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            records = read_records(self._path, "result of a comparison on hearts")
            self.known = {record["key"]: _result(record) for record in records}

    def add(self, key: str, result: HeartResult) -> None:
        self.known[key] = result
        if self._path is not None:
            add_records(self._path, [{"key": key, **dataclasses.asdict(result)}])


def _result(record: Record) -> HeartResult:
    kept: dict[str, Any] = {name: record[name] for name in ("heart", "condition", "method")}
    return HeartResult(**kept, within=Metrics(**record["within"]), whole=Metrics(**record["whole"]))

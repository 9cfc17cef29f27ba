"""Scans of the studies: every one a heart of its own, with its breathing, heartbeat and sampling."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

import recon_node
from recon_node.lab.evaluation.heldout import SALT, Case, Study, cases

TEST, TUNING = 1_000_000, 2_000_000
"""First seeds: those of tests never overlap those that settings are chosen on."""
PATTERNS = ("uniform", "random", "radial")
ACCELERATIONS = (4, 8, 16, 24)


@cache
def code_hash(*modules: str) -> str:
    """SHA-256 over the source of modules that compute, and of all those that they import.

    `recon_node.core` only holds types, errors and the Fourier transform, of which the last one counts.
    """
    root, seen = Path(recon_node.__file__).parents[1], {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _source(root, name)
        if file is None or name in seen:
            continue
        seen[name] = file.read_bytes()
        for node in ast.walk(ast.parse(seen[name])):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return hashlib.sha256(b"".join(seen[name] for name in sorted(seen))).hexdigest()[:16]


def _source(root: Path, name: str) -> Path | None:
    """File of a module of recon_node; None for anything else."""
    if not name.startswith("recon_node.") or (
        name.startswith("recon_node.core") and name != "recon_node.core.fft"
    ):
        return None
    place = root.joinpath(*name.split("."))
    return next((f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()), None)


@dataclass(frozen=True)
class Scan:
    """What decides one scan."""

    seed: int
    pattern: str
    acceleration: float
    phases: int = 25
    matrix: int = 128
    coils: int = 8
    vendor: str | None = None
    field_t: float | None = None
    still: bool = False
    """Breath held and a regular heartbeat, in place of breathing of 2 to 5 mm and beats that differ."""
    heart: str = "plain"
    """Or ``detailed``: as hard as real ones."""
    every: int = 1
    """Only every n-th frame is reconstructed."""

    @property
    def condition(self) -> str:
        return f"{self.pattern} {self.acceleration:g}x"

    @cached_property
    def identity(self) -> dict[str, object]:
        """What it is, and a hash of its data: code that changes them makes it another scan."""
        case, digest = self.case, hashlib.sha256()
        for array in (case.truth, case.kspace.data, case.kspace.mask, case.maps.data):
            digest.update(np.ascontiguousarray(array))
        digest.update(f"{case.prompts.metadata} {case.prompts.undersampling}".encode())
        return {**asdict(self), "data": digest.hexdigest()[:16]}

    @cached_property
    def case(self) -> Case:
        """Drawn and calibrated."""
        rng = np.random.default_rng([*SALT, self.seed, 2])
        breathing, arrhythmia = float(rng.uniform(2, 5)), float(rng.uniform(0.02, 0.08))
        study = Study(
            methods=(),
            patterns=(self.pattern,),
            accelerations=(self.acceleration,),
            scans=1,
            phases=self.phases,
            matrix=self.matrix,
            coils=self.coils,
            vendor=self.vendor,
            field_t=self.field_t,
            breathing_mm=None if self.still else breathing,
            arrhythmia=None if self.still else arrhythmia,
            heart=self.heart,
            seed=self.seed,
        )
        return _thinned(next(cases(study)), self.every)


def _thinned(case: Case, every: int) -> Case:
    kspace = replace(
        case.kspace, data=case.kspace.data[::every], mask=case.kspace.mask[::every], trigger_times_ms=None
    )
    return case if every == 1 else replace(case, truth=case.truth[::every], kspace=kspace)


def scans(
    count: int, *, first: int = TEST, conditions: list[tuple[str, float]], **options: object
) -> Iterator[Scan]:
    """`count` scans of every condition, one of each in turn; the same seeds whatever `count` is."""
    for number in range(count):
        for place, (pattern, acceleration) in enumerate(conditions):
            yield Scan(first + 1000 * number + place, pattern, acceleration, **options)


def crossed(patterns: list[str], accelerations: list[float]) -> list[tuple[str, float]]:
    return [(pattern, acceleration) for pattern in patterns for acceleration in accelerations]

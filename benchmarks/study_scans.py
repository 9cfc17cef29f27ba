"""Scans of the studies: every one a heart of its own, with its breathing, heartbeat and sampling."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

import recon_node
from recon_node import pipeline
from recon_node.evaluation import heldout
from recon_node.evaluation.heldout import SALT, Case, Study, cases

TEST, TUNING = 1_000_000, 2_000_000
"""First seeds: those of tests never overlap those that settings are chosen on."""
PATTERNS = ("uniform", "random", "radial")
ACCELERATIONS = (4, 8, 16, 24)
_SCENE = ("recon_node.simulate", "recon_node.coils", "recon_node.prep", "recon_node.evaluation.metrics")


@cache
def code_hash(*modules: str) -> str:
    """SHA-256 over the source of modules of recon_node and of all of it that they import, one by one."""
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
    if not name.startswith("recon_node."):
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

    @property
    def condition(self) -> str:
        return f"{self.pattern} {self.acceleration:g}x"

    @property
    def identity(self) -> dict[str, object]:
        """All that its k-space and coil maps depend on, the code included."""
        alone = hashlib.sha256("".join(map(inspect.getsource, (heldout, pipeline))).encode()).hexdigest()
        return {**asdict(self), "scene": f"{code_hash(*_SCENE)} {alone[:16]}"}

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
            seed=self.seed,
        )
        return next(cases(study))


def scans(
    count: int, *, first: int = TEST, conditions: list[tuple[str, float]], **options: object
) -> Iterator[Scan]:
    """`count` scans of every condition, one of each in turn; the same seeds whatever `count` is."""
    for number in range(count):
        for place, (pattern, acceleration) in enumerate(conditions):
            yield Scan(first + 1000 * number + place, pattern, acceleration, **options)


def crossed(patterns: list[str], accelerations: list[float]) -> list[tuple[str, float]]:
    return [(pattern, acceleration) for pattern in patterns for acceleration in accelerations]

"""Do the texts help? The four variants of the network on the same held-out scans, and on scanners they never saw.

`python -m benchmarks.ablation WEIGHTS WEIGHTS... [--scans N] [--out FOLDER]`

Takes weights of different variants (CardioMM, CardioSM+UT, CardioSM+MT, CardioSM), trained alike, each as its own network;
`docs/training.md` has the commands. Pairs are compared over scans (every one another heart) with Wilcoxon's
signed-rank test. Where the weights were trained without some vendors or field strengths (their cards say so), these scans
come from the scanners that training saw, and as many again from each one that it did not: the drop is what the
networks lose there. Scanners differ in noise and coils, so k-t sparse SENSE, which never learned anything, runs on
them as well: its own drop says how much harder they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.study import arguments, scene
from benchmarks.study_report import quality_tables
from benchmarks.study_rivals import Rival, measure, of_node
from benchmarks.study_scans import TEST, Scan, crossed
from benchmarks.study_store import Store
from recon_node.core.errors import ConfigError
from recon_node.lab.evaluation.studies import Comparison, Result, compare
from recon_node.model import load_weights
from recon_node.simulate import find_models

ORDER = (
    ("CardioMM", "CardioSM+UT"),
    ("CardioMM", "CardioSM+MT"),
    ("CardioSM+UT", "CardioSM"),
    ("CardioSM+MT", "CardioSM"),
    ("CardioMM", "CardioSM"),
)
SIGNIFICANT = 0.01
YARDSTICK = "kt"
MOST_DROP = 1.0
"""dB that a network may lose on scanners it never saw."""


@dataclass(frozen=True)
class Step:
    """One step of the order: the first should not be below the second."""

    better: str
    worse: str
    comparison: Comparison

    @property
    def verdict(self) -> str:
        sure = self.comparison.p < SIGNIFICANT
        if self.comparison.gain_db > 0:
            return f"holds (p < {SIGNIFICANT})" if sure else "not shown"
        return f"REVERSED (p < {SIGNIFICANT})" if sure else "not shown"


def order(results: Sequence[Result]) -> list[Step]:
    """The steps between variants that were measured."""
    there = {result.method for result in results}
    return [Step(a, b, compare(results, a, b)) for a, b in ORDER if {a, b} <= there]


@dataclass(frozen=True)
class Drop:
    """What a method loses on scanners that training did not see."""

    scanners: str
    method: str
    db: float
    """Mean PSNR on seen scanners minus that on unseen ones."""
    beyond_kt_db: float
    """The same of the gain over k-t sparse SENSE on each scan."""
    p: float
    """Two-sided Mann-Whitney test of that gain, seen against unseen hearts."""

    @property
    def verdict(self) -> str:
        raw, fair = (
            "below 1 dB" if drop < MOST_DROP else "1 dB or MORE" for drop in (self.db, self.beyond_kt_db)
        )
        return f"{raw}; beyond k-t's {fair}"


def drops(seen: Sequence[Result], unseen: Sequence[Result], scanners: str) -> list[Drop]:
    """Of every method but the yardstick."""
    found = []
    for method in dict.fromkeys(r.method for r in seen if r.method != YARDSTICK):
        (here, gain_here), (there, gain_there) = (_psnr(some, method) for some in (seen, unseen))
        found.append(
            Drop(
                scanners=scanners,
                method=method,
                db=float(np.mean(here) - np.mean(there)),
                beyond_kt_db=float(np.mean(gain_here) - np.mean(gain_there)),
                p=float(mannwhitneyu(gain_here, gain_there).pvalue),
            )
        )
    return found


def _psnr(results: Sequence[Result], method: str) -> tuple[list[float], list[float]]:
    """PSNR of each scan, and its gain over the yardstick."""
    by_scan = {(r.scan, r.condition, r.method): r.metrics.psnr for r in results}
    own = {key[:2]: value for key, value in by_scan.items() if key[2] == method}
    return list(own.values()), [value - by_scan[(*key, YARDSTICK)] for key, value in own.items()]


def variants(files: Sequence[str]) -> tuple[dict[str, str], list[str], list[float]]:
    """File by variant, and the vendors and field strengths that all of them were trained without.

    Raises
    ------
    ConfigError
        Weights of the same variant, or trained without different scanners.
    """
    found: dict[str, str] = {}
    held_out: dict[str, tuple[list[str], list[float]]] = {}
    for file in files:
        loaded = load_weights(file)
        variant = loaded.config.variant
        if variant in found:
            raise ConfigError(
                f"{file} and {found[variant]} are both {variant}, expected one network of each variant"
            )
        found[variant] = file
        data = loaded.card.get("training", {}).get("data", {})
        held_out[file] = list(data.get("hold_out_vendors", ())), list(data.get("hold_out_fields", ()))
    first, *others = held_out.values()
    if any(other != first for other in others):
        raise ConfigError(f"the weights were trained without different scanners: {held_out}")
    names = [name for name in ("CardioMM", "CardioSM+UT", "CardioSM+MT", "CardioSM") if name in found]
    return {name: found[name] for name in names}, *first


def scanners_but(vendors: Sequence[str], fields: Sequence[float]) -> list[tuple[str | None, float | None]]:
    """Vendors and fields of the scanners that training saw; any at all where nothing was held out."""
    if not (vendors or fields):
        return [(None, None)]
    pairs = {
        (m.vendor, m.nominal_t)
        for m in find_models()
        if m.vendor not in vendors and m.nominal_t not in fields
    }
    return sorted(pairs)


def run(
    store: Store,
    rivals: Sequence[Rival],
    options: argparse.Namespace,
    scanners: Sequence[tuple[str | None, float | None]],
) -> list[Result]:
    """All methods on `options.scans` scans of every condition, from these scanners in turn."""
    conditions = crossed(options.patterns, options.accelerations)
    results: list[Result] = []
    number_of = islice(cycle(scanners), options.scans * len(conditions))
    for number, (vendor, field) in enumerate(number_of):
        heart, place = divmod(number, len(conditions))
        scan = Scan(
            TEST + 1000 * heart + place, *conditions[place], vendor=vendor, field_t=field, **scene(options)
        )
        results += [measure(store, scan, rival, {}) for rival in rivals]
        shown = ", ".join(f"{r.method} {r.metrics.psnr:.2f}" for r in results[-len(rivals) :])
        print(f"{scan.seed} {scan.condition} {vendor or ''} {field or ''}: {shown}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", help="of different variants")
    arguments(parser)
    options = parser.parse_args()
    files, vendors, fields = variants(options.weights)
    rivals = [of_node("cardiomm", weights=file, shown=name) for name, file in files.items()]
    rivals.append(of_node(YARDSTICK))
    unseen = {f"{v} (vendor)": (v, None) for v in vendors} | {f"{t:g} T (field)": (None, t) for t in fields}
    lost: list[Drop] = []
    with Store(options.out / "results.jsonl") as store:
        seen = run(store, rivals, options, scanners_but(vendors, fields))
        for name, scanner in unseen.items():
            lost += drops(seen, run(store, rivals, options, [scanner]), name)
    write(options.out, seen, order(seen), lost)


def write(folder: Path, seen: Sequence[Result], steps: Sequence[Step], lost: Sequence[Drop]) -> None:
    lines = ["| variant | not below | gain, dB | better on | p | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {s.better} | {s.worse} | {s.comparison.gain_db:+.3f} | {s.comparison.wins} of {s.comparison.scans} "
        f"| {s.comparison.p:.1e} | {s.verdict} |"
        for s in steps
    ]
    page = f"{quality_tables(seen)}\n\n" + "\n".join(lines) + "\n"
    if lost:
        lines = [
            "| never seen | method | drop, dB | beyond k-t's drop, dB | p | |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {d.scanners} | {d.method} | {d.db:+.2f} | {d.beyond_kt_db:+.2f} | {d.p:.1e} | {d.verdict} |"
            for d in lost
        ]
        page += "\n" + "\n".join(lines) + "\n"
    (folder / "ablation.md").write_text(page, encoding="utf-8")
    summary = {
        "steps": [{**asdict(step), "verdict": step.verdict} for step in steps],
        "drops": [{**asdict(drop), "verdict": drop.verdict} for drop in lost],
    }
    (folder / "ablation.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    print(f"\n{page}")


if __name__ == "__main__":
    main()

"""CardioMM against its rivals on simulated hearts that breathe and beat irregularly.

`python -m benchmarks.study [--weights NAME|FILE] [--unet FILE] [--scans N] [--out FOLDER]`

Every scan is another heart: 25 frames, a moving, textured background, drawn vendor and field strength. The unit
of replication is the scan: tests are paired over scans (Wilcoxon's signed-rank test on each scan's mean PSNR).
BART's L1-wavelet and k-t total variation, and k-t sparse SENSE, are tuned for each condition on scans that are not
among the test's; the
node's own methods run with their settings. All methods get the same k-space and coil maps, and magnitudes are
compared in the k-space's own unit. With the defaults: 96 scans, 2400 frames.

Each result is a line of `FOLDER/results.jsonl`, keyed by the scan, the method, its settings and the code that makes
them: a killed study goes on, and a study of new weights only runs the network.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.study_report import CARDIOMM, gain_table, gains, quality_tables
from benchmarks.study_rivals import (
    Rival,
    bart_kt,
    bart_wavelet,
    kt_tuned,
    measure,
    of_node,
    plain_unet_of,
    tuned,
)
from benchmarks.study_scans import ACCELERATIONS, PATTERNS, TUNING, crossed, scans
from benchmarks.study_store import Store
from recon_node.lab.evaluation.studies import Result, table
from recon_node.simulate.detail import HEARTS

RIVALS = ("zero-filled", "sense", "l1-wavelet", "bart", "bart-kt", "kt", "kt-tuned", "unet", "cardiomm")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What all studies ask for."""
    parser.add_argument("--scans", type=_two_or_more, default=8, help="for each condition")
    parser.add_argument("--patterns", type=lambda text: text.split(","), default=list(PATTERNS))
    parser.add_argument(
        "--accelerations", type=lambda text: [float(n) for n in text.split(",")], default=list(ACCELERATIONS)
    )
    parser.add_argument("--phases", type=int, default=25)
    parser.add_argument("--matrix", type=int, default=128)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--heart", choices=HEARTS, default="detailed", help="how hard drawn hearts are")
    parser.add_argument("--still", action="store_true", help="breath held, regular heartbeat")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))


def _two_or_more(text: str) -> int:
    if int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text} scans cannot be tested, expected 2 or more")
    return int(text)


def scene(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of a scan that are the same for all scans."""
    return {name: getattr(options, name) for name in ("phases", "matrix", "coils", "still", "heart")}


def rivals(options: argparse.Namespace) -> list[Rival]:
    made = {
        "bart": bart_wavelet,
        "bart-kt": bart_kt,
        "kt-tuned": kt_tuned,
        "unet": lambda: plain_unet_of(options.unet),
        "cardiomm": lambda: of_node("cardiomm", weights=options.weights, shown=CARDIOMM),
    }
    names = [name for name in RIVALS if name in options.methods and (name != "unet" or options.unet)]
    return [made[name]() if name in made else of_node(name) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--weights", default="default", help="name of shipped weights, or a file")
    parser.add_argument("--unet", type=Path, help="weights that benchmarks.plain_unet made")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(RIVALS))
    parser.add_argument(
        "--tuning", type=int, default=2, help="scans for each condition that settings are chosen on"
    )
    options = parser.parse_args()
    if "cardiomm" not in options.methods or set(options.methods) - set(RIVALS):
        parser.error(f"expected methods out of {', '.join(RIVALS)}, and cardiomm among them")
    with Store(options.out / "results.jsonl") as store:
        write(options, *study(store, options))


def study(store: Store, options: argparse.Namespace) -> tuple[list[Result], dict[tuple[str, str], Any]]:
    """Results, and the settings chosen for each condition and method."""
    conditions = crossed(options.patterns, options.accelerations)
    chosen = rivals(options)
    settings: dict[tuple[str, str], Any] = {}
    for place in conditions:
        apart = list(scans(options.tuning, first=TUNING, conditions=[place], **scene(options)))
        for rival in chosen:
            if rival.grid:
                best = settings[apart[0].condition, rival.name] = tuned(store, apart, rival)
                print(f"{apart[0].condition}: {rival.name} {dict(best)}", flush=True)
    results: list[Result] = []
    for scan in scans(options.scans, conditions=conditions, **scene(options)):
        for rival in chosen:
            use = settings.get((scan.condition, rival.name), {})
            results.append(measure(store, scan, rival, use))
        shown = ", ".join(f"{r.method} {r.metrics.psnr:.2f}" for r in results[-len(chosen) :])
        print(f"{scan.seed} {scan.condition}: {shown}", flush=True)
    return results, settings


def write(options: argparse.Namespace, results: list[Result], settings: dict[tuple[str, str], Any]) -> None:
    count = len({(r.scan, r.condition) for r in results})
    said = f"{count} scans, {count * options.phases} frames; weights {options.weights}"
    found = gains(results)
    page = f"{said}\n\n{quality_tables(results)}\n\n{gain_table(found)}\n"
    summary = {
        "scans": count,
        "frames": count * options.phases,
        "options": {name: str(value) for name, value in vars(options).items()},
        "tuned": {f"{condition}, {rival}": value for (condition, rival), value in settings.items()},
        "means": [asdict(row) for row in table(results)],
        "gains": [gain.as_dict() for gain in found],
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    (options.out / "summary.md").write_text(page, encoding="utf-8")
    print(f"\n{page}")


if __name__ == "__main__":
    main()

"""An ablation's reports: JSON for programs, Markdown and a page for people."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recon_node.core import durable
from recon_node.core.errors import DataError
from recon_node.lab.ablation.plan import Arm, Plan, fingerprint, networks
from recon_node.lab.ablation.run import TELLS
from recon_node.lab.evaluation.paired import Difference, holm, paired
from recon_node.lab.evaluation.records import Record
from recon_node.report import Chart, Table, Tables, write_tables
from recon_node.report.charts import line_chart

STEPS: tuple[tuple[Arm, Arm], ...] = (
    ("undersampling", "none"),
    ("metadata", "none"),
    ("both", "none"),
    ("both", "shuffled"),
    ("shuffled", "none"),
)
"""Arms that are compared; shuffled texts have all the parameters and say nothing."""
SURE = 0.05
MOST_LOST_DB = 0.5
"""What wrong texts may cost."""
Place = tuple[str, str, str]
"""Start, contrasts, source."""
Scores = Mapping[tuple[str, int], float]
"""PSNR by test case and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two ways on the same scans."""

    start: str
    contrast: str
    source: str
    ours: str
    theirs: str
    difference: Difference
    together: float
    """P value among all comparisons of the report (Holm)."""


def write_reports(plan: Plan, records: Sequence[Record], folder: Path) -> dict[str, Any]:
    """Write ``ablation.json``, ``.md`` and ``.html`` into a folder.

    Raises
    ------
    DataError
        No network is done.
    """
    if not records:
        raise DataError("ablation: no network is done yet: give the command more time")
    scores = _scores(records)
    found = comparisons(scores)
    planned = list(networks(plan))
    report = {
        "plan": fingerprint(plan),
        "networks": len(records),
        "planned": len(planned),
        "means": _means(scores),
        "comparisons": [dataclasses.asdict(one) for one in found],
        "dose": dose_response(scores),
    }
    findings = _findings(plan, report, found)
    durable.write_text(folder / "ablation.json", json.dumps(report, indent=1) + "\n")
    write_tables(folder, findings, name="ablation")
    return report


def _scores(records: Sequence[Record]) -> dict[Place, dict[str, Scores]]:
    """PSNR (in the heart of a real one) by place, and by arm and text: ``both wrong``, for example."""
    found: dict[Place, dict[str, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for one in records:
        for result in one["results"]:
            place = (one["start"], one["contrast"], result["source"])
            psnr = float(result.get("heart", result["whole"])["psnr"])
            found[place][f"{one['arm']} {result['text']}"][result["case"], one["seed"]] = psnr
    return {place: dict(by) for place, by in found.items()}


def as_trained(arm: Arm) -> str:
    """The arm with the kind of text that it was trained with."""
    return f"{arm} {TELLS[arm][0]}"


def comparisons(scores: Mapping[Place, Mapping[str, Scores]]) -> list[Comparison]:
    """Every step, and what wrong and missing texts cost; paired over scans, the mean over seeds of each."""
    pairs = [(as_trained(ours), as_trained(theirs)) for ours, theirs in STEPS]
    pairs += [("both wrong", "both right"), ("both missing", "both right")]
    found = []
    for place, by in scores.items():
        for ours, theirs in pairs:
            gains = _by_scan(by.get(ours, {}), by.get(theirs, {}))
            if len(gains) > 1:
                found.append((place, ours, theirs, paired(*zip(*gains.values(), strict=True))))
    together = holm([difference.p for *_, difference in found])
    return [
        Comparison(
            start=place[0],
            contrast=place[1],
            source=place[2],
            ours=ours,
            theirs=theirs,
            difference=difference,
            together=p,
        )
        for (place, ours, theirs, difference), p in zip(found, together, strict=True)
    ]


def _by_scan(ours: Scores, theirs: Scores) -> dict[str, tuple[float, float]]:
    """Both means over the seeds that both have, by scan."""
    shared: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key in ours:
        if key in theirs:
            shared[key[0]].append((ours[key], theirs[key]))
    return {
        scan: (float(np.mean([a for a, _ in some])), float(np.mean([b for _, b in some])))
        for scan, some in shared.items()
    }


def _means(scores: Mapping[Place, Mapping[str, Scores]]) -> list[dict[str, Any]]:
    found = []
    for (start, contrast, source), by in scores.items():
        for told, some in by.items():
            arm, text = told.split(" ")
            if text == "first" and arm != "none":
                continue  # the same estimate for every arm
            found.append(
                {
                    "start": start,
                    "contrast": contrast,
                    "source": source,
                    "arm": "first estimate" if text == "first" else arm,
                    "text": text,
                    "scans": len({scan for scan, _ in some}),
                    "seeds": len({seed for _, seed in some}),
                    "psnr": float(np.mean(list(some.values()))),
                }
            )
    return found


def dose_response(scores: Mapping[Place, Mapping[str, Scores]]) -> list[dict[str, Any]]:
    """Mean gain over no text, dB, by the number of texts that say something; None where not measured."""
    doses: Mapping[int, tuple[Arm, ...]] = {0: ("shuffled",), 1: ("undersampling", "metadata"), 2: ("both",)}
    found = []
    for (start, contrast, source), by in scores.items():
        row: dict[str, Any] = {"start": start, "contrast": contrast, "source": source}
        for dose, arms in doses.items():
            gains = [
                a - b
                for arm in arms
                for a, b in _by_scan(by.get(as_trained(arm), {}), by.get("none right", {})).values()
            ]
            row[f"texts_{dose}"] = float(np.mean(gains)) if gains else None
        found.append(row)
    return found


def _findings(plan: Plan, report: Mapping[str, Any], found: Sequence[Comparison]) -> Tables:
    return Tables(
        title="Does the text help?",
        subtitle=f"{report['networks']} of {report['planned']} networks of plan {report['plan']}; "
        "PSNR of whole drawn images, of the heart in real ones.",
        sentences=_said(plan, report, found),
        parts=[_dose_part(report["dose"]), _steps_part(found), _means_part(report["means"])],
    )


def _said(plan: Plan, report: Mapping[str, Any], found: Sequence[Comparison]) -> list[str]:
    steps = plan.train.get("optim", {}).get("steps")
    size = plan.train.get("data", {}).get("matrix")
    said = [
        f"Each network was trained for {steps} steps on images of {size} points: small beside the paper's."
    ]
    if report["networks"] < report["planned"]:
        said.append("The plan is not finished: comparisons are of what is there.")
    steps_named = {(as_trained(ours), as_trained(theirs)) for ours, theirs in STEPS}
    tested = [one for one in found if (one.ours, one.theirs) in steps_named]
    shown = [one for one in tested if one.together < SURE and one.difference.mean > 0]
    said.append(
        f"{len(shown)} of {len(tested)} comparisons of arms show a gain (p < {SURE:g} together, Holm)."
        if tested
        else "No two arms of one start and one set of contrasts are done yet."
    )
    for one in found:
        if one.ours == "both wrong" and one.difference.mean < -MOST_LOST_DB:
            lost = -one.difference.mean
            said.append(
                f"Wrong texts cost {lost:.2f} dB ({one.start}, {one.contrast}, {one.source}): more than "
                f"{MOST_LOST_DB:g} dB."
            )
    return said


def _dose_part(dose: Sequence[Mapping[str, Any]]) -> Table:
    names = ("texts_0", "texts_1", "texts_2")
    curves = {
        f"{row['start']}, {row['contrast']}, {row['source']}": np.array([row[name] for name in names])
        for row in dose
        if all(row[name] is not None for name in names)
    }
    charts = []
    if curves:
        axes = line_chart([0, 1, 2], curves, x_label="texts that say something", y_label="gain, dB")
        charts.append(Chart(axes=axes, said=f"Gain over no text: {'; '.join(curves)}"))
    return Table(
        title="Dose and response",
        sentences=(
            "Mean gain in dB over the network that sees no text. Shuffled texts say nothing: dose 0.",
        ),
        headings=("start, contrasts, scans", "0 texts (shuffled)", "1 text", "2 texts"),
        rows=[
            (
                f"{row['start']}, {row['contrast']}, {row['source']}",
                *("" if row[name] is None else f"{row[name]:+.3f}" for name in names),
            )
            for row in dose
        ],
        charts=charts,
    )


def _steps_part(found: Sequence[Comparison]) -> Table:
    return Table(
        title="Arm against arm, paired over scans",
        sentences=("Clips of one patient are not independent.",),
        headings=("start, contrasts, scans", "this", "minus this", "scans", "dB", "95 %", "p", "p together"),
        rows=[
            (
                f"{one.start}, {one.contrast}, {one.source}",
                one.ours,
                one.theirs,
                str(one.difference.count),
                f"{one.difference.mean:+.3f}",
                f"{one.difference.low:+.3f} to {one.difference.high:+.3f}",
                f"{one.difference.p:.2g}",
                f"{one.together:.2g}",
            )
            for one in found
        ],
    )


def _means_part(means: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="PSNR, dB",
        headings=("start, contrasts, scans", "network", "told", "scans", "seeds", "PSNR"),
        rows=[
            (
                f"{row['start']}, {row['contrast']}, {row['source']}",
                row["arm"],
                "" if row["text"] == "first" else row["text"],
                str(row["scans"]),
                str(row["seeds"]),
                f"{row['psnr']:.2f}",
            )
            for row in means
        ],
    )

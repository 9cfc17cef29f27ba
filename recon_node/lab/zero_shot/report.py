"""A zero-shot study's reports: JSON for programs, Markdown and a page for people."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recon_node.core import durable
from recon_node.core.errors import DataError
from recon_node.lab.evaluation.paired import Difference, between, paired
from recon_node.lab.evaluation.records import Record
from recon_node.lab.zero_shot.cases import METADATA, patient_of
from recon_node.lab.zero_shot.study import YARDSTICK
from recon_node.report import Table, Tables, write_tables

QUALITY = ("heart_psnr", "heart_ssim", "whole_psnr", "whole_ssim")
_TITLES = {
    "heart_psnr": "PSNR in the heart, dB",
    "heart_ssim": "SSIM in the heart",
    "whole_psnr": "PSNR, dB",
    "whole_ssim": "SSIM",
}


def write_reports(records: Sequence[Record], folder: Path, *, card: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``zero-shot.json``, ``.md`` and ``.html`` into a folder.

    Parameters
    ----------
    records : sequence of dict
        Cases of `recon_node.lab.zero_shot.run`.
    folder : Path
        Gets the files.
    card : mapping
        Of the weights: what they were trained on.

    Raises
    ------
    DataError
        There are no cases.
    """
    if not records:
        raise DataError("zero-shot: no case is done yet: give the command more time")
    report = {
        "trained_on": trained_on(card),
        "groups": [_group(name, some) for name, some in _groups(records).items()],
        "metadata": [_metadata(source, some) for source, some in _sources(records).items()],
        "drop": _drop(records),
    }
    findings = _findings(report)
    durable.write_text(folder / "zero-shot.json", json.dumps(report, indent=1) + "\n")
    write_tables(folder, findings, name="zero-shot")
    return report


def trained_on(card: Mapping[str, Any]) -> list[str]:
    """What weights were trained on by their card, a sentence each."""
    training = card.get("training", {})
    data = training.get("data", {})
    if not data:
        return ["The weights' card does not say what they were trained on: nothing here is known to be new."]
    vendors, fields = data.get("hold_out_vendors", ()), data.get("hold_out_fields", ())
    out = [*vendors, *(f"{field:g} T" for field in fields)]
    said = [
        f"Training left out drawn scans of {', '.join(out)}."
        if out
        else "Training saw drawn scans of every vendor and field strength: no drawn scan is of a "
        "scanner that is new to it (data.hold_out_vendors and hold_out_fields of training make some)."
    ]
    hearts = Counter(patient_of(name) for name in card.get("hearts", {}))
    if hearts:
        some = ", ".join(f"{name} ({count})" for name, count in hearts.items())
        said.append(
            f"Real clips it was trained on, which are never evaluated: {some}. A new patient may be of a "
            "scanner that these were taken with."
        )
    else:
        said.append("It was trained on no real heart.")
    init = training.get("run", {}).get("init")
    if init:
        said.append(f"It began with weights {init}, whose own training the card does not list.")
    return said


def _groups(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    found: dict[tuple[str, str], list[Record]] = {}
    for one in records:
        found.setdefault((one["source"], one["group"]), []).append(one)
    return found


def _sources(records: Sequence[Record]) -> dict[str, list[Record]]:
    return {
        source: [one for one in records if one["source"] == source]
        for source in dict.fromkeys(one["source"] for one in records)
    }


def _group(name: tuple[str, str], some: Sequence[Record]) -> dict[str, Any]:
    """Means of a scanner or patient by what made the images, and verdicts."""
    means = {
        by: {key: float(np.mean([one[by][key] for one in some])) for key in QUALITY}
        for by in (YARDSTICK, *METADATA)
    }
    verdicts = {
        kind: dict(Counter(one[kind]["verdict"] for one in some if "verdict" in one[kind]))
        for kind in METADATA
    }
    return {
        "source": name[0],
        "group": name[1],
        "unseen": some[0]["unseen"],
        "scans": len(some),
        "means": means,
        "verdicts": verdicts,
    }


def _metadata(source: str, some: Sequence[Record]) -> dict[str, Any]:
    """What wrong and missing metadata change, and what the network gains, over all scans of a source."""
    found: dict[str, Any] = {"source": source, "scans": len(some), "differences": []}
    for ours, theirs in (("wrong", "right"), ("missing", "right"), ("right", YARDSTICK)):
        for key in QUALITY:
            if len(some) > 1:
                difference = paired([one[ours][key] for one in some], [one[theirs][key] for one in some])
                found["differences"].append(
                    {"what": f"{ours} - {theirs}", "quality": key, **dataclasses.asdict(difference)}
                )
    return found


def _drop(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Gain over the yardstick on drawn scanners that training left out, minus that on the others."""
    drawn = [one for one in records if one["source"] == "drawn"]
    found = []
    for key in ("heart_psnr", "whole_psnr"):
        gains = {
            unseen: [one["right"][key] - one[YARDSTICK][key] for one in drawn if one["unseen"] is unseen]
            for unseen in (True, False)
        }
        if min(map(len, gains.values())) > 1:
            found.append({"quality": key, **dataclasses.asdict(between(gains[True], gains[False]))})
    return found


def _findings(report: Mapping[str, Any]) -> Tables:
    parts = [_quality_part(report["groups"])]
    rows = [
        (
            f"{one['source']}: {row['what'].replace(YARDSTICK, 'k-t')}",
            _TITLES[row["quality"]],
            str(row["count"]),
            *_cells(Difference(**{k: row[k] for k in ("mean", "low", "high", "p", "count", "wins")})),
        )
        for one in report["metadata"]
        for row in one["differences"]
    ]
    parts.append(
        Table(
            title="What the metadata changes, paired over scans",
            sentences=("The same scans each time; clips of one patient are not independent.",),
            headings=("difference", "of", "scans", "mean", "95 % interval", "p (Wilcoxon)"),
            rows=rows,
        )
    )
    parts.append(_drop_part(report["drop"]))
    return Tables(
        title="A network on scanners and patients that it never saw",
        subtitle="PSNR and SSIM against the truth with right, wrong and missing metadata; trust verdicts.",
        sentences=report["trained_on"],
        parts=parts,
    )


def _quality_part(groups: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for one in groups:
        for by, means in one["means"].items():
            counts = one["verdicts"].get(by, {})
            rows.append(
                (
                    f"{one['group']} ({one['source']}, {'new' if one['unseen'] else 'seen in training'})",
                    "k-t" if by == YARDSTICK else f"{by} metadata",
                    str(one["scans"]),
                    *(f"{means[key]:.2f}" if "psnr" in key else f"{means[key]:.3f}" for key in QUALITY),
                    ", ".join(f"{count} {word}" for word, count in sorted(counts.items())),
                )
            )
    return Table(
        title="By scanner and patient",
        headings=("scanner or patient", "", "scans", *_TITLES.values(), "trust"),
        rows=rows,
    )


def _drop_part(drop: Sequence[Mapping[str, Any]]) -> Table:
    if not drop:
        return Table(
            title="New scanners against those of training",
            sentences=("Needs two drawn scans of each kind: these weights have not both.",),
        )
    return Table(
        title="New scanners against those of training",
        sentences=(
            "Gain over k-t sparse SENSE, which learned nothing: on new scanners minus on the others.",
        ),
        headings=("quality", "scans", "mean", "95 % interval", "p (Mann-Whitney)"),
        rows=[
            (
                _TITLES[row["quality"]],
                str(row["count"]),
                *_cells(Difference(**{k: v for k, v in row.items() if k != "quality"})),
            )
            for row in drop
        ],
    )


def _cells(one: Difference) -> tuple[str, str, str]:
    return f"{one.mean:+.3f}", f"{one.low:+.3f} to {one.high:+.3f}", f"{one.p:.2g}"

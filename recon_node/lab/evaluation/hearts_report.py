"""What a comparison on hearts came to: means, sentences, and files for people and for programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon_node.core import durable
from recon_node.lab.evaluation.hearts import HeartResult
from recon_node.report import Table, Tables, write_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartRow:
    """Means over hearts."""

    condition: str
    method: str
    hearts: int
    heart_psnr: float
    heart_ssim: float
    whole_psnr: float
    whole_ssim: float
    over_kt: float | None
    """PSNR in the heart above that of k-t sparse SENSE on the same hearts, dB; None where it was not run."""


def heart_table(results: Sequence[HeartResult]) -> list[HeartRow]:
    """Means by condition and method, in the order they first appear."""
    groups: dict[tuple[str, str], list[HeartResult]] = defaultdict(list)
    for result in results:
        groups[result.condition, result.method].append(result)
    means = {
        key: [
            float(np.mean([getattr(getattr(one, where), what) for one in some]))
            for where in ("within", "whole")
            for what in ("psnr", "ssim")
        ]
        for key, some in groups.items()
    }
    rows = []
    for (condition, method), values in means.items():
        kt = means.get((condition, "kt"))
        rows.append(
            HeartRow(
                condition=condition,
                method=method,
                hearts=len(groups[condition, method]),
                heart_psnr=values[0],
                heart_ssim=values[1],
                whole_psnr=values[2],
                whole_ssim=values[3],
                over_kt=None if kt is None else values[0] - kt[0],
            )
        )
    return rows


def in_words(rows: Sequence[HeartRow], method: str = "cardiomm") -> list[str]:
    """What the network gains over k-t sparse SENSE, a sentence for each condition."""
    said = []
    for row in rows:
        if row.method == method and row.over_kt is not None:
            side = "above" if row.over_kt >= 0 else "BELOW"
            said.append(
                f"{row.condition}: {method} is {abs(row.over_kt):.1f} dB {side} k-t sparse SENSE in the "
                f"heart, mean over {row.hearts} hearts."
            )
    return said


def heart_tables(rows: Sequence[HeartRow], labels: Mapping[str, str], *, kind: str) -> Tables:
    """The table as documents show it: a row for each condition, a column for each method."""
    methods = list(dict.fromkeys(row.method for row in rows))
    found = {(row.condition, row.method): row for row in rows}
    gains = [name for name in ("cardiomm",) if name in methods and "kt" in methods]
    lines = []
    for condition in dict.fromkeys(row.condition for row in rows):
        cells = [_cell(found[condition, name]) for name in methods]
        over = [f"{found[condition, name].over_kt:+.1f} dB" for name in gains]
        lines.append((condition, *cells, *over))
    headings = [
        "sampling",
        *(labels.get(name, name) for name in methods),
        *["over k-t in the heart" for _ in gains],
    ]
    return Tables(
        title=f"Methods compared on {kind} hearts",
        subtitle=f"{rows[0].hearts} hearts. PSNR in dB and SSIM, in the heart / in the whole image, means.",
        sentences=in_words(rows),
        parts=[Table(title="By sampling", headings=headings, rows=lines)],
    )


def _cell(row: HeartRow) -> str:
    return f"{row.heart_psnr:.1f} {row.heart_ssim:.3f} / {row.whole_psnr:.1f} {row.whole_ssim:.3f}"


def write_reports(
    results: Sequence[HeartResult], folder: Path, labels: Mapping[str, str], *, kind: str = "real"
) -> None:
    """Write ``hearts.json``, ``.csv`` (every result), ``.md`` and ``.html`` (means) into a folder."""
    rows = heart_table(results)
    report = {
        "rows": [dataclasses.asdict(row) for row in rows],
        "results": [dataclasses.asdict(one) for one in results],
    }
    durable.write_text(folder / "hearts.json", json.dumps(report, indent=1) + "\n")
    durable.write_text(folder / "hearts.csv", as_csv(results))
    write_tables(folder, heart_tables(rows, labels, kind=kind), name="hearts")


def as_csv(results: Sequence[HeartResult]) -> str:
    """Every result as a line of CSV; PSNR in dB."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    places = ("within", "whole")
    measures = ("psnr", "ssim", "nmse")
    named = [f"{'heart' if where == 'within' else where}_{what}" for where in places for what in measures]
    writer.writerow(["heart", "condition", "method", *named])
    for one in results:
        values = [getattr(getattr(one, where), what) for where in places for what in measures]
        writer.writerow([one.heart, one.condition, one.method, *values])
    return text.getvalue()

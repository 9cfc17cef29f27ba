"""The failure benchmark's reports: JSON for programs, Markdown and HTML for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recon_node.core import durable
from recon_node.core.errors import DataError
from recon_node.lab.failures.beside import BESIDE
from recon_node.lab.failures.fit import judged as judged_by
from recon_node.lab.failures.fit import judged_apart
from recon_node.lab.failures.kinds import CLEAN, KINDS
from recon_node.lab.failures.run import Record
from recon_node.lab.failures.score import Summary, summarise
from recon_node.report import Table, Tables, write_tables
from recon_node.trust import Limits

Rows = list[tuple[str, ...]]


def write_reports(records: Sequence[Record], folder: Path, *, limits: Limits | None = None) -> dict[str, Any]:
    """Judge every case, and write ``report.json``, ``.md`` and ``.html``.

    Parameters
    ----------
    records : sequence
        Every case of the run.
    folder : Path
        Gets the reports.
    limits : Limits, optional
        To judge by. Without them every case is judged by limits of the run's other hearts; where there are
        too few clean scans for that, the verdicts of the method's own limits stand.

    Returns
    -------
    dict
        What ``report.json`` holds.
    """
    try:
        judged, by = judged_apart(records) if limits is None else [], "limits made of other hearts"
    except DataError as error:
        judged, by = list(records), f"the method's own limits ({error})"
    if limits is not None:
        judged, by = [judged_by(one, limits) for one in records], "the method's own limits"
    summary = summarise(judged, _doubt)
    coverage = coverages(judged)
    report = {"judged_by": by, **dataclasses.asdict(summary), "coverage": coverage}
    durable.write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
    parts = [
        Table(title=title, headings=rows[0], rows=rows[1:]) for title, rows in _parts(summary, coverage, by)
    ]
    write_tables(folder, Tables(title="Which failures the trust check notices", parts=parts))
    return report


def _doubt(record: Record) -> float:
    return float(record["doubt"]) if "doubt" in record else 1 - float(record["score"])


def coverages(records: Sequence[Record]) -> list[dict[str, Any]]:
    """How often both bounds hold on scans that did not make them, by source, clean and all."""
    found = []
    for source in sorted({one["source"] for one in records}):
        for name in (CLEAN, "all"):
            some = [
                one
                for one in records
                if one["source"] == source
                and (name == "all" or one["kind"] == CLEAN)
                and (one.get("expected") or {}).get("ssim_at_least") is not None
            ]
            if some:
                held = [
                    one["truth"]["psnr"] >= one["expected"]["psnr_at_least"]
                    and one["truth"]["ssim"] >= one["expected"]["ssim_at_least"]
                    for one in some
                ]
                slack = [one["truth"]["ssim"] - one["expected"]["ssim_at_least"] for one in some]
                found.append(
                    {
                        "source": source,
                        "scans": name,
                        "count": len(some),
                        "held": float(np.mean(held)),
                        "median_ssim_slack": float(np.median(slack)),
                    }
                )
    return found


def _parts(summary: Summary, coverage: list[dict[str, Any]], by: str) -> list[tuple[str, Rows]]:
    overall: Rows = [
        ("", "figure"),
        ("cases", str(summary.cases)),
        ("bad images", str(summary.bad)),
        ("AUROC, bad against good clean images", _number(summary.auroc)),
        ("AUROC, bad against all good images", _number(summary.auroc_all_good)),
        *(
            (f"good clean images warned of, {source}", _percent(share))
            for source, share in summary.clean_warned.items()
        ),
        ("images passed", str(summary.passed)),
        ("of them bad", f"{summary.passed_bad} ({_percent(summary.passed_bad / max(1, summary.passed))})"),
    ]
    kinds: Rows = [("kind", "cases", "refused", "bad", "AUROC", "bad warned of", "bad passed", *BESIDE)]
    kinds += [
        (
            row.kind,
            str(row.cases),
            str(row.refused),
            str(row.bad),
            _number(row.auroc),
            _percent(row.warned),
            str(row.passed_bad),
            *(_number(row.others[name]) for name in BESIDE),
        )
        for row in summary.rows
    ]
    others: Rows = [("measure", "AUROC on the same cases", "CPU seconds over the reconstruction's")]
    cost = summary.cost
    own = "hold-out and residuals"
    others.append((own, _number(summary.same_cases), _number(cost.get(own))))
    others += [(name, _number(summary.others[name]), _number(cost.get(name))) for name in BESIDE]
    bounds: Rows = [("hearts", "scans", "with a bound", "both bounds held", "median SSIM above its bound")]
    bounds += [
        (
            one["source"],
            one["scans"],
            str(one["count"]),
            _percent(one["held"]),
            f"{one['median_ssim_slack']:.3f}",
        )
        for one in coverage
    ]
    said: Rows = [("kind", "strengths", "what happens")]
    said += [
        (row.kind, ", ".join(f"{s:g}" for s in KINDS[row.kind].strengths), KINDS[row.kind].says)
        for row in summary.rows
        if row.kind in KINDS
    ]
    return [
        (f"Overall, by {by}", overall),
        ("By kind, against good clean images", kinds),
        ("Beside the node's own", others),
        ("Bounds on scans that did not make them", bounds),
        ("The kinds", said),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"

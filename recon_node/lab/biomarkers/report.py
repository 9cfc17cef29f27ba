"""A biomarker study's reports: JSON and CSV for programs, Markdown and a page for people."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon_node.core import durable
from recon_node.core.errors import DataError
from recon_node.lab.biomarkers.agreement import REFERENCES, Agreement, Pair, agreements, pairs
from recon_node.lab.biomarkers.measures import AREAS, VOLUMES
from recon_node.lab.biomarkers.stacks import heart_of
from recon_node.lab.evaluation.records import Record
from recon_node.report import Chart, Table, Tables, write_tables
from recon_node.report.charts import bland_altman_chart

NAMES = {**VOLUMES, **AREAS}
_CHARTED = ("ef", "edv", "fac")
_MOST_CHARTS = 12


def write_reports(records: Sequence[Record], folder: Path, *, segmenter: str) -> dict[str, Any]:
    """Write ``biomarkers.json``, ``.csv``, ``.md`` and ``.html`` into a folder.

    Returns
    -------
    dict
        What the JSON file holds: ``agreement`` over hearts, and the ``pairs`` it is made of.

    Raises
    ------
    DataError
        Nothing was measured twice.
    """
    found = pairs(records)
    if not found:
        raise DataError(
            f"biomarkers: nothing to compare in {len(records)} series: the segmenter found no left "
            "ventricle, or the run was stopped before a slice was done"
        )
    rows = agreements(found)
    report = {
        "segmenter": segmenter,
        "agreement": [dataclasses.asdict(row) for row in rows],
        "pairs": [dataclasses.asdict(pair) for pair in found],
    }
    findings = _findings(rows, found, segmenter)
    durable.write_text(folder / "biomarkers.json", json.dumps(report, indent=1) + "\n")
    durable.write_text(folder / "biomarkers.csv", table(found))
    write_tables(folder, findings, name="biomarkers")
    return report


def table(found: Sequence[Pair]) -> str:
    """Every pair as a line of CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [one.name for one in dataclasses.fields(Pair)]
    writer.writerow(names)
    writer.writerows([getattr(pair, name) for name in names] for pair in found)
    return text.getvalue()


def _findings(rows: Sequence[Agreement], found: Sequence[Pair], segmenter: str) -> Tables:
    parts = []
    for source in dict.fromkeys(row.source for row in rows):
        for reference, said in REFERENCES.items():
            for names in (VOLUMES, AREAS):
                some = [
                    row
                    for row in rows
                    if row.source == source and row.reference == reference and row.biomarker in names
                ]
                if some:
                    parts.append(_part(source, said, some, found, stacks=names is VOLUMES))
    return Tables(
        title="Left ventricular numbers from undersampled scans",
        subtitle=f"Measured by segmenter {segmenter}; differences are measured minus expected.",
        sentences=_said(rows, found),
        parts=parts,
    )


def _said(rows: Sequence[Agreement], found: Sequence[Pair]) -> list[str]:
    said = []
    for source in dict.fromkeys(row.source for row in rows):
        scans = {p.unit for p in found if p.source == source and p.biomarker in VOLUMES}
        stacks = {heart_of(scan) for scan in scans}
        if not stacks:
            said.append(
                f"No {source} clips make a stack: areas and fractional area change, no volumes and no "
                "ejection fraction."
            )
            continue
        said.append(
            f"{len(stacks)} {source} {'stack' if len(stacks) == 1 else 'stacks'}: volumes are sums of "
            "areas times the distance of the slices."
        )
        if len(scans) > len(stacks):
            said.append(
                f"{len(scans)} scans of {len(stacks)} {source} {'heart' if len(stacks) == 1 else 'hearts'}: "
                "scans of one heart differ in coils, noise and sampling, so that their limits of agreement "
                "are those of scanning, not of patients."
            )
        elif len(stacks) == 1:
            said.append("One heart has a difference, but no limits of agreement and no ICC.")
    return said


def _part(
    source: str, reference: str, some: Sequence[Agreement], found: Sequence[Pair], *, stacks: bool
) -> Table:
    again = any(heart_of(one.unit) != one.unit for one in found)
    unit = ("scans" if again else "hearts") if stacks else "slices"
    headings = (
        "condition, method",
        "biomarker",
        unit,
        "bias",
        "limits of agreement",
        "ICC(2,1)",
        "90% within",
    )
    table_rows = [
        (
            f"{row.condition}, {row.method}" if row.condition != row.method else row.condition,
            NAMES[row.biomarker],
            str(row.count),
            f"{row.bias:+.2f}",
            "" if row.low is None or row.high is None else f"{row.low:+.2f} to {row.high:+.2f}",
            "" if row.icc is None else f"{row.icc:.3f}",
            "" if row.bound is None else f"{row.bound:.2f}",
        )
        for row in some
    ]
    charted = [row for row in some if row.biomarker in _CHARTED and row.count > 1][:_MOST_CHARTS]
    slices = () if stacks else ("Slices of one heart are no independent samples.",)
    return Table(
        title=f"{source.capitalize()} {unit}, against {reference}",
        sentences=slices,
        headings=headings,
        rows=table_rows,
        charts=[_chart(row, found) for row in charted],
    )


def _chart(row: Agreement, found: Sequence[Pair]) -> Chart:
    wanted = (row.source, row.reference, row.condition, row.method, row.biomarker)
    some = [p for p in found if (p.source, p.reference, p.condition, p.method, p.biomarker) == wanted]
    limits = None if row.low is None or row.high is None else (row.low, row.high)
    return Chart(
        axes=bland_altman_chart(
            [p.measured for p in some],
            [p.expected for p in some],
            [p.unit for p in some],
            unit=NAMES[row.biomarker].split(", ")[-1],
            bias=row.bias,
            limits=limits,
        ),
        said=f"{NAMES[row.biomarker].split(',')[0]}, {row.condition}, {row.method}",
    )

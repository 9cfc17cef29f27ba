"""Methods compared over many scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon_node.report.charts import Axes
from recon_node.report.render import render


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A table of means, and one of its columns as bars."""

    title: str
    subtitle: str
    headings: Sequence[str]
    """The first two name condition and method."""
    rows: Sequence[Sequence[str]]
    drawn: int
    """Number of the column whose values are drawn as well."""
    sentences: Sequence[str] = ()


def write_study(path: Path, study: Study) -> None:
    """Write the page."""
    render(
        path,
        "study.html",
        script="overview.js",
        study=study,
        bars=_bars(study),
    )


def _bars(study: Study) -> list[dict[str, Any]]:
    """By condition, every method's value and its share of the axis."""
    values = [float(row[study.drawn]) for row in study.rows]
    axes = Axes(x=[0, 1], y=[0.0, *values], x_label="", y_label="")
    top = axes.top
    conditions = dict.fromkeys(row[0] for row in study.rows)
    return [
        {
            "condition": condition,
            "parts": [
                (row[1], row[study.drawn], 100 * max(0.0, value) / top)
                for row, value in zip(study.rows, values, strict=True)
                if row[0] == condition
            ],
        }
        for condition in conditions
    ]

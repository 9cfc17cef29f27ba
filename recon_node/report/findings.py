"""What a study found: tables and charts under headings, as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon_node.report.charts import Axes
from recon_node.report.render import render


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chart:
    """A chart, and what it shows in words."""

    axes: Axes
    said: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One heading with what stands under it."""

    heading: str
    sentences: Sequence[str] = ()
    headings: Sequence[str] = ()
    """Of the table's columns; the first is text, the others are numbers."""
    rows: Sequence[Sequence[str]] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """A whole study."""

    title: str
    subtitle: str
    parts: Sequence[Part]
    sentences: Sequence[str] = ()
    """The most important ones."""


def write_findings(path: Path, findings: Findings) -> None:
    """Write the page."""
    render(path, "findings.html", script="overview.js", found=findings)


def markdown(findings: Findings) -> str:
    """The same without charts."""
    lines = [f"# {findings.title}", "", findings.subtitle]
    lines += [line for sentence in findings.sentences for line in ("", sentence)]
    for part in findings.parts:
        lines += ["", f"## {part.heading}"]
        lines += [line for sentence in part.sentences for line in ("", sentence)]
        if part.rows:
            lines += ["", _line(part.headings), _line(["---"] * len(part.headings))]
            lines += [_line(row) for row in part.rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def bland_altman_chart(
    measured: Sequence[float],
    expected: Sequence[float],
    names: Sequence[str],
    *,
    unit: str,
    bias: float,
    limits: tuple[float, float] | None,
) -> Axes:
    """Differences over means, with the bias and the limits of agreement as lines.

    Parameters
    ----------
    measured, expected : sequence of float
        The same number of each heart twice.
    names : sequence of str
        Of the hearts.
    unit : str
        For the axes.
    bias : float
        Drawn as a line.
    limits : tuple of float, optional
        Drawn as dashed lines.
    """
    a, b = np.asarray(measured, float), np.asarray(expected, float)
    means, differences = (a + b) / 2, a - b
    spread = float(np.ptp(means)) or abs(float(means[0])) or 1.0
    ends = [float(means.min()) - 0.05 * spread, float(means.max()) + 0.05 * spread]
    levels = {"bias": bias, **({} if limits is None else {"lower": limits[0], "upper": limits[1]})}
    axes = Axes(
        x=ends,
        y=[*differences.tolist(), *levels.values(), 0.0],
        x_label=f"mean of both, {unit}",
        y_label=f"difference, {unit}",
    )
    for name, level in levels.items():
        points = " ".join(f"{axes.px(x)},{axes.py(level)}" for x in ends)
        axes.lines.append({"name": name, "points": points, "dashed": name != "bias"})
    for mean, difference, name in zip(means, differences, names, strict=True):
        axes.dot(float(mean), float(difference), name, "pass", None)
    return axes

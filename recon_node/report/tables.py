"""A report of titled tables, and charts where there are any, as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recon_node.core import durable
from recon_node.report.charts import Axes
from recon_node.report.render import render


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chart:
    """A chart, and what it shows in words."""

    axes: Axes
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Headings and rows of text; the first column names the row."""

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    sentences: Sequence[str] = ()
    """Above the table."""
    charts: Sequence[Chart] = ()
    """Below it, on the page only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Tables under one title."""

    title: str
    parts: Sequence[Table]
    sentences: Sequence[str] = ()
    subtitle: str = ""


def write_tables(folder: Path, tables: Tables, *, name: str = "report") -> None:
    """Write ``NAME.html`` and ``NAME.md`` into `folder`."""
    render(folder / f"{name}.html", "tables.html", script="overview.js", tables=tables)
    durable.write_text(folder / f"{name}.md", _markdown(tables))


def _markdown(tables: Tables) -> str:
    lines = [f"# {tables.title}"]
    for sentence in (tables.subtitle, *tables.sentences):
        lines += ["", sentence] if sentence else []
    for part in tables.parts:
        lines += ["", f"## {part.title}"]
        lines += [line for sentence in part.sentences for line in ("", sentence)]
        if part.headings:
            lines += ["", _line(part.headings), _line(["---"] * len(part.headings))]
            lines += [_line(row) for row in part.rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

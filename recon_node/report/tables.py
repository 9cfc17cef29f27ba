"""A report that is nothing but titled tables, as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recon_node.core import durable
from recon_node.report.render import render


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Headings and rows of text; the first column names the row."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Tables under one title."""

    title: str
    parts: Sequence[Table]
    sentences: Sequence[str] = ()


def write_tables(folder: Path, tables: Tables) -> None:
    """Write ``report.html`` and ``report.md`` into `folder`."""
    render(folder / "report.html", "tables.html", script="overview.js", tables=tables)
    durable.write_text(folder / "report.md", _markdown(tables))


def _markdown(tables: Tables) -> str:
    lines = [f"# {tables.title}"]
    for sentence in tables.sentences:
        lines += ["", sentence]
    for part in tables.parts:
        lines += ["", f"## {part.title}", "", _line(part.headings), _line(["---"] * len(part.headings))]
        lines += [_line(row) for row in part.rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

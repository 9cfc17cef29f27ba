"""``recon-node inspect``: what is in a raw data file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from recon_node.cli.options import (
    ANY_PATH,
    config_option,
    json_option,
    prep_options,
    print_json,
    settings_from,
)

_PIPED_WIDTH = 140


@click.command("inspect", short_help="Show what is in a raw data file.")
@click.argument("input", type=ANY_PATH, metavar="INPUT")
@config_option
@prep_options
@json_option
def command(input: Path, config: Path | None, as_json: bool, **given: Any) -> None:  # noqa: A002 - the argument's name
    """Header, dimensions, lines found and expected, sampling and prompts of INPUT.

    Patient data is not shown.
    """
    from recon_node.offline.inspect import inspect_file

    report = inspect_file(input, settings_from(config, given))
    if as_json:
        print_json(report)
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)
    console.print(_header(report["header"], report["origin"]))
    console.print(_slices(report["kspace"]))
    for text, origins in _prompts(report["kspace"]).items():
        console.print(_provenance(text, origins))
    for note in report["notes"]:
        console.print(f"note: {note}", markup=False)


def _header(header: dict[str, Any], origin: dict[str, str]) -> Table:
    """What the header says, and where that stands."""
    table = Table("header", "", "from", box=None)
    table.columns[1].overflow = table.columns[2].overflow = "fold"
    for name, value in header.items():
        if isinstance(value, dict):
            for key, (least, most, centre) in value.items():
                if most > least:
                    table.add_row(key, f"{least} to {most}, centre {centre}", "")
        elif value not in (None, []):
            shown = " x ".join(map(str, value)) if isinstance(value, list) else str(value)
            table.add_row(name, Text(shown), Text(origin.get(name, "")))
    missing = [name for name, value in header.items() if value in (None, [])]
    if missing:
        table.add_row("not given", ", ".join(missing), "")
    return table


def _slices(scans: list[dict[str, Any]]) -> Table:
    """A line for every k-space; counters that never change are left out."""
    counters = [
        name
        for name in scans[0]["index"]
        if name == "slice" or len({scan["index"][name] for scan in scans}) > 1
    ]
    headings = (*counters, "phases", "coils", "ky x kx", "lines", "of", "sampling", "ACS", "calibration")
    table = Table(*headings, box=None)
    for scan in scans:
        size, sampling, calibration = scan["dimensions"], scan["sampling"], scan["calibration"]
        table.add_row(
            *(str(scan["index"][name]) for name in counters),
            str(size["phases"]),
            str(size["coils"]),
            f"{size['ky']} x {size['kx']}",
            str(scan["lines"]["found"]),
            str(scan["lines"]["expected"] or "?"),
            " ".join([f"{sampling['acceleration']:g}x {sampling['pattern']}", *_several(sampling)]),
            str(sampling["acs_lines"]),
            "none" if calibration is None else " x ".join(map(str, calibration[1:])),
        )
    return table


def _several(sampling: dict[str, Any]) -> list[str]:
    """The schemes of a mask that has more than one, in brackets."""
    return [f"({', '.join(sampling['parts'])})"] if "parts" in sampling else []


def _prompts(scans: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Each sentence once, with the provenance of its words."""
    found: dict[str, dict[str, str]] = {}
    for scan in scans:
        for name in ("metadata", "undersampling"):
            found.setdefault(scan["prompts"][name], scan["prompts"]["provenance"][name])
    return found


def _provenance(text: str, origins: dict[str, str]) -> Table:
    table = Table("prompt", escape(text), box=None)
    for slot, origin in origins.items():
        table.add_row(slot, Text(origin))
    return table

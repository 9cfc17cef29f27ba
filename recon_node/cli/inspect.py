"""``recon-node inspect``: what is in a raw data file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from recon_node.cli.options import (
    ANY_PATH,
    config_option,
    json_option,
    prep_options,
    print_json,
    settings_from,
)


@click.command("inspect", short_help="Show what is in a raw data file.")
@click.argument("input", type=ANY_PATH, metavar="INPUT")
@config_option
@prep_options
@json_option
def command(input: Path, config: Path | None, as_json: bool, **prep: Any) -> None:  # noqa: A002 - the argument's name
    """Header, dimensions, lines found and expected, sampling and prompts of INPUT.

    Patient data is not shown.
    """
    from recon_node.inspection import inspect_file

    report = inspect_file(input, settings_from(config, prep=prep))
    if as_json:
        print_json(report)
        return
    console = Console()
    _table(console, "header", report["header"])
    for scan in report["kspace"]:
        _table(console, f"slice {scan['index']['slice']}", scan)
    for note in report["notes"]:
        console.print(f"note: {note}", markup=False)


def _table(console: Console, title: str, values: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False, title_justify="left", box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in values.items():
        for name, text in _rows(key, value):
            table.add_row(name, text)
    console.print(table)


def _rows(key: str, value: Any) -> list[tuple[str, str]]:
    if dataclasses.is_dataclass(value):
        return [(key, str(value))]
    if isinstance(value, dict):
        return [(f"{key}: {name}", str(item)) for name, item in value.items()]
    return [(key, str(value))]

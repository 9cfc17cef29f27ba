"""``recon-node ledger``: ask what became of an archive's slices."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recon_node.cli.common import Group
from recon_node.cli.options import ANY_PATH, json_option, print_json

_ON_A_TERMINAL = ("input", "slice", "status", "method", "pattern", "acceleration", "trust", "score", "error")


@click.group("ledger", cls=Group, short_help="Ask what became of an archive's slices.")
def command() -> None:
    """The table that `replay` keeps beside its output: a row for every slice."""


@command.command("query")
@click.argument("where", required=False, default="")
@click.option("--out", "folder", type=ANY_PATH, default=Path(), help="Output folder of the replay [.].")
@click.option("--csv", "csv_file", type=ANY_PATH, metavar="FILE", help="Write the rows as CSV.")
@click.option("--parquet", "parquet_file", type=ANY_PATH, metavar="FILE", help="Write the rows as Parquet.")
@json_option
def query_(where: str, folder: Path, csv_file: Path | None, parquet_file: Path | None, as_json: bool) -> None:
    """Rows for which WHERE holds (an SQL condition; all by default).

    CSV with all columns, as `replay --from-ledger` takes it; on a terminal the most important ones.
    """
    from recon_node.offline.ledger import SHOWN, query, write_csv, write_parquet

    rows = query(folder, where)
    if csv_file is not None:
        write_csv(rows, csv_file)
    if parquet_file is not None:
        write_parquet(rows, parquet_file)
    if as_json:
        print_json(rows)
    elif csv_file is not None or parquet_file is not None:
        click.echo(f"{len(rows)} rows")
    elif sys.stdout.isatty():
        _show(rows)
    else:
        writer = csv.DictWriter(sys.stdout, SHOWN)
        writer.writeheader()
        writer.writerows(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(*_ON_A_TERMINAL, box=None)
    for row in rows:
        cells = ["" if row[name] in (None, -1) else str(row[name]) for name in _ON_A_TERMINAL]
        table.add_row(*map(escape, cells))
    Console().print(table)
    click.echo(f"{len(rows)} rows; all columns: --csv FILE, or a pipe")

"""``recon-node ledger``: ask what became of an archive's slices."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click

from recon_node.cli.common import Group
from recon_node.cli.options import ANY_PATH, json_option, print_json


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
    """Rows for which WHERE holds (an SQL condition; all by default), as a table with a head."""
    from recon_node.offline.ledger import SHOWN, query, write_csv, write_parquet

    rows = query(folder, where)
    if csv_file is not None:
        write_csv(rows, csv_file)
    if parquet_file is not None:
        write_parquet(rows, parquet_file)
    if as_json:
        print_json(rows)
    elif csv_file is None and parquet_file is None:
        writer = csv.DictWriter(sys.stdout, SHOWN)
        writer.writeheader()
        writer.writerows(rows)
    else:
        click.echo(f"{len(rows)} rows")

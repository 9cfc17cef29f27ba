"""``recon-node settings``: show, check and describe settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_node.cli.common import Group
from recon_node.cli.options import ANY_PATH, config_option, json_option, print_json
from recon_node.settings import Loaded, read_settings
from recon_node.settings.weak import weaknesses


@click.group("settings", cls=Group, short_help="Show, check and describe settings.")
def command() -> None:
    """Settings of the node: what is in force, whether a file is right, what there is."""


@command.command("show")
@config_option
@click.option("--changed", is_flag=True, help="Only what is not a default.")
@json_option
def show(config: Path | None, changed: bool, as_json: bool) -> None:
    """Every setting in force, and where its value came from; secrets are hidden.

    Example: recon-node settings show --config node.toml --changed
    """
    from recon_node.settings.show import effective, written

    loaded = read_settings(config)
    rows = [row for row in effective(loaded) if not changed or row["origin"] != "default"]
    if as_json:
        print_json(rows)
        return
    section = None
    for row in rows:
        if row["section"] != section:
            section = row["section"]
            click.echo(f"[{section}]")
        origin = "" if row["origin"] == "default" else f"    # {row['origin']}"
        value = written(row["value"])
        click.echo(f"{'' if value else '# '}{row['key']} = {value}{origin}")
    _tell(loaded)


@command.command("check")
@click.argument("file", type=ANY_PATH)
@json_option
def check(file: Path, as_json: bool) -> None:
    """Whether FILE can be used; exit 2 and the key in the message if not.

    Example: recon-node settings check node.toml
    """
    loaded = read_settings(file, environment={})
    told: dict[str, Any] = {
        "file": str(file),
        "settings": len(loaded.origins),
        "notes": list(loaded.notes),
        "weak": list(weaknesses(loaded.settings)),
    }
    if as_json:
        print_json(told)
        return
    click.echo(f"{file}: {len(loaded.origins)} settings, all of them allowed")
    _tell(loaded)


@command.command("schema")
def schema() -> None:
    """The JSON schema of a settings file, for editors and other programs.

    Example: recon-node settings schema > node.schema.json
    """
    from recon_node.settings.show import json_schema

    print_json(json_schema())


def _tell(loaded: Loaded) -> None:
    for note in (*loaded.notes, *weaknesses(loaded.settings)):
        click.echo(f"note: {note}", err=True)

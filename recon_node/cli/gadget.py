"""``recon-node gadget``: what Gadgetron needs of this package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from recon_node.cli.common import Group
from recon_node.cli.options import ANY_PATH
from recon_node.core.durable import write_text
from recon_node.core.errors import SourceError


@click.group("gadget", cls=Group, short_help="Give Gadgetron the chains that call this node.")
def command() -> None:
    """What Gadgetron needs to call this node inside its chains."""


@command.command("chains")
@click.argument("folder", metavar="DIR", type=ANY_PATH)
@click.option("--force", is_flag=True, help="Replace chains of the same name that were changed.")
def chains(folder: Path, force: bool) -> None:
    """Write the chains to DIR, Gadgetron's own folder of them (share/gadgetron/config), for example."""
    found = {one.name: one.read_text(encoding="utf-8") for one in (files("recon_node") / "chains").iterdir()}
    wanted = {name: text for name, text in found.items() if name.endswith(".xml")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in sorted(wanted.items()):
        target = folder / name
        if target.exists() and target.read_text(encoding="utf-8") != text and not force:
            raise SourceError(f"{target} is there and differs: --force replaces it; nothing more was written")
        write_text(target, text)
        click.echo(str(target))

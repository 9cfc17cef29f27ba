"""``recon-node spool``: look after the delivery queue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import click
from rich.console import Console
from rich.table import Table

from recon_node.cli.common import Group
from recon_node.cli.options import config_option, json_option, print_json, settings_from
from recon_node.core.choices import InstanceState

STATES: tuple[InstanceState, ...] = get_args(InstanceState)


@click.group("spool", cls=Group, short_help="Look after the delivery queue.")
def command() -> None:
    """Instances on their way to destinations: waiting, stored, delivered, dead."""


@command.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@config_option
@json_option
def list_(state: str | None, config: Path | None, as_json: bool) -> None:
    """What is in the spool."""
    from recon_node.pipeline.queue import open_spool

    with open_spool(settings_from(config).delivery) as spool:
        folder = spool.folder
        counts = spool.counts()
        entries = [entry for entry in spool.entries() if state in (None, entry.state)]
    if as_json:
        rows = [
            {
                "destination": entry.destination,
                "instance": entry.uid,
                "state": entry.state,
                "priority": entry.filed.priority,
                "attempts": entry.attempts,
                "bytes": entry.size,
                "reason": entry.reason,
            }
            for entry in entries
        ]
        print_json({"folder": str(folder), "counts": counts, "entries": rows})
        return
    table = Table(box=None, title=str(folder), title_justify="left")
    for heading in ("destination", "state", "instances", "oldest", "last reason"):
        table.add_column(heading, overflow="fold")
    now = time.time()
    groups: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for entry in entries:
        groups.setdefault((entry.destination, entry.state), []).append((entry.queued, entry.reason or ""))
    for (destination, kind), rows_ in sorted(groups.items()):
        oldest = now - min(queued for queued, _ in rows_)
        reason = next((text for _, text in reversed(rows_) if text), "")
        table.add_row(destination, kind, str(len(rows_)), f"{oldest:.0f} s", reason)
    Console().print(table)


@command.command("retry")
@click.option("--to", "destination", metavar="DEST", help="Only this destination.")
@config_option
def retry_(destination: str | None, config: Path | None) -> int:
    """Revive dead instances and try everything that waits once more."""
    from recon_node.pipeline.queue import retry

    delivered, troubles = retry(settings_from(config).delivery, destination=destination)
    click.echo(f"{delivered} instances delivered")
    for trouble in troubles:
        click.echo(f"recon-node: {trouble}", err=True)
    return 1 if troubles else 0


@command.command("purge")
@click.option(
    "--state", type=click.Choice(["delivered", "dead", "all"]), default="delivered", show_default=True
)
@click.option("--to", "destination", metavar="DEST", help="Only this destination.")
@click.option("--yes", is_flag=True, help="Do not ask (dead and waiting instances exist nowhere else).")
@config_option
def purge(state: str, destination: str | None, yes: bool, config: Path | None) -> None:
    """Remove instances from the spool."""
    from recon_node.pipeline.queue import open_spool

    if state != "delivered" and not yes:
        click.confirm("Remove instances that were not delivered?", abort=True)
    states = [one for one in STATES if state in ("all", one)]
    with open_spool(settings_from(config).delivery) as spool:
        removed = sum(spool.purge(state=one, destination=destination) for one in states)
    click.echo(f"{removed} instances removed")

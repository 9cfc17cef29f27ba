"""``recon-node deferred``: look after scans whose reconstruction was deferred."""

from __future__ import annotations

from pathlib import Path

import click

from recon_node.cli.common import Group
from recon_node.cli.options import config_option, json_option, print_json, settings_from
from recon_node.mrd.captures import Captures
from recon_node.online.received import open_captures


@click.group("deferred", cls=Group, short_help="Look after deferred scans.")
def command() -> None:
    """Scans that a node reconstructs later: arriving, waiting, done, failed."""


@command.command("list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """What is deferred, oldest first."""
    jobs = [job for job in _scans(config).all() if job.kind == "deferred"]
    if as_json:
        names = ("scan_id", "state", "handed", "configuration", "reason")
        print_json([{name: getattr(job, name) for name in names} for job in jobs])
        return
    for job in jobs:
        handed = ", fetched" if job.handed else ""
        reason = f": {job.reason}" if job.reason else ""
        click.echo(f"{job.scan_id}  {job.state}{handed}{reason}")
    if not jobs:
        click.echo("nothing is deferred")


@command.command("retry")
@click.argument("scan_id", required=False, metavar="[ID]")
@config_option
def retry(scan_id: str | None, config: Path | None) -> None:
    """Let failed scans, or the one with ID, wait for a node again."""
    failed = [job for job in _scans(config).all() if job.state == "failed" and job.raw is not None]
    chosen = [job for job in failed if scan_id in (None, job.scan_id)]
    if scan_id is not None and not chosen:
        raise click.UsageError(f"no failed scan is called {scan_id!r}: see recon-node deferred list")
    for job in chosen:
        job.retry()
    click.echo(f"{len(chosen)} scans wait again")


def _scans(config: Path | None) -> Captures:
    return open_captures(settings_from(config))

"""``recon-node serve``: the MRD server that scanners connect to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_node.cli.options import WARNING, recon_options, setting_options, settings_from
from recon_node.settings import Settings


@click.command("serve", short_help="Run the MRD server that scanners connect to.")
@setting_options(
    "server.host", "server.port", "server.out", "server.health_port", "server.status_port", "server.frames"
)
@click.option("--to", "destination", metavar="DEST", help="Also deliver every series there.")
@recon_options
def command(
    destination: str | None,
    config: Path | None,
    **given: Any,
) -> int:
    """Reconstruct scans sent by FIRE, OpenRecon, Gadgetron or `recon-node send` until stopped.

    SIGTERM (exit 0) or Ctrl-C (exit 130): no new scan is taken, running ones may end (at most `drain_s` of
    the settings). SIGHUP: settings are read again, and the log file is opened anew. Images are not for
    clinical use until validated.
    """

    def read() -> Settings:
        to = {"to": None if destination is None else (destination,)}
        return settings_from(config, given, delivery=to)

    settings = read()
    from recon_node.online.log import setup_logging
    from recon_node.online.logfile import log_handler
    from recon_node.online.serve import serving
    from recon_node.online.signals import stopped_by_signals
    from recon_node.online.tending import tend
    from recon_node.settings.weak import weaknesses

    for weak in weaknesses(settings):
        click.echo(f"warning: {weak}", err=True)
    patients = setup_logging(settings.log.level, handler=log_handler(settings.log))
    with stopped_by_signals(reloads=True) as stop, serving(settings, patients=patients) as running:
        where = f"{settings.server.host}:{running.server.port}"
        click.echo(f"listening on {where}, images to {settings.server.out}. {WARNING}")
        if running.health_port is not None:
            click.echo(f"health: http://127.0.0.1:{running.health_port}/healthz")
        if running.ports.status_url is not None:
            click.echo(f"status: {running.ports.status_url}")
        tend(running, stop, read, patients)
        click.echo("stopping: running scans may end", err=True)
    return stop.exit_code

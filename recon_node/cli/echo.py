"""``recon-node echo``: check that a destination answers."""

from __future__ import annotations

from pathlib import Path

import click

from recon_node.cli.options import config_option, settings_from


@click.command("echo", short_help="Check that a destination answers.")
@click.argument("destination", metavar="DEST")
@config_option
def command(destination: str, config: Path | None) -> None:
    """C-ECHO to a DICOM node, a query to a STOW-RS server, a test file in a folder; says what is wrong."""
    from recon_node.pipeline.queue import open_destinations

    opened = open_destinations(settings_from(config).delivery, [destination])[destination]
    try:
        seconds = opened.echo()
    finally:
        opened.close()
    click.echo(f"{destination} answers after {1000 * seconds:.0f} ms")

"""``recon-node openrecon``: the description of an OpenRecon container."""

from __future__ import annotations

from pathlib import Path

import click

from recon_node.cli.options import config_option, print_json, settings_from
from recon_node.core.version import __version__


@click.group("openrecon", short_help="Write the description of an OpenRecon container.")
def command() -> None:
    """What Siemens OpenRecon wants to know of a container. Not for clinical use until validated."""


@command.command("label")
@click.option("--dockerfile", is_flag=True, help="Print the LABEL line for a Dockerfile.")
@config_option
def label(dockerfile: bool, config: Path | None) -> None:
    """The JSON label, generated from the settings' schema."""
    from recon_node.online.openrecon import dockerfile_line, openrecon_label, parameters_from_settings

    settings = settings_from(config)
    tree = openrecon_label(
        parameters_from_settings(settings),
        version=__version__,
        configurations=["default", *settings.server.configurations],
    )
    if dockerfile:
        click.echo(dockerfile_line(tree))
    else:
        print_json(tree)

"""``recon-node openrecon``: the description of an OpenRecon container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_node.cli.common import Group
from recon_node.cli.options import ANY_PATH, config_option, print_json, settings_from
from recon_node.core.version import __version__


@click.group("openrecon", cls=Group, short_help="Write the description of an OpenRecon container.")
def command() -> None:
    """What Siemens OpenRecon wants to know of a container. Not for clinical use until validated."""


@command.command("label")
@click.option("--dockerfile", is_flag=True, help="Print the LABEL line for a Dockerfile.")
@config_option
def label(dockerfile: bool, config: Path | None) -> None:
    """The JSON label, generated from the settings' schema."""
    from recon_node.online.openrecon import dockerfile_line

    tree = _tree(config)
    if dockerfile:
        click.echo(dockerfile_line(tree))
    else:
        print_json(tree)


@command.command("package")
@click.option("--out", required=True, type=ANY_PATH, help="Folder for the package.")
@click.option("--wheel", type=ANY_PATH, help="This package as a wheel, for the image; else pip finds it.")
@click.option("--image", type=ANY_PATH, help="The image, saved elsewhere by `docker save`: nothing is built.")
@config_option
def package(out: Path, wheel: Path | None, image: Path | None, config: Path | None) -> None:
    """What a scanner installs: label, Dockerfile, page, and the zip where docker (or --image) makes one."""
    from recon_node.online.openrecon_package import write_package

    made = write_package(out, _tree(config), wheel=wheel, image=image)
    if made.archive is not None:
        click.echo(f"{made.archive}: install this on the scanner. Not for clinical use until validated.")
        return
    click.echo(
        f"{made.dockerfile}: no docker here. Build elsewhere with `docker build --platform linux/amd64 "
        f"-t {made.tag} {out}`, `docker save -o image.tar {made.tag}`, then give --image image.tar"
    )


def _tree(config: Path | None) -> dict[str, Any]:
    from recon_node.online.openrecon import openrecon_label, parameters_from_settings

    settings = settings_from(config)
    return openrecon_label(
        parameters_from_settings(settings),
        version=__version__,
        configurations=["default", *settings.server.configurations],
    )

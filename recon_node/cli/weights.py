"""``recon-node weights``: list, verify and import network weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from recon_node.cli.options import ANY_PATH, WARNING, json_option, print_json

if TYPE_CHECKING:
    from recon_node.model.weights import LoadedWeights, WeightsInfo


@click.group("weights", short_help="List, verify and import network weights.")
def command() -> None:
    """Network weights. None is validated for clinical use."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Weights shipped with this installation."""
    from recon_node.model import list_weights

    found = [_entry(info) for info in list_weights()]
    if as_json:
        print_json(found)
        return
    table = Table(box=None)
    for heading in ("name", "variant", "cascades", "size", "text encoder", "sha256"):
        table.add_column(heading)
    for entry in found:
        table.add_row(
            entry["name"],
            entry["variant"],
            str(entry["cascades"]),
            f"{entry['bytes'] / 1e6:.1f} MB",
            entry["encoder"],
            entry["sha256"][:12],
        )
    Console().print(table)
    click.echo(WARNING)


@command.command("verify")
@click.argument("weights", default="default", metavar="[NAME|FILE]")
@json_option
def verify(weights: str, as_json: bool) -> None:
    """Load weights, check them against their own hash and manifest, and say what they are."""
    from recon_node.model import verify_weights

    report = _entry(verify_weights(weights), weights)
    if as_json:
        print_json(report)
        return
    for key, value in report.items():
        click.echo(f"{key}: {value}")


@command.command("import")
@click.argument("checkpoint", type=ANY_PATH, metavar="FILE")
@click.option("--out", type=ANY_PATH, help="File to write [FILE with the ending .safetensors].")
@click.option(
    "--encoder-folder",
    type=ANY_PATH,
    help="CLIP ViT-B/16 text tower (Hugging Face layout): compared with FILE's own, any other refused later.",
)
def import_(checkpoint: Path, out: Path | None, encoder_folder: Path | None) -> None:
    """Turn a published Lightning checkpoint (.ckpt) into safetensors with a manifest.

    Published CardioMM weights are for academic use only; nothing in the file is unpickled.
    """
    from recon_node.model.published import LICENCE, convert
    from recon_node.prompts.encoders.clip import ClipText

    encoder = None if encoder_folder is None else ClipText(encoder_folder)
    written = convert(checkpoint, out or checkpoint.with_suffix(".safetensors"), encoder=encoder)
    folder = encoder_folder or "FOLDER"
    click.echo(f"{written}: use it with --weights {written} --encoder-folder {folder}")
    click.echo(f"{LICENCE} {WARNING}")
    if encoder is None:
        click.echo("Its text tower was not compared with yours: import with --encoder-folder to do so.")


def _entry(weights: WeightsInfo | LoadedWeights, source: str | None = None) -> dict[str, Any]:
    from recon_node.model.weights import find_weights

    path = find_weights(source or weights.name)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "name": weights.name,
        "variant": weights.config.variant,
        "cascades": weights.config.cascades,
        "bytes": path.stat().st_size,
        "encoder": weights.encoder,
        "sha256": digest,
        "validated": weights.card.get("validated", False),
        "intended_use": weights.card.get("intended_use"),
    }

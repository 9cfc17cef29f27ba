"""``recon-node weights``: list, verify, import and calibrate network weights."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from recon_node.cli.common import Group
from recon_node.cli.options import (
    ANY_PATH,
    WARNING,
    config_option,
    json_option,
    numbers,
    print_json,
    progress,
    setting_options,
    settings_from,
    words,
)
from recon_node.core.errors import WeightsError
from recon_node.settings.kinds import names_a_file

if TYPE_CHECKING:
    from recon_node.model.weights import LoadedWeights, WeightsInfo


@click.group("weights", cls=Group, short_help="List, verify, import and calibrate network weights.")
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
    _see_file(weights)
    from recon_node.model import verify_weights

    report = _entry(verify_weights(weights), weights)
    if as_json:
        print_json(report)
        return
    for key, value in report.items():
        click.echo(f"{key}: {value}")


def _see_file(weights: str) -> None:
    """Raise `WeightsError` at once where weights are a file that is not there."""
    if names_a_file(weights) and not Path(weights).is_file():
        raise WeightsError(f"{weights}: no such weights file")


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
    if not checkpoint.is_file():
        raise WeightsError(f"{checkpoint}: no such checkpoint")
    from recon_node.model.published import LICENCE, convert
    from recon_node.prompts.encoders.clip import ClipText

    encoder = None if encoder_folder is None else ClipText(encoder_folder)
    written = convert(checkpoint, out or checkpoint.with_suffix(".safetensors"), encoder=encoder)
    folder = encoder_folder or "FOLDER"
    click.echo(f"{written}: use it with --weights {written} --encoder-folder {folder}")
    click.echo(f"{LICENCE} {WARNING}")
    if encoder is None:
        click.echo("Its text tower was not compared with yours: import with --encoder-folder to do so.")


@command.command("calibrate")
@click.argument("weights", default="default", metavar="[NAME|FILE]")
@click.option("--scans", type=click.IntRange(1), default=7, show_default=True, help="Hearts a condition.")
@click.option("--modalities", default="cine", callback=words, show_default=True)
@click.option("--patterns", default="uniform,random,radial", callback=words, show_default=True)
@click.option("--accelerations", default="4,8,16,24", callback=numbers, show_default=True)
@click.option("--matrix", type=click.IntRange(32), default=128, show_default=True)
@click.option("--phases", type=click.IntRange(1), default=12, show_default=True)
@click.option("--seed", type=int, default=1000, show_default=True)
@click.option(
    "--hearts", type=ANY_PATH, metavar="FOLDER", help="Real hearts as well: cines (npz, DICOM, NIfTI)."
)
@click.option(
    "--only", multiple=True, metavar="NAME", help="With --hearts: only clips with this in their name."
)
@setting_options("recon.encoder_folder")
@click.option("--out", type=ANY_PATH, help="File to write [beside the weights: FILE with .limits.json].")
@config_option
@json_option
def calibrate_(
    weights: str,
    out: Path | None,
    config: Path | None,
    as_json: bool,
    hearts: Path | None,
    only: tuple[str, ...],
    **plan: Any,
) -> None:
    """Measure trust limits for weights on simulated and on real hearts, and how well they tell good from bad.

    The node reads the file beside the weights. A reconstruction is good where it is at least as near to
    the truth as the fallback's. Limits of other weights are refused, so this is to be run after training.
    With enough real hearts the file also holds an error model, from which a bound of PSNR and SSIM is told.
    """
    from recon_node.lab.cines import read_cines
    from recon_node.lab.evaluation.hearts import unseen
    from recon_node.lab.evaluation.heldout import Study
    from recon_node.lab.evaluation.limits import Scanned, calibrated, others
    from recon_node.lab.failures.fit import LEAST_REAL, clean_record, with_bounds
    from recon_node.methods.cardiomm import limits_file
    from recon_node.methods.registry import make_methods
    from recon_node.model.weights import load_weights
    from recon_node.trust import save_limits

    say = functools.partial(click.echo, err=True)
    folder = {"recon__encoder_folder": plan.pop("recon__encoder_folder")}
    settings = settings_from(config, folder, recon={"weights": weights})
    path = out or limits_file(weights)
    modalities = plan.pop("modalities")
    studies = [Study(methods=(), modality=modality, **plan) for modality in modalities]
    methods = make_methods(dataclasses.replace(settings.recon, method="cardiomm"), limits=False)
    total = sum(study.conditions * study.scans for study in (*studies, *others(studies)))
    cines = [] if hearts is None else read_cines(hearts, only=only, tell=say)
    if cines:
        cines = unseen(cines, settings.recon, tell=say)
        total += len(cines)
    with progress("measuring", total) as advance:

        def report(one: Scanned) -> None:
            advance(1, f"{one.group}, {one.condition}")

        sha256 = load_weights(weights).sha256
        done = calibrated(studies, methods, weights_sha256=sha256, cines=cines, report=report)
    limits, found = done.limits, done.outcomes
    real = sum(one.heart is not None for one in done.made_of)
    if real >= LEAST_REAL:
        limits = with_bounds(limits, [clean_record(one) for one in done.made_of])
    save_limits(limits, path)
    if as_json:
        weak = sorted(limits.weak_patterns)
        print_json({"file": str(path), "weak": weak, "outcomes": [dataclasses.asdict(one) for one in found]})
        return
    click.echo(f"{path}: limits of {', '.join(limits.groups) or 'all groups together'}")
    click.echo(f"below the fallback on average: {', '.join(sorted(limits.weak_patterns)) or 'nowhere'}")
    click.echo(f"made of {' and '.join(limits.hearts)}")
    if limits.errors is None:
        told = f"{real} real hearts made limits, {LEAST_REAL} are needed (--hearts)"
        click.echo(f"no bound of the error, as drawn hearts promise nothing for a scanner's: {told}")
    for one in found:
        kind = "as good as the fallback's" if one.good else "worse than the fallback's"
        counts = f"{one.passed} passed, {one.warned} warned of, {one.withheld} withheld"
        click.echo(f"other hearts, image {kind}: {counts}")


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

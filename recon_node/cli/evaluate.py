"""``recon-node evaluate``: measure reconstructions against a known truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from recon_node.cli.common import Group
from recon_node.cli.evaluate_ablation import command as ablation
from recon_node.cli.evaluate_biomarkers import command as biomarkers
from recon_node.cli.evaluate_hearts import beside, compare_real, show
from recon_node.cli.evaluate_measured import command as measured
from recon_node.cli.evaluate_readers import command as readers
from recon_node.cli.evaluate_trust import command as trust
from recon_node.cli.evaluate_zero_shot import command as zero_shot
from recon_node.cli.options import (
    ANY_PATH,
    json_option,
    method_names,
    network_options,
    numbers,
    print_json,
    progress,
    settings_from,
    words,
)
from recon_node.methods.table import BUILT_IN

if TYPE_CHECKING:
    from recon_node.settings import ReconSettings


@click.group(
    "evaluate",
    cls=Group,
    invoke_without_command=True,
    short_help="Measure reconstructions against a known truth.",
)
@click.option("--methods", default=",".join(sorted(BUILT_IN)), callback=method_names, show_default=True)
@click.option("--patterns", default="random,uniform", callback=words, show_default=True)
@click.option("--accelerations", default="4,8,16", callback=numbers, show_default=True)
@click.option(
    "--scans",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Hearts, the same in every condition.",
)
@click.option("--phases", type=click.IntRange(1), default=25, show_default=True)
@click.option("--matrix", type=click.IntRange(32), default=128, show_default=True)
@click.option("--coils", type=click.IntRange(1), default=8, show_default=True)
@click.option("--modality", default="cine", show_default=True)
@click.option("--vendor", help="Only scanners of this vendor.")
@click.option("--field", "field_t", type=float, metavar="TESLA", help="Only this field strength.")
@click.option(
    "--breathing", "breathing_mm", type=click.FloatRange(0), metavar="MM", help="Amplitude of the breathing."
)
@click.option(
    "--arrhythmia", type=click.FloatRange(0, 0.2), help="Beat jitter as a fraction of the RR interval."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--hearts",
    type=ANY_PATH,
    metavar="FOLDER",
    help="Real hearts: cines (npz, DICOM, NIfTI) made scans by giving them coils, a phase and noise.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="With --hearts: only clips with this in their name.",
)
@click.option("--leave-out", multiple=True, metavar="NAME", help="With --hearts: without such clips.")
@click.option("--snr", type=click.FloatRange(0, min_open=True), help="With --hearts: of blood [drawn].")
@click.option(
    "--rivals",
    type=click.Choice(["bart"]),
    multiple=True,
    help="With --hearts: also BART's k-t total variation (needs the command `bart`).",
)
@click.option(
    "--out",
    type=ANY_PATH,
    metavar="FOLDER",
    help="With --hearts: keep results there (a stopped run goes on), and tables (.md, .csv, .json).",
)
@click.option("--report", "page", type=ANY_PATH, metavar="FILE.html", help="Also write a page to look at.")
@network_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    hearts: Path | None,
    only: tuple[str, ...],
    leave_out: tuple[str, ...],
    snr: float | None,
    *,
    rivals: tuple[str, ...],
    out: Path | None,
    config: Path | None,
    page: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare methods on hearts that no network was trained on: simulated ones, or real ones (--hearts).

    PSNR, SSIM and NMSE per frame, in the unit of the k-space, mean over frames and hearts. Real hearts are
    judged in the 64 x 64 pixels around the heart as well; unless --patterns or --accelerations are given, at
    uniform 8x, random 8x, random 16x and radial 16x, with methods sense, kt and cardiomm.
    """
    if context.invoked_subcommand is not None:
        _alone(context)
        return
    network = {name: options.pop(name) for name in list(options) if "__" in name}
    method = network["recon__method"]
    settings = settings_from(config, network)
    given = {name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    chosen = (method,) if method is not None else options.pop("methods")
    options.pop("methods", None)
    if hearts is None:
        if rivals or out is not None:
            raise click.UsageError("--rivals and --out go with --hearts")
        _drawn(settings.recon, chosen, options, page=page, as_json=as_json)
        return
    if method is None and "methods" not in given:
        chosen = ("sense", "kt", "cardiomm")
    kept = {name: options[name] for name in given if name in options}
    kept |= {"snr": snr, "seed": options["seed"]}
    clips = {"only": only, "leave_out": leave_out}
    methods = beside(chosen, rivals)
    compare_real(settings.recon, hearts, clips, methods, kept, out=out, page=page, as_json=as_json)


def _alone(context: click.Context) -> None:
    """Refuse options before a study's name: they are the comparison's, and would be lost.

    Raises
    ------
    UsageError
        There were some.
    """
    given = [
        max(one.opts, key=len)
        for one in context.command.params
        if one.name and context.get_parameter_source(one.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        study = context.invoked_subcommand
        raise click.UsageError(f"{', '.join(given)} before {study}: options of a study follow its name")


def _drawn(
    recon: ReconSettings,
    methods: tuple[str, ...],
    options: dict[str, Any],
    *,
    page: Path | None,
    as_json: bool,
) -> None:
    from recon_node.lab.evaluation.heldout import Study, run_study
    from recon_node.lab.evaluation.studies import table

    study = Study(methods=methods, **options)
    with progress("reconstructing", study.total) as advance:
        results = run_study(
            study, recon, report=lambda result: advance(1, f"{result.condition} {result.method}")
        )
    rows = table(results)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
    show(
        "Methods compared on drawn hearts",
        ("condition", "method", "hearts", "PSNR dB", "sd", "SSIM", "NMSE"),
        [
            (
                row.condition,
                row.method,
                str(row.scans),
                f"{row.psnr:.2f}",
                f"{row.psnr_sd:.2f}",
                f"{row.ssim:.4f}",
                f"{row.nmse:.4f}",
            )
            for row in rows
        ],
        page=page,
        quiet=as_json,
    )


command.add_command(measured)
command.add_command(trust)
command.add_command(readers)
command.add_command(biomarkers)
command.add_command(zero_shot)
command.add_command(ablation)

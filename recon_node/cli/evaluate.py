"""``recon-node evaluate``: measure reconstructions against a known truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from recon_node.cli.options import (
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


@click.command("evaluate", short_help="Measure reconstructions against a known truth.")
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
@network_options
@json_option
def command(config: Path | None, as_json: bool, **options: Any) -> None:
    """Compare methods on simulated hearts that no network was trained on.

    PSNR, SSIM and NMSE per frame, in the unit of the k-space, mean over frames and hearts.
    """
    from recon_node.lab.evaluation.heldout import Study, run_study
    from recon_node.lab.evaluation.studies import table

    given = {name: options.pop(name) for name in list(options) if "__" in name}
    method = given["recon__method"]
    settings = settings_from(config, given)
    methods = (method,) if method is not None else options.pop("methods")
    options.pop("methods", None)
    study = Study(methods=methods, **options)
    with progress("reconstructing", study.total) as advance:
        results = run_study(
            study, settings.recon, report=lambda result: advance(1, f"{result.condition} {result.method}")
        )
    rows = table(results)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
        return
    shown = Table(box=None)
    for heading in ("condition", "method", "hearts", "PSNR dB", "sd", "SSIM", "NMSE"):
        shown.add_column(heading, justify="left" if heading in ("condition", "method") else "right")
    for row in rows:
        shown.add_row(
            row.condition,
            row.method,
            str(row.scans),
            f"{row.psnr:.2f}",
            f"{row.psnr_sd:.2f}",
            f"{row.ssim:.4f}",
            f"{row.nmse:.4f}",
        )
    Console().print(shown)

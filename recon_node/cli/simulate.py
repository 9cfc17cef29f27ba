"""``recon-node simulate``: raw data as a scanner would send it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from recon_node.cli.options import ANY_PATH, progress
from recon_node.core.durable import writing_path


@click.command("simulate", short_help="Write raw data as a scanner would send it.")
@click.argument("output", type=ANY_PATH, metavar="OUT.h5")
@click.option(
    "--acceleration",
    type=click.FloatRange(min=1),
    default=8.0,
    show_default=True,
    help="Outside the ACS lines.",
)
@click.option(
    "--pattern", type=click.Choice(["uniform", "random", "radial"]), default="random", show_default=True
)
@click.option("--coils", type=click.IntRange(1, 64), default=8, show_default=True)
@click.option("--slices", type=click.IntRange(1, 64), default=3, show_default=True)
@click.option("--phases", type=click.IntRange(1, 200), default=25, show_default=True)
@click.option(
    "--matrix",
    type=click.IntRange(32, 512),
    default=128,
    show_default=True,
    help="Rows and columns of the image.",
)
@click.option(
    "--field", type=float, default=3.0, show_default=True, metavar="TESLA", help="0.55, 1.5, 3.0 or 5.0."
)
@click.option("--vendor", default="Siemens", show_default=True, help="Siemens, GE, Philips or UIH.")
@click.option(
    "--modality", default="cine", show_default=True, help="cine, T1 mapping, late Gadolinium enhancement, ..."
)
@click.option(
    "--heart",
    type=click.Choice(["plain", "detailed"]),
    default="plain",
    show_default=True,
    help="detailed: as hard to reconstruct as real ones.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same heart.")
@click.option(
    "--truth", type=ANY_PATH, metavar="T.h5", help="Also write the true images, maps and LV volumes."
)
def command(output: Path, **options: Any) -> None:
    """Write a beating heart to OUT.h5 (ISMRMRD): noise scan, oversampling, ACS lines, a full header."""
    from recon_node.simulate import simulate_scan

    truth = options.pop("truth")
    with ExitStack() as stack:
        options["truth"] = None if truth is None else stack.enter_context(writing_path(truth))
        file = stack.enter_context(writing_path(output))
        advance = stack.enter_context(progress("drawing slices", options["slices"]))
        simulate_scan(file, report=advance, **options)
    click.echo(f"{output}: {options['slices']} slices, {options['acceleration']:g}x {options['pattern']}")
    if truth is not None:
        click.echo(f"{truth}: the truth")

"""``recon-node evaluate measured``: methods on measured k-space, scored on samples they were not given."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

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

_METHODS = "sense,l1-wavelet,kt,cardiomm"


@click.command("measured")
@click.argument("files", nargs=-1, required=True, type=ANY_PATH, metavar="FILE...")
@click.option("--methods", default=_METHODS, callback=method_names, show_default=True)
@click.option("--patterns", default="uniform,random", callback=words, show_default=True)
@click.option("--accelerations", default="4,8", callback=numbers, show_default=True)
@click.option("--frames", is_flag=True, help="The first of an array's four axes is time, not slices.")
@click.option("--slices", type=click.IntRange(1), help="At most so many of each file.")
@click.option("--seed", type=int, default=0, show_default=True)
@network_options
@json_option
def command(
    files: tuple[Path, ...],
    methods: tuple[str, ...],
    patterns: tuple[str, ...],
    accelerations: tuple[float, ...],
    *,
    frames: bool,
    slices: int | None,
    seed: int,
    config: Path | None,
    as_json: bool,
    **network: Any,
) -> None:
    """Compare methods on measured k-space without a truth.

    FILE is raw data, or an array (.npy, .npz): (coil, ky, kx) or (slice, coil, ky, kx), complex or with a
    last axis of 2. Fully sampled data is undersampled, of other data a quarter of the samples outside the
    calibration block is held back. Shown is the error of the samples that were not given, as each image
    predicts them through the coil maps, over their norm: in all and by band of k-space, from the centre
    outwards. 1 is what an empty image has. Method kt needs a time axis.
    """
    from recon_node.lab.evaluation.measured import BANDS, Score, compare

    settings = settings_from(config, network)
    chosen = methods if network["recon__method"] is None else (network["recon__method"],)
    with progress("reconstructing", None) as advance:

        def report(one: Score) -> None:
            advance(1, f"{one.name} {one.condition} {one.method}")

        found = compare(
            files,
            chosen,
            settings.recon,
            frames=frames,
            conditions=[(pattern, rate) for pattern in patterns for rate in accelerations],
            slices=slices,
            seed=seed,
            report=report,
        )
    if as_json:
        print_json({"bands": list(BANDS), "scores": [dataclasses.asdict(one) for one in found]})
        return
    table = Table(box=None)
    for heading in ("slice", "sampling", "method"):
        table.add_column(heading, overflow="fold")
    for heading in ("error", *(f"to {end:g}" for end in BANDS)):
        table.add_column(heading, justify="right")
    for one in found:
        bands = ("" if value is None else f"{value:.3f}" for value in one.bands)
        table.add_row(one.name, one.condition, one.method, f"{one.error:.3f}", *bands)
    Console().print(table)

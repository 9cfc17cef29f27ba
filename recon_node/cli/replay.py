"""``recon-node replay``: raw data files to DICOM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_node.cli.options import (
    ANY_PATH,
    json_option,
    prep_options,
    print_json,
    progress,
    recon_options,
    settings_from,
)
from recon_node.core.errors import shown

if TYPE_CHECKING:
    from recon_node.offline.replay import FileResult


@click.command("replay", short_help="Reconstruct raw data files to DICOM.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", required=True, type=ANY_PATH, help="Folder for DICOM files and summary.json.")
@recon_options
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do the work.")
@click.option("--resume", is_flag=True, help="Leave out inputs an earlier replay to this folder finished.")
@click.option(
    "--to",
    "destination",
    metavar="DEST",
    help="Also deliver: a configured name, dicom://AET@host:port, a STOW-RS URL or a folder.",
)
@prep_options
@json_option
def command(
    inputs: tuple[str, ...],
    out: Path,
    workers: int,
    scheduler: str | None,
    resume: bool,
    destination: str | None,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Reconstruct INPUTs (files, folders or globs; HDF5 or MRD stream) to DICOM.

    Writes OUT/<study>/<series>/*.dcm and OUT/summary.json. Exit 1 if any input failed; the others are
    reconstructed all the same. Images are not for clinical use until validated.
    """
    from recon_node.cli.export import check_destination, export_and_report
    from recon_node.offline.replay import SUMMARY, find_inputs, replay

    settings = settings_from(config, given)
    paths = find_inputs(inputs)
    if destination is not None:
        check_destination(destination, settings.delivery)
    with progress("reconstructing", len(paths)) as advance:

        def report(result: FileResult) -> None:
            advance(1, shown(result.path.name))
            if result.error is not None:
                click.echo(f"recon-node: {result.error}", err=True)
            elif result.left_out is not None:
                click.echo(f"note: {shown(result.path.name)} left out: {result.left_out}", err=True)

        results = replay(
            paths, out, settings, workers=workers, scheduler=scheduler, resume=resume, report=report
        )
    entries = [entry for result in results for entry in result.series]
    failed = [result for result in results if result.error is not None]
    left_out = [result for result in results if result.left_out is not None]
    if as_json:
        print_json(
            {
                "series": entries,
                "errors": [result.error for result in failed],
                "left_out": [f"{shown(result.path)}: {result.left_out}" for result in left_out],
            }
        )
    else:
        for result in results:
            _tell(result)
        whole = f"{len(results) - len(failed) - len(left_out)} of {len(results)} files"
        click.echo(f"{len(entries)} series from {whole}: {out / SUMMARY}")
    code = 1 if failed or len(left_out) == len(results) else 0
    if destination is not None and entries:
        made = dict.fromkeys(out / folder for entry in entries for folder in entry["folders"])
        code |= export_and_report(list(made), destination, settings.delivery)
    return code


def _tell(result: FileResult) -> None:
    """A line for each series, with what speaks against it; what was assumed about the file, once."""
    name = shown(result.path.name)
    for entry in result.series:
        sampling, verdict = entry["sampling"], entry["trust"]["verdict"]
        counters = [
            f"{name} {value}" for name, value in entry["index"].items() if name == "slice" or value > 0
        ]
        click.echo(
            f"{name} {', '.join(counters)}: {entry['phases']} images by {entry['method']}, "
            f"{sampling['acceleration']:g}x {sampling['pattern']}, trust {verdict}"
        )
        for reason in entry["trust"]["reasons"]:
            click.echo(f"    {reason}")
    for note in dict.fromkeys(note for entry in result.series for note in entry["notes"]):
        click.echo(f"note: {note}")

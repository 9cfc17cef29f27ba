"""``recon-node replay``: raw data files to DICOM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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
    from recon_node.core.scan import SliceIndex
    from recon_node.offline.job import Extras, FileResult
    from recon_node.settings import Settings


@click.command("replay", short_help="Reconstruct raw data files to DICOM.")
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("--out", required=True, type=ANY_PATH, help="Folder for DICOM files and summary.json.")
@recon_options
@click.option(
    "--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes of this machine."
)
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do it in their place.")
@click.option("--resume", is_flag=True, help="Leave out slices an earlier replay to this folder finished.")
@click.option(
    "--undersample",
    metavar="R:PATTERN",
    help="Take lines of fully sampled data away, such as 8x:random, and measure what that costs.",
)
@click.option("--report", "pages", is_flag=True, help="Also write pages to look at: OUT/report/index.html.")
@click.option("--nifti", is_flag=True, help="Also write NIfTI with BIDS-like names, in OUT/nifti.")
@click.option(
    "--from-ledger",
    "listed",
    metavar="FILE|-",
    help="Slices that `ledger query` printed (a file, or - for standard input), in place of INPUTs.",
)
@click.option("--watch", "watching", is_flag=True, help="INPUTs are folders: do what appears in them.")
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
    undersample: str | None,
    pages: bool,
    nifti: bool,
    listed: str | None,
    watching: bool,
    destination: str | None,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Reconstruct INPUTs (files, folders or globs; HDF5 or MRD stream) to DICOM.

    Writes OUT/<study>/<series>/*.dcm, OUT/summary.json and OUT/ledger.sqlite. Exit 1 if any input failed; the
    others are reconstructed all the same. Images are not for clinical use until validated.
    """
    from recon_node.cli.export import check_destination
    from recon_node.offline.inputs import announced, find_inputs

    if bool(inputs) is (listed is not None):
        raise click.UsageError("give INPUTs, or --from-ledger in their place")
    settings = settings_from(config, given)
    if destination is not None:
        check_destination(destination, settings.delivery)
    only = None if listed is None else _listed(listed)
    paths, missing = (list(only), []) if only is not None else find_inputs(inputs, folders=watching)
    for line in missing:
        click.echo(f"recon-node: {line}", err=True)
    if workers > 1 and scheduler is None and not watching:
        from recon_node.offline.forks import begin

        begin()
    extras = _extras(undersample, settings, pages=pages, nifti=nifti)  # torch, from here on
    if watching:
        with _told_how_to_go_on("the same command"):
            return _watch(paths, out, settings, extras, destination)
    from recon_node.offline.replay import replay

    total = announced(paths, settings.prep.group) if only is None else sum(map(len, only.values()))
    again = "the same command" if resume else "the same command with --resume"
    with _told_how_to_go_on(again), progress("reconstructing slices", total) as advance:

        def report(result: FileResult) -> None:
            advance(result.skipped, shown(result.path.name))
            _tell_trouble(result)

        results = replay(
            paths,
            out,
            settings,
            workers=workers,
            scheduler=scheduler,
            resume=resume,
            only=only,
            extras=extras,
            report=report,
            progress=advance,
        )
    code = _summary(results, out, as_json=as_json)
    if pages:
        from recon_node.offline.pages import write_index

        click.echo(f"pages to look at: {write_index(out)}", err=as_json)
    return code | bool(missing) | _deliver(results, out, destination, settings)


@contextmanager
def _told_how_to_go_on(command: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end with a line that says so."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise type(stopped)(f"{command} goes on where it stopped") from None


def _listed(name: str) -> dict[Path, frozenset[SliceIndex]]:
    from recon_node.offline.ledger import read_listed

    return read_listed(name)


def _extras(undersample: str | None, settings: Settings, *, pages: bool, nifti: bool) -> Extras:
    from recon_node.offline.job import Extras

    extras = Extras(nifti=nifti)
    if pages:
        from recon_node.offline.pages import has_page, report_slice

        tell = partial(report_slice, options=settings.recon, fallback=settings.recon.fallback)
        extras = replace(extras, on_slice=tell, was_told=has_page)
    if undersample is not None:
        from recon_node.lab.evaluation.metrics import figures
        from recon_node.offline.undersample import parse_undersampling

        extras = replace(extras, undersample=parse_undersampling(undersample), measure=figures)
    return extras


def _watch(
    folders: list[Path], out: Path, settings: Settings, extras: Extras, destination: str | None
) -> int:
    from recon_node.offline.watch import watch

    click.echo(f"watching {', '.join(map(str, folders))}; Ctrl-C ends", err=True)

    def report(result: FileResult) -> None:
        _tell_trouble(result)
        _tell(result)

    def deliver(results: list[FileResult]) -> None:
        if extras.on_slice is not None:
            from recon_node.offline.pages import write_index

            write_index(out)
        _deliver(results, out, destination, settings)

    watch(folders, out, settings, deliver=deliver, extras=extras, report=report)
    return 0


def _tell_trouble(result: FileResult) -> None:
    if result.error is not None:
        click.echo(f"recon-node: {result.error}", err=True)
    elif result.left_out is not None:
        click.echo(f"note: {shown(result.path.name)} left out: {result.left_out}", err=True)


def _summary(results: list[FileResult], out: Path, *, as_json: bool) -> int:
    from recon_node.offline.replay import SUMMARY

    entries = [entry for result in results for entry in result.series]
    failed = [result for result in results if result.error is not None]
    left_out = [result for result in results if result.left_out is not None]
    skipped = sum(result.skipped for result in results)
    if as_json:
        print_json(
            {
                "series": entries,
                "skipped": skipped,
                "errors": [result.error for result in failed],
                "left_out": [f"{shown(result.path)}: {result.left_out}" for result in left_out],
            }
        )
    else:
        for result in results:
            _tell(result)
        whole = f"{len(results) - len(failed) - len(left_out)} of {len(results)} files"
        before = f", {skipped} skipped as finished before" if skipped else ""
        click.echo(f"{len(entries)} series from {whole}{before}: {out / SUMMARY}")
    return 1 if failed or len(left_out) == len(results) else 0


def _deliver(results: list[FileResult], out: Path, destination: str | None, settings: Settings) -> int:
    from recon_node.cli.export import export_and_report

    folders = dict.fromkeys(
        out / folder
        for result in results
        for entry in result.series
        if not entry["trust"].get("held")
        for folder in entry["folders"]
    )
    if destination is None or not folders:
        return 0
    return export_and_report(list(folders), destination, settings.delivery)


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
        if (expected := entry["trust"].get("expected")) is not None:
            click.echo(f"    {expected['said']}")
        for reason in entry["trust"]["reasons"]:
            click.echo(f"    {reason}")
        for method, found in entry.get("metrics", {}).items():
            words = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            click.echo(f"    {method} against the full reconstruction: {words}")
    for note in dict.fromkeys(note for entry in result.series for note in entry["notes"]):
        click.echo(f"note: {note}")

"""``recon-node stream``: raw data from a pipe, images into a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from recon_node.cli.options import (
    ANY_PATH,
    WARNING,
    prep_options,
    recon_options,
    setting_options,
    settings_from,
)
from recon_node.core.errors import SourceError


@click.command("stream", short_help="Reconstruct a stream of raw data to a stream of images.")
@click.option(
    "--input",
    "input_",
    default="-",
    show_default=True,
    metavar="FILE|-",
    help="Raw data; - is standard input.",
)
@click.option(
    "--output", default="-", show_default=True, metavar="FILE|-", help="Images; - is standard output."
)
@click.option(
    "--format",
    "protocol",
    type=click.Choice(["ismrmrd", "mrd2"]),
    help="Protocol of the images; that of the raw data by default.",
)
@click.option(
    "--noise", type=ANY_PATH, metavar="FILE", help="Noise scan that came apart, or its covariance (.npy)."
)
@click.option("--out", type=ANY_PATH, metavar="DIR", help="Also write DICOM here.")
@click.option("--to", "destination", metavar="DEST", help="Also deliver the DICOM, as `export` does.")
@recon_options
@prep_options
@setting_options("server.frames")
def command(
    input_: str,
    output: str,
    protocol: Any,
    noise: Path | None,
    out: Path | None,
    destination: str | None,
    config: Path | None,
    **given: Any,
) -> int:
    """Reconstruct one scan from a pipe to a pipe: ISMRMRD stream or MRD 2 in, images of the same out.

    Images leave slice by slice while raw data still arrives; what goes on is told on standard error. Exit 1
    where anything of the scan was lost; whole slices leave all the same.
    """
    from recon_node.cli.export import check_destination, export_and_report

    settings = settings_from(config, given)
    if destination is not None:
        check_destination(destination, settings.delivery)
        out = out or Path(settings.server.out).expanduser()
    click.echo(WARNING, err=True)
    with ExitStack() as stack:
        source = _opened(stack, input_, "rb", sys.stdin.buffer)
        standard = stack.enter_context(_for_images_alone()) if output == "-" else sys.stdout.buffer
        sink = _opened(stack, output, "wb", standard)
        if sink.isatty():
            raise click.UsageError("standard output is a terminal: give --output FILE, or a pipe")
        from recon_node.online.stream import reconstruct_stream

        summary = reconstruct_stream(
            source,
            sink,
            settings,
            protocol=protocol,
            noise=noise,
            out=out,
            say=lambda line: click.echo(line, err=True),
        )
    code = 0
    if destination is not None and summary.folders:
        code = export_and_report(sorted(summary.folders), destination, settings.delivery, told_on_stderr=True)
    if summary.error is not None:
        raise summary.error
    return code


def _opened(stack: ExitStack, name: str, mode: str, standard: BinaryIO) -> BinaryIO:
    if name == "-":
        return standard
    try:
        return cast("BinaryIO", stack.enter_context(Path(name).open(mode)))
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror}") from error


@contextmanager
def _for_images_alone() -> Iterator[BinaryIO]:
    """Standard output; what else is printed meanwhile, by other packages too, goes to standard error."""
    out = sys.stdout.buffer
    with redirect_stdout(sys.stderr):
        try:
            number = out.fileno()
        except OSError:  # no file
            yield out
            return
        out.flush()
        with os.fdopen(os.dup(number), "wb") as own:
            os.dup2(sys.stderr.fileno(), number)
            try:
                yield own
            finally:
                os.dup2(own.fileno(), number)

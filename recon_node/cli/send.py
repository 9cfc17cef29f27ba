"""``recon-node send``: an MRD client."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import click

from recon_node.cli.options import ANY_PATH, json_option, print_json, progress
from recon_node.core.errors import one_line, shown


def _properties(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if any(not name or not equals for name, equals, _ in pairs):
        raise click.BadParameter(f"found {', '.join(values)}, expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _tls(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    from recon_node.core.tls import client_tls

    if ca is None and (certificate or key):
        raise click.UsageError("--tls-certificate and --tls-key need --tls-ca")
    if (certificate is None) is not (key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    return None if ca is None else client_tls(ca, certificate=certificate, key=key)


@click.command("send", short_help="Send a raw data file to an MRD server and keep the images.")
@click.argument("input", type=ANY_PATH, metavar="INPUT")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=9002, show_default=True)
@click.option(
    "--config", default="default", show_default=True, metavar="NAME", help="Configuration to ask for."
)
@click.option(
    "--property",
    "properties",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_properties,
    help="Parameter of the configuration, for example method=sense; may be given several times.",
)
@click.option("--group", help="Dataset to send of an HDF5 file that holds several.")
@click.option("--out", type=ANY_PATH, metavar="IMAGES.h5", help="Keep the images that come back.")
@click.option("--realtime", is_flag=True, help="Keep the pace of the acquisition time stamps.")
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, help="Seconds of silence of the server."
)
@click.option("--tls-ca", type=ANY_PATH, help="Speak TLS, with servers that this authority signed.")
@click.option("--tls-certificate", type=ANY_PATH, help="Certificate to show to a server that asks for one.")
@click.option("--tls-key", type=ANY_PATH, help="Its private key.")
@json_option
def command(
    input: Path,  # noqa: A002 - the argument's name
    host: str,
    port: int,
    config: str,
    properties: dict[str, str],
    group: str | None,
    out: Path | None,
    realtime: bool,
    timeout: float,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    as_json: bool,
) -> int:
    """Send INPUT (ISMRMRD HDF5 or MRD stream) as a scanner would.

    Exit 1 if the server reports an error, or sends nothing back.
    """
    from recon_node.offline.send import send_scan

    with progress("images", None) as advance:
        summary = send_scan(
            input,
            host=host,
            port=port,
            config=config,
            properties=properties,
            out=out,
            dataset=group,
            realtime=realtime,
            timeout=timeout,
            tls=_tls(tls_ca, tls_certificate, tls_key),
            on_image=lambda image: advance(1),
            on_text=lambda text: _tell(text, advance, quiet=as_json),
        )
    for text in summary.errors:
        click.echo(f"recon-node: the server reports: {text}", err=True)
    for text in summary.warnings:
        click.echo(f"warning: {text}", err=True)
    if as_json:
        names = (
            "readouts",
            "images",
            "errors",
            "warnings",
            "texts",
            "closed",
            "seconds",
            "first_image_seconds",
        )
        print_json({name: getattr(summary, name) for name in names})
    else:
        kept = "" if out is None else f", kept in {shown(out)}" if summary.images else ", nothing was written"
        click.echo(
            f"{summary.readouts} readouts sent, {summary.images} images back in {summary.seconds:.1f} s{kept}"
        )
    if not summary.images and not summary.errors:
        click.echo("recon-node: the server sent no image back", err=True)
    return 0 if summary.ok and summary.images else 1


def _tell(text: str, advance: Callable[..., None], *, quiet: bool) -> None:
    """Show a text of the server: beside the bar of a terminal, otherwise on a line of its own."""
    advance(0, text)
    if not quiet and not sys.stderr.isatty() and not text.startswith(("ERR", "WRN", "WARNING")):
        click.echo(f"server: {one_line(text)}", err=True)

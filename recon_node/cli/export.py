"""``recon-node export``: queue DICOM files and deliver them."""

from __future__ import annotations

from pathlib import Path

import click

from recon_node.cli.options import ANY_PATH, config_option, json_option, print_json, progress, settings_from
from recon_node.settings import DeliverySettings


@click.command("export", short_help="Queue DICOM files and deliver them.")
@click.argument("folders", nargs=-1, required=True, type=ANY_PATH, metavar="DIR...")
@click.option(
    "--to",
    "destination",
    required=True,
    metavar="DEST",
    help="A configured name, dicom://AET@host:port, dicoms:// (TLS), a STOW-RS URL or a folder.",
)
@config_option
@json_option
def command(folders: tuple[Path, ...], destination: str, config: Path | None, as_json: bool) -> int:
    """Queue the DICOM files below each DIR and deliver them to DEST.

    Files already delivered to DEST are not sent twice, so an export that was stopped goes on where it was.
    What cannot be delivered waits in the spool; exit 1.
    """
    return export_and_report(list(folders), destination, settings_from(config).delivery, as_json=as_json)


def export_and_report(
    folders: list[Path], destination: str, settings: DeliverySettings, *, as_json: bool = False
) -> int:
    """Export with a progress bar; the exit code."""
    from recon_node.export import export

    with progress("delivering", None) as advance:
        last = 0

        def report(done: int, total: int) -> None:
            nonlocal last
            advance(done - last, f"delivering {total}")
            last = done

        result = export(folders, destination, settings, report=report)
    if as_json:
        print_json({"queued": result.queued, "delivered": result.delivered, "dead": list(result.dead)})
    else:
        click.echo(f"{result.delivered} of {result.queued} instances delivered to {destination}")
    for reason in dict.fromkeys(result.dead):
        click.echo(f"recon-node: refused for good: {reason}", err=True)
    return 1 if result.dead or result.waiting else 0

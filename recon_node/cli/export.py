"""``recon-node export``: queue DICOM files and deliver them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from recon_node.cli.options import (
    ANY_PATH,
    config_option,
    json_option,
    print_json,
    progress,
    setting_options,
    settings_from,
)
from recon_node.core.errors import ConfigError
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
@click.option(
    "--deidentify",
    "key_file",
    type=ANY_PATH,
    metavar="KEYFILE",
    help="Remove who the patient is (PS3.15 basic profile); pseudonyms and dates come from this secret key.",
)
@setting_options("delivery.priority")
@config_option
@json_option
def command(
    folders: tuple[Path, ...],
    destination: str,
    key_file: Path | None,
    config: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Queue the DICOM files below each DIR and deliver them to DEST.

    Files already delivered to DEST are not sent twice, so an export that was stopped goes on where it was.
    What cannot be delivered waits in the spool; exit 1.
    """
    settings = settings_from(config, given).delivery
    key = None if key_file is None else _key(key_file)
    return export_and_report(list(folders), destination, settings, deidentify=key, as_json=as_json)


def _key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"key {path}: {error.strerror}; make one with: head -c 32 /dev/urandom > {path}"
        ) from error


def check_destination(destination: str, settings: DeliverySettings) -> None:
    """Refuse a destination that is none before the work for it begins."""
    from recon_node.pipeline.queue import open_destinations

    open_destinations(settings, [destination])[destination].close()


def export_and_report(
    folders: list[Path],
    destination: str,
    settings: DeliverySettings,
    *,
    deidentify: bytes | None = None,
    as_json: bool = False,
    told_on_stderr: bool = False,
) -> int:
    """Export with a progress bar; the exit code."""
    from recon_node.offline.export import export

    with progress(f"delivering to {destination}", None) as advance:
        last = 0

        def report(done: int, total: int) -> None:
            nonlocal last
            advance(done - last, total=total)
            last = done

        result = export(folders, destination, settings, deidentify=deidentify, report=report)
    if as_json:
        print_json(asdict(result))
    else:
        told = f"{result.delivered} of {result.found} instances delivered to {destination}"
        click.echo(told, err=told_on_stderr)
    for problem in (*result.unusable, *result.left_out):
        click.echo(f"recon-node: not sent: {problem}", err=True)
    for reason in dict.fromkeys(result.dead):
        click.echo(f"recon-node: refused for good: {reason}", err=True)
    return 1 if result.dead or result.waiting or result.unusable or result.left_out else 0

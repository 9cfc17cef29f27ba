"""``recon-node captures``: look after the scans that a node received."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_node.cli.common import Group
from recon_node.cli.options import ANY_PATH, config_option, json_option, print_json, settings_from
from recon_node.mrd.captures.capture import STATES
from recon_node.schema.complaints import closest

if TYPE_CHECKING:
    from recon_node.mrd.captures import Capture, Captures
    from recon_node.online.recall import Recalled

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(MB|GB|TB)", re.IGNORECASE)
_BYTES = {"MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


@click.group("captures", cls=Group, short_help="Look after received scans.")
def command() -> None:
    """Scans that a node received (all with server.record, else deferred ones).

    A failed or waiting scan holds all that came of it: its images can still be made.
    """


@command.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@config_option
@json_option
def list_(state: str | None, config: Path | None, as_json: bool) -> None:
    """What was received, oldest first, with its age, size, and why it failed."""
    store = _store(config)
    scans = [scan for scan in store.all() if state in (None, scan.state)]
    if as_json:
        print_json(
            {"folder": str(store.folder), "counts": store.counts(), "captures": list(map(_entry, scans))}
        )
        return
    if not scans:
        click.echo(f"nothing is kept in {store.folder}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, title=str(store.folder), title_justify="left")
    for heading in ("scan", "state", "age", "MB", "mode", "reason"):
        table.add_column(heading, overflow="fold", justify="right" if heading in ("age", "MB") else "left")
    for scan in scans:
        entry = _entry(scan)
        told = "; ".join(filter(None, (entry["reason"], "" if scan.whole else "its end never came")))
        table.add_row(
            scan.scan_id, _state(scan), _aged(entry["age_s"]), f"{entry['bytes'] / 1e6:.1f}", scan.kind, told
        )
    Console(width=None).print(table)


@command.command("replay")
@click.argument("scan_ids", nargs=-1, metavar="[SCAN...]")
@click.option("--out", required=True, type=ANY_PATH, help="Folder for DICOM files and summary.json.")
@click.option("--now", is_flag=True, help="With the settings of today, not those with which it came.")
@config_option
@json_option
def replay(scan_ids: tuple[str, ...], out: Path, now: bool, config: Path | None, as_json: bool) -> int:
    """Reconstruct received scans again: the same pixels and UIDs as then.

    All of them, or those that are named. Each is compared with the images that were answered; exit 1 if one
    cannot be reconstructed or differs.
    """
    from recon_node.core.durable import FOLDER_MODE, write_text
    from recon_node.online.recall import recall

    store, settings = _store(config), settings_from(config)
    scans = _chosen(store, scan_ids)
    found = []
    for scan in scans:
        one = recall(scan, settings, out, as_then=not now)
        found.append(one)
        if one.error is not None:
            click.echo(f"recon-node: scan {one.scan_id}: {one.error}", err=True)
        elif not as_json:
            click.echo(_told(one))
    out.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    summary = {"series": [entry for one in found for entry in one.series]}
    import json

    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    if as_json:
        rows = [
            {
                "scan": one.scan_id,
                "images": one.images,
                "likeness": one.likeness,
                "note": one.note,
                "error": None if one.error is None else str(one.error),
            }
            for one in found
        ]
        print_json({"captures": rows, **summary})
    elif not found:
        click.echo(f"nothing is kept in {store.folder}")
    return int(any(one.error is not None or one.likeness == "different" for one in found))


@command.command("purge")
@click.option("--state", type=click.Choice(["done", "failed", "all"]), default="done", show_default=True)
@click.option(
    "--older-than", metavar="AGE", callback=lambda *given: _age(given[2]), help="Such as 90m, 12h, 30d."
)
@click.option(
    "--down-to",
    metavar="SIZE",
    callback=lambda *given: _size(given[2]),
    help="Oldest first until all that is left takes no more, such as 500MB, 20GB.",
)
@click.option("--yes", is_flag=True, help="Do not ask (failed scans exist nowhere else).")
@config_option
def purge(state: str, older_than: float | None, down_to: int | None, yes: bool, config: Path | None) -> None:
    """Remove received scans; never one that arrives, waits, or is worked on."""
    store = _store(config)
    states = ("done", "failed") if state == "all" else (state,)
    if "failed" in states and not yes:
        click.confirm("Remove scans of which no images were made?", abort=True)
    gone = store.purge(states=states, older_than_s=older_than or 0.0, down_to_bytes=down_to)
    left = store.counts()
    click.echo(f"{len(gone)} scans removed, {sum(left.values())} left")


def _store(config: Path | None) -> Captures:
    from recon_node.online.received import open_captures

    store = open_captures(settings_from(config))
    for folder in store.damaged():
        click.echo(f"note: {folder} holds a scan whose description cannot be read", err=True)
    return store


def _chosen(store: Captures, scan_ids: tuple[str, ...]) -> list[Capture]:
    known = {scan.scan_id: scan for scan in store.all()}
    for scan_id in scan_ids:
        if scan_id not in known:
            hint = closest(scan_id, known) or "; see recon-node captures list"
            raise click.UsageError(f"no scan {scan_id!r} is kept in {store.folder}{hint}")
    chosen = [known[scan_id] for scan_id in dict.fromkeys(scan_ids)]
    return chosen or [scan for scan in known.values() if scan.raw is not None and scan.state != "arriving"]


def _entry(scan: Capture) -> dict[str, Any]:
    return {
        "scan_id": scan.scan_id,
        "state": scan.state,
        "handed": scan.handed,
        "mode": scan.kind,
        "configuration": scan.configuration,
        "whole": scan.whole,
        "received": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(scan.received)),
        "age_s": max(0.0, time.time() - scan.received),
        "bytes": scan.size,
        "raw": scan.raw is not None,
        "reason": scan.reason,
    }


def _state(scan: Capture) -> str:
    return f"{scan.state}, fetched" if scan.handed else scan.state


def _aged(seconds: float) -> str:
    for unit, per in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * per:
            return f"{seconds / per:.0f} {unit}"
    return f"{seconds:.0f} s"


_WORDS: dict[str, str] = {
    "equal": "the same as were answered",
    "different": "DIFFERENT from those that were answered",
    "unknown": "nothing was kept to compare them with",
}


def _told(one: Recalled) -> str:
    note = f" ({one.note})" if one.note else ""
    return f"{one.scan_id}: {one.images} images, {_WORDS[one.likeness]}{note}"


def _age(text: str | None) -> float | None:
    if text is None:
        return None
    match = _AGE.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r}: expected an age such as 90m, 12h or 30d")
    return float(match[1]) * _SECONDS[match[2]]


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r}: expected a size such as 500MB or 20GB")
    return int(float(match[1]) * _BYTES[match[2].upper()])

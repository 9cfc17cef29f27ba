"""DICOM files through the spool to a destination, with a report on what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon_node.core.errors import DeliveryError, DicomError, PacsUnreachable, SourceError
from recon_node.delivery import DeliveryWorker, OpenDestination, Policy, Spool, open_destination
from recon_node.settings import DeliverySettings

_TRIES = 3
"""Failures in a row after which a command gives up waiting; the spool keeps the files."""
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What became of the files of one export."""

    queued: int
    delivered: int
    dead: tuple[str, ...] = ()
    """Reasons of instances that the destination refused for good."""
    waiting: int = 0
    """Instances that are still in the spool."""


def spool_folder(settings: DeliverySettings) -> Path:
    """The folder of the spool, ``~`` expanded."""
    return Path(settings.spool).expanduser()


def open_destinations(settings: DeliverySettings, names: Sequence[str]) -> dict[str, OpenDestination]:
    """Destinations by name or address, with the node's own AE title.

    Raises
    ------
    ConfigError
        A name that is not configured, or an address that is none.
    """
    return {name: open_destination(name, named=_with_title(settings)) for name in names}


def _with_title(settings: DeliverySettings) -> dict[str, Mapping[str, Any]]:
    title = {"calling": settings.calling_ae_title}
    return {
        name: {**(title if str(table.get("address", "")).startswith("dicom") else {}), **table}
        for name, table in settings.destinations.items()
    }


def find_instances(folders: Sequence[Path]) -> list[Path]:
    """Files below `folders` that are DICOM (by the ``DICM`` mark), sorted.

    Raises
    ------
    SourceError
        A folder or file that does not exist, or none of them is DICOM.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.exists():
            raise SourceError(f"{folder}: no such file or folder")
        candidates = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]
        found.extend(path for path in candidates if _is_dicom(path))
    if not found:
        raise SourceError(f"{', '.join(map(str, folders))}: no DICOM file in there")
    return found


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def export(
    folders: Sequence[Path],
    destination: str,
    settings: DeliverySettings,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> ExportResult:
    """Queue the DICOM files below `folders` and deliver them.

    Parameters
    ----------
    folders : sequence of Path
        Folders (searched through) or files; they stay where they are.
    destination : str
        A configured name, ``dicom://AET@host:port``, ``dicoms://``, a STOW-RS URL or a folder.
    settings : DeliverySettings
        Spool, named destinations, own AE title.
    report : callable
        Told of (delivered, queued) now and then.

    Raises
    ------
    PacsUnreachable
        The destination does not answer; the instances wait in the spool (the message says where).
    DeliveryError
        The destination refuses to talk to this node.
    """
    files = find_instances(folders)
    folder = spool_folder(settings)
    with Spool(folder) as spool:
        destinations = open_destinations(settings, [destination])
        keys = {entry.uid for entry in _put(spool, files, destination)}
        policy = Policy(first_wait=0.2, longest_wait=2.0, poll=_POLL_S)
        with DeliveryWorker(spool, destinations, policy=policy) as worker:
            trouble = _follow(worker, destination, keys, report)
        mine = [entry for entry in spool.entries(destination=destination) if entry.uid in keys]
        waiting = sum(entry.state in ("waiting", "stored") for entry in mine)
    if trouble is not None:
        raise PacsUnreachable(
            f"{trouble}; {waiting} of {len(keys)} instances wait in the spool {folder}: "
            "`recon-node spool retry` sends them again"
        )
    dead = tuple(entry.reason or "refused" for entry in mine if entry.state == "dead")
    return ExportResult(
        queued=len(keys), delivered=len(keys) - len(dead) - waiting, dead=dead, waiting=waiting
    )


def _put(spool: Spool, files: Sequence[Path], destination: str) -> Iterator[Any]:
    for path in files:
        try:
            yield from spool.put([path], [destination])
        except DicomError as error:
            raise DicomError(f"{path}: {error}") from error


def _follow(
    worker: DeliveryWorker, name: str, keys: set[str], report: Callable[[int, int], None]
) -> str | None:
    """Wait until nothing of `keys` is waiting; the trouble, if the destination gives up on us."""
    while True:
        counts = worker.spool.counts().get(name, {})
        open_ = counts.get("waiting", 0) + counts.get("stored", 0)
        report(max(0, len(keys) - open_), len(keys))
        if not open_:
            return None
        health = worker.health()[name]
        if health.failures >= _TRIES:
            return health.trouble
        time.sleep(_POLL_S)


@contextmanager
def delivering(spool: Spool, settings: DeliverySettings) -> Iterator[DeliveryWorker]:
    """A worker for every configured destination, in the background.

    Raises
    ------
    ConfigError, DeliveryError
        A destination of the settings is not usable.
    """
    names = dict.fromkeys((*settings.destinations, *settings.to))
    with DeliveryWorker(spool, open_destinations(settings, list(names))) as worker:
        yield worker


def retry(settings: DeliverySettings, *, destination: str | None = None) -> tuple[int, list[DeliveryError]]:
    """Revive dead instances and try all that wait once more.

    Returns
    -------
    (int, list)
        Instances delivered, and what went wrong by destination.
    """
    troubles: list[DeliveryError] = []
    with Spool(spool_folder(settings)) as spool:
        spool.retry(destination=destination)
        before = _delivered(spool)
        names = [name for name in spool.counts() if destination in (None, name)]
        for name in names:
            with DeliveryWorker(
                spool,
                open_destinations(settings, [name]),
                policy=Policy(first_wait=0.2, longest_wait=1.0, poll=_POLL_S),
            ) as worker:
                trouble = _follow(worker, name, set(), lambda done, total: None)
            if trouble is not None:
                troubles.append(PacsUnreachable(trouble))
        return _delivered(spool) - before, troubles


def _delivered(spool: Spool) -> int:
    return sum(states.get("delivered", 0) for states in spool.counts().values())

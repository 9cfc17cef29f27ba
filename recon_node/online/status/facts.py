"""What the status page tells beyond scans: the queue, the disks, the versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recon_node.core.disk import free_bytes
from recon_node.core.errors import ReconNodeError
from recon_node.core.version import __version__
from recon_node.delivery import DeliveryWorker, DestinationStatus
from recon_node.pipeline.queue import spool_folder
from recon_node.settings import Settings

GIB = 1 << 30
_PACKAGES = ("torch", "numpy", "pydicom", "pynetdicom", "ismrmrd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """One destination's part of the queue."""

    name: str
    status: DestinationStatus
    last_error: str | None
    """Of its connection, or else of an instance that waits or is dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Room for one of the node's folders."""

    what: str
    folder: str
    free_bytes: int | None
    """None where the disk cannot be asked."""
    enough: bool
    """More than the reserve is free."""

    @property
    def free_gib(self) -> float | None:
        """None where the disk cannot be asked."""
        return None if self.free_bytes is None else self.free_bytes / GIB


def queue(worker: DeliveryWorker) -> list[Queued]:
    """Every destination, in trouble first.

    Raises
    ------
    SpoolFull, SpoolCorrupt
        The spool cannot be read.
    """
    reasons = worker.spool.last_reasons()
    rows = [
        Queued(name=name, status=status, last_error=status.trouble or reasons.get(name))
        for name, status in worker.status().items()
    ]
    return sorted(rows, key=lambda row: (row.status.up and not row.status.dead, row.name))


def disks(settings: Settings) -> list[Disk]:
    """The node's folders and the room on their disks."""
    server = settings.server
    folders = {"images": server.out, "received scans": server.record or server.deferred}
    folders["queue"] = str(spool_folder(settings.delivery))
    reserve = settings.delivery.reserve_mb << 20
    rows = []
    for what, folder in folders.items():
        try:
            free: int | None = free_bytes(Path(folder))
        except OSError:
            free = None
        enough = free is not None and free >= reserve
        rows.append(Disk(what=what, folder=folder, free_bytes=free, enough=enough))
    return rows


def versions(weights: tuple[str, str] | None) -> dict[str, str]:
    """What runs here, by name; `weights` are name and SHA-256."""
    told = {"recon-node": __version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            told[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # torch's other builds have other names
            continue
    if weights is not None:
        told["weights"] = f"{weights[0]} {weights[1][:12]}"
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the page's facts come from; each is asked when somebody looks."""

    settings: Settings
    worker: DeliveryWorker | None = None
    deferred: Callable[[], Mapping[str, int]] = dict
    """Deferred scans by state."""
    ready: Callable[[], str | None] = lambda: None
    """Why no scan is taken; None where all is well."""
    weights: tuple[str, str] | None = None
    """Name and SHA-256."""

    def queue(self) -> list[Queued] | str:
        """See `queue`; why there is none to show, where the spool cannot be read."""
        if self.worker is None:
            return []
        try:
            return queue(self.worker)
        except ReconNodeError as error:
            return str(error)

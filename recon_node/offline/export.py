"""Existing DICOM files through the spool to a destination, with a report on what became of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from recon_node.core.durable import HIDDEN_FOLDER, PART
from recon_node.core.errors import (
    DeliveryError,
    DicomError,
    PacsUnreachable,
    ReconNodeError,
    SourceError,
    where_it_failed,
)
from recon_node.core.names import printable
from recon_node.delivery import DeliveryWorker, Spool, SpoolFull, check_file
from recon_node.dicom import deidentified_file
from recon_node.offline.ledger import FILE as LEDGER
from recon_node.offline.ledger import LOCK
from recon_node.pipeline.queue import POLL_S, delivering, follow, gave_up, open_spool
from recon_node.settings import DeliverySettings

_BESIDE_IMAGES = frozenset(
    {"summary.json", "report.html", ".replay", LOCK, ".not-queued"}
    | {f"{LEDGER}{suffix}" for suffix in ("", "-journal", "-shm", "-wal")}
)
"""Files that replay and node write there."""
_FOLDERS_BESIDE = frozenset({"report", "nifti"})
"""Folders that a replay makes beside its ledger."""
_BATCH = 32
"""Files handed to the spool at a time."""


@dataclass(slots=True, kw_only=True)
class ExportResult:
    """What became of the files of one export."""

    found: int
    """DICOM files."""
    delivered: int = 0
    waiting: int = 0
    """Instances that are still in the spool."""
    dead: tuple[str, ...] = ()
    """Reasons of instances that the destination refused for good."""
    unusable: list[str] = field(default_factory=list)
    """What is wrong with DICOM files that could not be queued."""
    left_out: list[str] = field(default_factory=list)
    """Files that are no DICOM, or cannot be read."""


@dataclass(slots=True)
class Found:
    """What lies below the folders of an export."""

    instances: list[Path] = field(default_factory=list)
    """DICOM files, by their mark."""
    left_out: list[str] = field(default_factory=list)
    """Other files and what cannot be read, with the reason."""


def find_instances(folders: Sequence[Path]) -> Found:
    """Files below `folders`, sorted, and which of them are DICOM (by the ``DICM`` mark).

    Folders that a writer has not finished (``.writing-*``) are nobody's yet, and what this package writes
    beside its images (summary, report, journal) is passed over in silence.

    Raises
    ------
    SourceError
        A folder or file that does not exist, or none of them is DICOM.
    """
    found = Found()
    for folder in folders:
        if not folder.exists():
            raise SourceError(f"{printable(folder)}: no such file or folder")
        for path in _files(folder, found) if folder.is_dir() else [folder]:
            reason = _why_not_dicom(path)
            if reason is None:
                found.instances.append(path)
            else:
                found.left_out.append(f"{printable(path)}: {reason}")
    found.instances = list(dict.fromkeys(found.instances))
    if not found.instances:
        more = f" ({found.left_out[0]})" if found.left_out else ""
        raise SourceError(f"{', '.join(map(printable, folders))}: no DICOM file in there{more[:150]}")
    return found


def _files(folder: Path, found: Found) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        found.left_out.append(f"{printable(error.filename or folder)}: {error.strerror or error}")

    for place, folders, names in os.walk(folder, onerror=unreadable):
        beside = _FOLDERS_BESIDE if LEDGER in names else frozenset()
        folders[:] = sorted(name for name in folders if not _is_ours(name) and name not in beside)
        yield from (Path(place) / name for name in sorted(names) if not _is_ours(name))


def _is_ours(name: str) -> bool:
    hidden = name.startswith(".") and (name.startswith(HIDDEN_FOLDER) or name.endswith(PART))
    return hidden or name in _BESIDE_IMAGES


def _why_not_dicom(path: Path) -> str | None:
    """None for a DICOM file."""
    try:
        if not path.is_file():
            return "no plain file (a pipe, a device, a broken link?)"
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if start[128:] == b"DICM":
        return None
    if start[:2] in (b"\x08\x00", b"\x02\x00"):
        return "perhaps DICOM, but without preamble and DICM mark: its transfer syntax is not known"
    return "no DICOM file"


def export(
    folders: Sequence[Path],
    destination: str,
    settings: DeliverySettings,
    *,
    deidentify: bytes | None = None,
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
        Spool, named destinations, own AE title, priority.
    deidentify : bytes, optional
        Secret key: what is sent does not tell who the patient is (`recon_node.dicom.deidentify`).
    report : callable
        Told of (done, found) now and then.

    Raises
    ------
    PacsUnreachable
        The destination does not answer; the instances wait in the spool (the message says where).
    DeliveryError
        The destination refuses to talk to this node.
    SpoolFull
        No room in the spool, and none becomes free.
    """
    found = find_instances(folders)
    files = found.instances
    result = ExportResult(found=len(files), left_out=found.left_out)
    with open_spool(settings) as spool:
        with delivering(spool, settings, only=destination, hurried=True) as worker:
            queue = _Queue(worker, destination, settings.priority, result)
            for batch in _batches(iter(files)):
                queue.put(batch, deidentify)
                report(len(queue.uids) - queue.waiting(), len(files))
            trouble = follow(worker, destination, lambda open_: report(len(files) - open_, len(files)))
        mine = [entry for entry in spool.entries(destination=destination) if entry.uid in queue.uids]
    result.waiting = sum(entry.state in ("waiting", "stored") for entry in mine)
    result.dead = tuple(entry.reason or "refused" for entry in mine if entry.state == "dead")
    result.delivered = len(queue.uids) - len(result.dead) - result.waiting
    if trouble is not None:
        raise PacsUnreachable(
            f"{trouble}; {result.waiting} of {len(queue.uids)} instances wait in the spool {spool.folder}: "
            "`recon-node spool retry` sends them again"
        )
    return result


def _batches(files: Iterator[Path]) -> Iterator[list[Path]]:
    while batch := list(islice(files, _BATCH)):
        yield batch


class _Queue:
    """Puts files into the spool while the worker takes them out at the other end."""

    def __init__(self, worker: DeliveryWorker, name: str, priority: int, result: ExportResult) -> None:
        self.spool: Spool = worker.spool
        self.uids: set[str] = set()
        self._worker, self._name, self._priority, self._result = worker, name, priority, result

    def put(self, files: Sequence[Path], key: bytes | None) -> None:
        """Queue `files`; where that fails, one by one, and say which are unusable."""
        try:
            self._put([_content(file, key) for file in files])
        except SpoolFull:
            raise
        except (DicomError, DeliveryError) as error:
            if len(files) == 1:
                name = printable(files[0].name)
                problem = str(error).removeprefix(f"{name} ").removeprefix("the data ")
                self._result.unusable.append(f"{printable(files[0])}: {problem}")
                return
            for file in files:
                self.put([file], key)

    def _put(self, items: Sequence[Path | bytes]) -> None:
        while True:
            before = self.on_the_way()
            try:
                entries = self.spool.put(items, [self._name], priority=self._priority)
            except SpoolFull:
                if not self._room_came(before):
                    raise
                continue
            self.uids.update(entry.uid for entry in entries)
            self._worker.wake()
            return

    def _room_came(self, before: int) -> bool:
        """Wait until something was delivered, which can be cleaned away; False where nothing will be."""
        while self.on_the_way() == before:
            if not before or gave_up(self._worker, self._name):
                return False
            time.sleep(POLL_S)
        return True

    def waiting(self) -> int:
        """Instances that the destination has not answered success for yet."""
        return self.spool.counts().get(self._name, {}).get("waiting", 0)

    def on_the_way(self) -> int:
        """Instances for the destination that are waiting or unconfirmed."""
        counts = self.spool.counts().get(self._name, {})
        return counts.get("waiting", 0) + counts.get("stored", 0)


def _content(file: Path, key: bytes | None) -> Path | bytes:
    if key is None:
        return file
    try:
        check_file(file.read_bytes(), printable(file.name))
        return deidentified_file(file, key=key)
    except ReconNodeError:
        raise
    except Exception as error:  # of pydicom and the anonymizer, on damaged data
        raise DicomError(f"cannot be de-identified ({where_it_failed(error)})") from error

"""Deferred scans on disk: what a console handed over before its connection closed, until it is reconstructed.

See `deferred_job` for the files.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from recon_node.core.durable import sync_file
from recon_node.core.errors import ConfigError, DataError
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.mrd.messages import Close, HeaderXml, message_bytes
from recon_node.online.deferred_job import JOB, Job
from recon_node.online.entitled import Identity, hashed, matches
from recon_node.settings import ServerSettings

_ROOM_AT_A_TIME = 16 << 20


class DeferredScans:
    """The deferred scans in `folder`.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    max_bytes : int
        Space for all of them; finished ones make room for new ones, oldest first.

    Raises
    ------
    ConfigError
        The folder cannot be used.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._owned: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"deferred scans cannot be kept in {folder}: {error.strerror}") from error

    @classmethod
    def from_settings(cls, server: ServerSettings) -> Self:
        """Those that all processes with these settings share."""
        return cls(Path(server.deferred).expanduser(), max_bytes=server.deferred_limit_mb << 20)

    def own(self) -> bool:
        """Become the only process that works on these scans; False if another one does."""
        if self._owned is None:
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                return False
            self._owned = handle
        return True

    def idle(self) -> bool:
        """Whether no process works on these scans."""
        if self._owned is not None or not self.own():
            return False
        self.release()
        return True

    def release(self) -> None:
        """Let another process work on them."""
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None

    def jobs(self) -> list[Job]:
        """All of them, oldest first."""
        found = [Job.read(path.parent) for path in self.folder.glob(f"*/{JOB}")]
        return sorted((job for job in found if job is not None), key=lambda job: job.number)

    def counts(self) -> dict[str, int]:
        """Number of scans by state."""
        counts = dict.fromkeys(("arriving", "waiting", "done", "failed"), 0)
        for job in self.jobs():
            counts[job.state] += 1
        return counts

    def fetchable(
        self, asking: Identity, *, scan_id: str | None = None, ticket: str | None = None
    ) -> list[Job]:
        """Scans that whoever asks is entitled to fetch.

        Parameters
        ----------
        asking : Identity
            Of the header that asks, and of its sender.
        scan_id : str, optional
            Only this scan.
        ticket : str, optional
            What was handed over with the quick images.
        """
        return [
            job
            for job in self.jobs()
            if job.identity.same_patient(asking)
            and scan_id in (None, job.scan_id)
            and (matches(ticket, job.ticket) or (ticket is None and asking.proves(job.identity)))
        ]

    def start(
        self,
        scan_id: str,
        headers: Sequence[ScanHeader],
        *,
        configuration: str,
        properties: Mapping[str, str],
        peer: str = "",
        ticket: str = "",
    ) -> Arriving:
        """Begin to keep a scan; its folder's name comes from the node, never from the network.

        Raises
        ------
        DataError
            There is no room, or the disk refuses.
        """
        folder = self.folder / scan_id
        try:
            with self._lock:
                job = Job(
                    folder=folder,
                    identity=Identity.of(headers, peer),
                    ticket=hashed([ticket]) if ticket else "",
                    number=1 + max((job.number for job in self.jobs()), default=0),
                    configuration=configuration,
                    properties=dict(properties),
                    whole=False,
                )
                folder.mkdir(mode=0o700)
                arriving = Arriving(self, job, headers[0].xml)
                job.describe()
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise DataError(f"the scan cannot be deferred: {error.strerror}") from error
        return arriving

    def recover(self, *, finish: bool) -> None:
        """Scans that were arriving in a process that is gone are cut short, or dropped."""
        for job in self.jobs():
            if job.state == "arriving":
                _recover(job, finish=finish)

    def make_room(self, size: int) -> bool:
        """Delete the oldest finished scans until `size` more bytes fit; False if they cannot."""
        with self._lock:
            used = sum(path.stat().st_size for path in self.folder.glob("*/*") if path.is_file())
            for job in self.jobs():
                if used + size <= self.max_bytes:
                    break
                if job.state == "done":
                    used -= sum(path.stat().st_size for path in job.folder.iterdir())
                    shutil.rmtree(job.folder, ignore_errors=True)
            return used + size <= self.max_bytes


def _recover(job: Job, *, finish: bool) -> None:
    try:
        handle = os.open(job.part, os.O_RDWR)
    except OSError:
        return  # it ends at this moment
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # whoever receives it lives
    else:
        if not job.part.exists():
            return  # it was kept meanwhile
        if finish and os.fstat(handle).st_size:
            job.keep()
        else:
            shutil.rmtree(job.folder, ignore_errors=True)
    finally:
        os.close(handle)


class Arriving:
    """A scan that is being handed over. Leaving the block with an error drops it, unless it was kept.

    As long as its process lives, its file is locked.
    """

    def __init__(self, scans: DeferredScans, job: Job, xml: bytes) -> None:
        self.job = job
        self._scans = scans
        self._file: BinaryIO = os.fdopen(os.open(job.part, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._room = 0
        self._kept = False
        self._xml = xml

    def following(self, items: Iterable[Readouts | Waveform]) -> Iterator[Readouts | Waveform]:
        """The same items, each kept before it is handed on, behind the header.

        Raises
        ------
        DataError
            There is no room left.
        """
        self.write(message_bytes(HeaderXml(xml=self._xml)))
        for item in items:
            self.write(message_bytes(item))
            yield item

    def write(self, raw: bytes | memoryview) -> None:
        """Keep the bytes of whole messages.

        Raises
        ------
        DataError
            There is no room left.
        """
        try:
            if self._room < len(raw):
                self._file.flush()
                self._room = self._granted(len(raw))
            self._room -= len(raw)
            self._file.write(raw)
        except OSError as error:
            raise DataError(f"the scan cannot be deferred: {error.strerror}") from error

    def _granted(self, size: int) -> int:
        for room in (max(size, _ROOM_AT_A_TIME), size):
            if self._scans.make_room(room):
                return room
        limit = self._scans.max_bytes
        raise DataError(f"the scan cannot be deferred: {limit} bytes of deferred scans are full")

    def sync(self) -> None:
        """Return when all that came is on the disk."""
        sync_file(self._file)

    def keep(self, *, whole: bool) -> None:
        """The scan has ended: from now on it is waiting, and survives a power cut.

        Parameters
        ----------
        whole : bool
            False where the client vanished before the end.
        """
        if whole:
            self.write(message_bytes(Close()))
        self.sync()
        if whole:
            replace(self.job, whole=True).describe()
        self.job.keep()
        self._file.close()
        self._kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._kept:
            shutil.rmtree(self.job.folder, ignore_errors=True)
        self._file.close()

"""Deferred scans on disk: what a console handed over before its connection closed, until it is reconstructed.

A scan is a folder, whose state can be read with ``ls``:

    <id>/job.json          what was asked for, and whose scan it is (as a hash)
    <id>/scan.mrd.part     still arriving
    <id>/scan.mrd          waiting for its reconstruction
    <id>/images.mrd        reconstructed; the DICOM files are where all others are
    <id>/handed            given back to a console
    <id>/failed.txt        why it cannot be reconstructed; scan.mrd is kept

The files hold patient data: they are readable for their owner only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from recon_node.core.errors import ConfigError, DataError
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.sources.messages import Close, HeaderXml, message_bytes

State = Literal["arriving", "waiting", "done", "failed"]

_JOB, _SCAN, _IMAGES, _HANDED, _FAILED = "job.json", "scan.mrd", "images.mrd", "handed", "failed.txt"
_PART = ".part"
_ROOM_AT_A_TIME = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One deferred scan."""

    folder: Path
    patient: str
    """Hash of the patient's identifiers; empty where the header has none."""
    study: str | None
    """Hash of the study instance UID; None where the header has none."""
    number: int
    """By order of arrival."""
    configuration: str
    properties: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True
    """False where the client vanished before the end of its scan."""

    @property
    def scan_id(self) -> str:
        """The id that the console was told."""
        return self.folder.name

    @property
    def scan(self) -> Path:
        """The raw data, an MRD stream."""
        return self.folder / _SCAN

    @property
    def images(self) -> Path:
        """The images, as IMAGE messages."""
        return self.folder / _IMAGES

    @property
    def state(self) -> State:
        """What has become of it so far."""
        if self.images.exists():
            return "done"
        if (self.folder / _FAILED).exists():
            return "failed"
        return "waiting" if self.scan.exists() else "arriving"

    @property
    def handed(self) -> bool:
        """Whether a console has got the images."""
        return (self.folder / _HANDED).exists()

    @property
    def reason(self) -> str:
        """Why it failed; empty where it did not."""
        path = self.folder / _FAILED
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    def finish(self, images: Iterable[bytes]) -> None:
        """Keep the images, and give up the raw data."""
        _write(self.images, images)
        self.scan.unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """Say why it cannot be reconstructed."""
        _write(self.folder / _FAILED, [f"{reason}\n".encode()])

    def retry(self) -> None:
        """Let it wait for its reconstruction again."""
        (self.folder / _FAILED).unlink(missing_ok=True)

    def hand_over(self) -> None:
        """Note that a console has got the images."""
        _write(self.folder / _HANDED, [])


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

    def release(self) -> None:
        """Let another process work on them."""
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None

    def jobs(self) -> list[Job]:
        """All of them, oldest first."""
        found = [_read(path.parent) for path in self.folder.glob(f"*/{_JOB}")]
        return sorted((job for job in found if job is not None), key=lambda job: job.number)

    def counts(self) -> dict[str, int]:
        """Number of scans by state."""
        counts = dict.fromkeys(("arriving", "waiting", "done", "failed"), 0)
        for job in self.jobs():
            counts[job.state] += 1
        return counts

    def of_patient(self, headers: Sequence[ScanHeader], scan_id: str | None = None) -> list[Job]:
        """Scans of the patient (and study, where both headers name one) that `headers` belong to.

        Parameters
        ----------
        headers : sequence of ScanHeader
            Of the scan that asks. Where they name no patient, nothing is found without `scan_id`.
        scan_id : str, optional
            Only this scan, if it is this patient's.
        """
        patient, study = _patient(headers), _study(headers)
        if scan_id is None and not patient:
            return []
        return [
            job
            for job in self.jobs()
            if job.patient == patient
            and (job.study == study or None in (job.study, study))
            and scan_id in (None, job.scan_id)
        ]

    def start(
        self,
        scan_id: str,
        headers: Sequence[ScanHeader],
        *,
        configuration: str,
        properties: Mapping[str, str],
    ) -> Arriving:
        """Begin to keep a scan; its folder's name comes from the node, never from the network.

        Raises
        ------
        DataError
            There is no room, or the disk refuses.
        """
        try:
            with self._lock:
                job = Job(
                    folder=self.folder / scan_id,
                    patient=_patient(headers),
                    study=_study(headers),
                    number=1 + max((job.number for job in self.jobs()), default=0),
                    configuration=configuration,
                    properties=dict(properties),
                    whole=False,
                )
                job.folder.mkdir(mode=0o700)
                _write(job.folder / _JOB, [_tree(job)])
            return Arriving(self, job, headers[0].xml)
        except OSError as error:
            raise DataError(f"the scan cannot be deferred: {error.strerror}") from error

    def recover(self, *, finish: bool) -> None:
        """After a start: scans that were arriving when the node died are cut short, or dropped."""
        for job in self.jobs():
            part = job.folder / f"{_SCAN}{_PART}"
            if job.state != "arriving":
                continue
            if finish and part.exists() and part.stat().st_size:
                part.replace(job.scan)
            else:
                shutil.rmtree(job.folder, ignore_errors=True)

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


class Arriving:
    """A scan that is being handed over. Leaving the block with an error drops it, unless it was kept."""

    def __init__(self, scans: DeferredScans, job: Job, xml: str) -> None:
        self.job = job
        self._scans = scans
        self._part = job.folder / f"{_SCAN}{_PART}"
        self._file: BinaryIO = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
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
        self.write(message_bytes(HeaderXml(xml=self._xml.encode())))
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
        self._file.flush()
        os.fsync(self._file.fileno())

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
        self._file.close()
        if whole:
            _write(self.job.folder / _JOB, [_tree(self.job, whole=True)])
        self._part.replace(self.job.scan)
        _sync(self.job.folder)
        _sync(self.job.folder.parent)
        self._kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self._kept:
            shutil.rmtree(self.job.folder, ignore_errors=True)


def _patient(headers: Sequence[ScanHeader]) -> str:
    patient = headers[0].patient
    values = [patient.patient_id, patient.name, patient.birth_date]
    return _hash(values) if patient.patient_id or patient.name else ""


def _study(headers: Sequence[ScanHeader]) -> str | None:
    uid = headers[0].study.study_instance_uid
    return None if uid is None else _hash([uid])


def _hash(values: list[str | None]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _tree(job: Job, **changes: Any) -> bytes:
    names = ("patient", "study", "number", "configuration", "properties", "whole")
    return json.dumps({name: getattr(job, name) for name in names} | changes, indent=2).encode()


def _read(folder: Path) -> Job | None:
    try:
        return Job(folder=folder, **json.loads((folder / _JOB).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # being made or deleted at this moment


def _write(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file whole or not at all; on the disk when this returns."""
    part = path.with_name(path.name + _PART)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        for raw in parts:
            file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

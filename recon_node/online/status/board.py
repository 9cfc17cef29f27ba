"""What the node did last and does now, kept in memory for the status page: bounded, however long it runs."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from recon_node.core.errors import where_it_failed
from recon_node.mrd.session import ScanSession
from recon_node.online.status.thumbnail import thumbnail
from recon_node.pipeline.result import Slice
from recon_node.pipeline.scan import expected_slices

log = logging.getLogger(__name__)

SERIES_KEPT, SCANS_KEPT = 24, 12
"""Of finished series and finished scans, the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningScan:
    """A scan at work."""

    scan: str
    """Random name of the connection; no identifier of the patient."""
    config: str
    background: bool
    """Deferred: its console has its answer already."""
    began: float
    """`time.monotonic` seconds."""
    done: int = 0
    """Slices."""
    total: int | None = None
    """Slices that the header announces; None where it does not say."""
    patient: str | None = field(default=None, repr=False)

    def left_s(self, now: float) -> float | None:
        """Seconds that its other slices may take; None before the first one, or where nobody knows."""
        if not self.done or self.total is None or self.total < self.done:
            return None
        return (now - self.began) / self.done * (self.total - self.done)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedScan:
    """A connection that has ended."""

    scan: str
    outcome: str
    """ok, error, truncated or crashed."""
    images: int
    seconds: float
    ended: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDone:
    """A reconstructed slice with its picture."""

    name: str
    """Of its picture: never given twice, also by later processes."""
    scan: str
    slice: int
    images: int
    method: str
    verdict: str
    score: float
    reasons: tuple[str, ...]
    seconds: float
    done: float
    """Seconds since 1970."""
    picture: bytes | None = field(default=None, repr=False)
    """PNG."""
    patient: str | None = field(default=None, repr=False)


class StatusBoard:
    """Told by the node what happens, asked by the status page.

    Parameters
    ----------
    patients : bool
        Whether it keeps patients' names (setting ``server.status_patients``).
    """

    def __init__(self, *, patients: bool = False) -> None:
        self._patients = patients
        self._changed = threading.Condition()
        self._version = 0
        self._running: dict[str, RunningScan] = {}
        self._ended: deque[EndedScan] = deque(maxlen=SCANS_KEPT)
        self._series: deque[SeriesDone] = deque(maxlen=SERIES_KEPT)

    # ---------------------------------------------------------------- told

    @contextmanager
    def watch(self, session: ScanSession, background: bool) -> Iterator[Callable[[Slice], None]]:
        """A scan is being reconstructed until the block ends; what it yields is to be told of each slice."""
        patient = session.headers[0].patient.name if self._patients and session.headers else None
        row = RunningScan(
            scan=session.scan_id,
            config=session.config.name or "default",
            background=background,
            began=time.monotonic(),
            total=expected_slices(session.headers),
            patient=patient,
        )
        self._set(row)
        try:
            yield lambda done: self._slice(session.scan_id, done, patient)
        finally:
            with self._changing():
                self._running.pop(session.scan_id, None)

    def on_event(self, name: str, event: Mapping[str, str | int | float]) -> None:
        """Hook for the MRD server (`recon_node.mrd.connection.EventHook`)."""
        if name != "finished":
            return
        ended = EndedScan(
            scan=str(event["scan"]),
            outcome=str(event["outcome"]),
            images=int(event["images"]),
            seconds=float(event["seconds"]),
            ended=time.time(),
        )
        with self._changing():
            self._ended.appendleft(ended)

    def _set(self, row: RunningScan) -> None:
        with self._changing():
            self._running[row.scan] = row

    def _slice(self, scan: str, done: Slice, patient: str | None) -> None:
        result = done.result
        one = SeriesDone(
            name=secrets.token_hex(8),
            scan=scan,
            slice=result.kspace.index.slice,
            images=int(result.images.data.shape[0]),
            method=result.images.made_by.method,
            verdict=result.verdict.verdict,
            score=float(result.verdict.score),
            reasons=result.verdict.reasons,
            seconds=sum(done.seconds.values()),
            done=time.time(),
            picture=_picture(done),
            patient=patient,
        )
        with self._changing():
            self._series.appendleft(one)
            if scan in self._running:
                row = self._running[scan]
                self._running[scan] = replace(row, done=row.done + 1)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._changed:
            yield
            self._version += 1
            self._changed.notify_all()

    # ---------------------------------------------------------------- asked

    def running(self) -> list[RunningScan]:
        """Scans at work, those whose console waits first."""
        with self._changed:
            return sorted(self._running.values(), key=lambda row: (row.background, row.began))

    def ended(self) -> list[EndedScan]:
        """The latest connections that ended, the newest first."""
        with self._changed:
            return list(self._ended)

    def series(self) -> list[SeriesDone]:
        """The latest series, the newest first."""
        with self._changed:
            return list(self._series)

    def picture(self, name: str) -> bytes | None:
        """PNG of one of the latest series; None where it is gone."""
        return next((one.picture for one in self.series() if one.name == name), None)

    def wait(self, seen: int, timeout: float) -> int:
        """Wait until something changed since version `seen`, at most `timeout` seconds; the version now."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != seen, timeout)
            return self._version


def _picture(done: Slice) -> bytes | None:
    """None where none can be made: no page keeps a scan from its end."""
    try:
        return thumbnail(done.result.images)
    except Exception as error:  # noqa: BLE001 - whatever it is, the scan goes on
        log.warning("no thumbnail: %s", where_it_failed(error))
        return None

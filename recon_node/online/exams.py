"""How many scans came to a good end: counters, and one line a day, without patient data.

A scan counts once: as received when its header came, then as answered (the scanner got all there was) or as
failed, with the name of the error. Beside that it may have fallen back (other images stand in), have been
recovered (images were made later, from its capture) and have been delivered (nothing is on its way any more).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Counter

from recon_node.core.choices import InstanceState
from recon_node.core.supervise import Supervised
from recon_node.delivery import Spool
from recon_node.dicom import WrittenInstance

log = logging.getLogger(__name__)

PARTS = ("received", "answered", "delivered", "fallen_back", "recovered")
_OPEN: tuple[InstanceState, ...] = ("waiting", "stored", "dead")
_LOOK_S = 30.0
_MOST_OPEN = 10_000
"""Scans whose delivery is watched; the oldest are forgotten beyond that."""


@dataclass(slots=True)
class _Exam:
    """What is known of one scan."""

    fell_back: bool = False
    failed: bool = False
    queued: bool = False
    ended: bool = False
    uids: set[str] = field(default_factory=set)


class Exams:
    """Counts scans by what became of them.

    Parameters
    ----------
    registry : CollectorRegistry
        Where the counters are shown.
    clock : callable
        Seconds since 1970; the day is the one of this machine's time zone.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._scans: dict[str, _Exam] = {}
        self._tally = Tally[str]()
        self._reasons = Tally[str]()
        self._since = clock()
        self._spool: Spool | None = None
        self._counters = {
            name: Counter(f"recon_node_exams_{name}", f"Scans {name.replace('_', ' ')}", registry=registry)
            for name in PARTS
        }
        self._failed = Counter(
            "recon_node_exams_failed", "Scans failed, by error", ("reason",), registry=registry
        )
        self._stop = threading.Event()
        self.thread = Supervised("exams", self._run, self._stop)

    def watch(self, spool: Spool | None) -> None:
        """Find out what is delivered from this spool."""
        self._spool = spool

    # ---------------------------------------------------------------- what happens

    def leave_out(self, scan_id: str) -> None:
        """What came over this connection is no scan to be reconstructed."""
        with self._lock:
            self._exam(scan_id).ended = True

    def on_closed(self, event: Mapping[str, str | int | float]) -> None:
        """A connection has ended (event ``closed`` of `recon_node.mrd.connection.EventHook`)."""
        with self._lock:
            exam = self._exam(str(event["scan"]))
            if exam.ended or not (event["header"] or event["outcome"] == "crashed"):
                self._scans.pop(str(event["scan"]), None)
                return
            exam.ended = True
            self._count("received")
            reason = str(event["reason"]) or ("" if event["handed"] else "PeerGone")
            if reason:
                exam.failed = True
                self._failed.labels(reason).inc()
                self._reasons[reason] += 1
            else:
                self._count("answered")
            if not exam.queued and not exam.failed:
                self._scans.pop(str(event["scan"]), None)

    def on_slice(self, scan_id: str, verdict: str, instances: Iterable[WrittenInstance]) -> None:
        """A slice of a scan is on disk."""
        with self._lock:
            self._exam(scan_id).uids.update(one.sop_instance_uid for one in instances)
        if verdict == "fallback":
            self.fell_back(scan_id)

    def on_queued(self, scan_id: str, places: int) -> int:
        """A slice was queued for so many destinations; returns that."""
        with self._lock:
            self._exam(scan_id).queued |= places > 0
        return places

    def fell_back(self, scan_id: str) -> None:
        """Another method's images stand in for the one asked for."""
        with self._lock:
            exam = self._exam(scan_id)
            if not exam.fell_back:
                exam.fell_back = True
                self._count("fallen_back")

    def recovered(self, scan_id: str) -> None:
        """Images of a scan that failed were made after all."""
        with self._lock:
            if self._exam(scan_id).failed:
                self._count("recovered")
                self._exam(scan_id).failed = False

    # ---------------------------------------------------------------- what is told

    def line(self) -> str:
        """What became of the scans since the last line."""
        with self._lock:
            counts = dict(self._tally)
            reasons = ", ".join(f"{name} {n}" for name, n in sorted(self._reasons.items()))
            failed = self._reasons.total()
            since = self._since
        day = time.strftime("%Y-%m-%d", time.localtime(since))
        told = ", ".join(f"{counts.get(name, 0)} {name.replace('_', ' ')}" for name in PARTS)
        return f"scans of {day}: {told}, {failed} failed" + (f" ({reasons})" if reasons else "")

    def tick(self) -> None:
        """See what was delivered; at the first look of a new day, tell of the day before."""
        self._look()
        now = time.localtime(self._clock())
        then = time.localtime(self._since)
        if (now.tm_year, now.tm_yday) != (then.tm_year, then.tm_yday):
            self._tell()

    def _tell(self) -> None:
        log.info("%s", self.line())
        with self._lock:
            self._tally.clear()
            self._reasons.clear()
            self._since = self._clock()

    def _look(self) -> None:
        """Scans that were queued, and of which nothing is on its way any more, are delivered."""
        with self._lock:
            watched = {name: exam for name, exam in self._scans.items() if exam.ended and exam.queued}
        if not watched or self._spool is None:
            return
        open_ = {entry.uid for state in _OPEN for entry in self._spool.entries(state=state)}
        with self._lock:
            for name, exam in watched.items():
                if not exam.uids & open_:
                    self._count("delivered")
                    self._scans.pop(name, None)

    def _exam(self, scan_id: str) -> _Exam:
        while len(self._scans) >= _MOST_OPEN:
            self._scans.pop(next(iter(self._scans)))
        return self._scans.setdefault(scan_id, _Exam())

    def _count(self, name: str) -> None:
        self._tally[name] += 1
        self._counters[name].inc()

    # ---------------------------------------------------------------- its thread

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self.thread.join()
        self._look()
        if self._tally["received"]:
            self._tell()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self.tick()

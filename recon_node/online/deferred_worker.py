"""Deferred scans, reconstructed one after the other while no console waits: to DICOM and the PACS."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from recon_node.core.errors import SourceError
from recon_node.core.supervise import Supervised
from recon_node.mrd.captures import Capture, Captures
from recon_node.mrd.captures.entitled import Identity
from recon_node.mrd.captures.leftovers import recover
from recon_node.mrd.connection import Protect
from recon_node.mrd.guard import guarded
from recon_node.online.again import Replayed, asked_for
from recon_node.online.node import Node
from recon_node.online.received import changed
from recon_node.settings import Settings

log = logging.getLogger(__name__)

Resolve = Callable[[str, Mapping[str, str]], Settings]
"""Settings of a configuration's name and properties."""

_PAUSE_S = 5.0
_EXPIRE_S = 60.0
"""Between two looks for what is too old to be kept."""
_LONGEST_WAIT_S = 600.0
"""Until a scan that failed for a reason that may pass (a full disk, a lost device) is tried again."""


class Background:
    """A thread that reconstructs what waits, until the ``with`` block ends.

    Scans come from this process, and from Gadgetron's modules, which live as long as their scan at most. Of
    several processes only one works on a folder; another takes over when it ends. A node that was killed goes
    on where it stopped.

    Parameters
    ----------
    node : Node
    scans : Captures
        On disk.
    resolve : callable
        See `Resolve`.
    protect : callable, optional
        See `recon_node.mrd.connection.Protect`.
    """

    def __init__(
        self, node: Node, scans: Captures, resolve: Resolve, *, protect: Protect | None = None
    ) -> None:
        self.node = node
        self.scans = scans
        self._resolve = resolve
        self._protect = protect
        self._stop = threading.Event()
        self._work = threading.Event()
        self._waits: dict[str, float] = {}
        self._resume: dict[str, float] = {}
        self._expired = -_EXPIRE_S
        self.thread = Supervised("deferred", self._run, self._stop, longest_wait_s=30.0)

    def wake(self) -> None:
        """There may be something to do."""
        self._work.set()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._work.set()
        self.thread.join(self.node.settings.server.drain_s)
        self.scans.release()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._step():
                    continue
            except OSError as error:
                log.warning("deferred scans cannot be read or written: %s", error.strerror)
            self._work.wait(_PAUSE_S)
            self._work.clear()

    def _step(self) -> bool:
        """Reconstruct one scan; False if there is none, or another process works on them."""
        if not self.scans.own():
            return False
        recover(self.scans, finish=self.node.settings.server.on_vanish == "finish")
        if time.monotonic() - self._expired > _EXPIRE_S:
            self.scans.expire()
            self._expired = time.monotonic()
        job = self._next()
        if job is not None:
            self._reconstruct(job)
        return job is not None

    def _next(self) -> Capture | None:
        now = time.monotonic()
        ready = [
            job
            for job in self.scans.open()
            if job.state == "waiting" and self._resume.get(job.scan_id, now) <= now
        ]
        if not ready:
            return None
        return ready[-1] if self.node.settings.server.queue == "newest" else ready[0]

    def _reconstruct(self, job: Capture) -> None:
        ending = guarded(lambda: self._finish(job), scan_id=job.scan_id)
        if ending.trouble is not None and not ending.retryable and job.kind != "deferred":
            log.warning("the fallback stands in", extra={"scan": job.scan_id})
            instead = guarded(lambda: self._finish(job, fallback=True), scan_id=job.scan_id)
            ending = ending if instead.trouble is not None and not instead.retryable else instead
        if ending.trouble is not None:
            self._failed(job, ending.trouble, retryable=ending.retryable)

    def _finish(self, job: Capture, *, fallback: bool = False) -> None:
        job = self._known(job)
        settings = self._resolve(job.configuration, job.properties)
        if fallback:
            settings = settings.replace("recon", method=settings.recon.fallback)
        with ExitStack() as stack:
            session = stack.enter_context(Replayed(job, self._stop))
            if self._protect is not None:
                stack.callback(self._protect(session.headers))
            try:
                self.node.reconstruct(session, settings, background=True)
            except SourceError:
                if job.whole and not session.stopped:
                    raise
            if session.stopped:
                return  # it is still waiting, for the next start
            method = "" if job.kind == "deferred" else settings.recon.method
            replace(job, settings=changed(settings), made_by=method).describe()
            job.finish(session.answers)
            self.node.metrics.exams.recovered(job.scan_id)
        log.info("deferred scan finished", extra={"scan": job.scan_id, "images": session.images})

    def _known(self, job: Capture) -> Capture:
        """The scan with what its bytes say, where the node did not come to note it."""
        if job.kind != "unknown":
            return job
        config = asked_for(job)
        properties = {k: v for k, v in config.properties.items() if k not in ("mode", "scan", "ticket")}
        with Replayed(job, self._stop) as session:
            whose = Identity.of(session.headers, "")
        known = replace(
            job,
            kind="direct",
            configuration=config.name,
            properties=properties,
            identity=replace(whose, sender=job.identity.sender),
        )
        known.describe()
        return known

    def _failed(self, job: Capture, reason: str, *, retryable: bool) -> None:
        log.warning("deferred scan failed", extra={"scan": job.scan_id})
        if not retryable:
            job.fail(reason)
            return
        wait = min(2 * self._waits.get(job.scan_id, _PAUSE_S / 2), _LONGEST_WAIT_S)
        self._waits[job.scan_id] = wait
        self._resume[job.scan_id] = time.monotonic() + wait

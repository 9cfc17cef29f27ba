"""Deferred scans, reconstructed one after the other while no console waits: to DICOM and the PACS."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from recon_node.core.errors import SourceError
from recon_node.core.supervise import Supervised
from recon_node.mrd.connection import Protect
from recon_node.mrd.guard import guarded
from recon_node.online.deferred_job import Job
from recon_node.online.deferred_scans import DeferredScans
from recon_node.online.deferred_session import Replayed
from recon_node.online.node import Node
from recon_node.settings import Settings

log = logging.getLogger(__name__)

Resolve = Callable[[str, Mapping[str, str]], Settings]
"""Settings of a configuration's name and properties."""

_PAUSE_S = 5.0
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
    scans : DeferredScans
        On disk.
    resolve : callable
        See `Resolve`.
    protect : callable, optional
        See `recon_node.mrd.connection.Protect`.
    """

    def __init__(
        self, node: Node, scans: DeferredScans, resolve: Resolve, *, protect: Protect | None = None
    ) -> None:
        self.node = node
        self.scans = scans
        self._resolve = resolve
        self._protect = protect
        self._stop = threading.Event()
        self._work = threading.Event()
        self._waits: dict[str, float] = {}
        self._resume: dict[str, float] = {}
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
        self.scans.recover(finish=self.node.settings.server.on_vanish == "finish")
        job = self._next()
        if job is not None:
            self._reconstruct(job)
        return job is not None

    def _next(self) -> Job | None:
        now = time.monotonic()
        ready = [
            job
            for job in self.scans.jobs()
            if job.state == "waiting" and self._resume.get(job.scan_id, now) <= now
        ]
        if not ready:
            return None
        return ready[-1] if self.node.settings.server.queue == "newest" else ready[0]

    def _reconstruct(self, job: Job) -> None:
        ending = guarded(lambda: self._finish(job), scan_id=job.scan_id)
        if ending.trouble is not None:
            self._failed(job, ending.trouble, retryable=ending.retryable)

    def _finish(self, job: Job) -> None:
        settings = self._resolve(job.configuration, job.properties)
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
            job.finish(session.answers)
        log.info("deferred scan finished", extra={"scan": job.scan_id, "images": session.images})

    def _failed(self, job: Job, reason: str, *, retryable: bool) -> None:
        log.warning("deferred scan failed", extra={"scan": job.scan_id})
        if not retryable:
            job.fail(reason)
            return
        wait = min(2 * self._waits.get(job.scan_id, _PAUSE_S / 2), _LONGEST_WAIT_S)
        self._waits[job.scan_id] = wait
        self._resume[job.scan_id] = time.monotonic() + wait

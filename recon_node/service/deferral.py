"""Long reconstructions that no console waits for: quick images now, the network's later.

A deferred scan is kept on disk while the console gets the fallback method's images. Once the connection has
closed, a thread in the background makes the images that were asked for: DICOM as for every scan, and kept
for the console to fetch with mode ``retrieve``. A node that was killed goes on where it stopped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from recon_node.core.errors import ConfigError, DataError, ReconNodeError, SourceError, UnsupportedScan
from recon_node.service.deferred_scans import DeferredScans, Job
from recon_node.service.deferred_session import Following, Replayed
from recon_node.service.node import Node
from recon_node.settings import Settings
from recon_node.sources.connection import Protect, where_it_failed
from recon_node.sources.messages import ImageMessage
from recon_node.sources.session import ScanSession
from recon_node.sources.wire import read_messages

log = logging.getLogger(__name__)

Resolve = Callable[[str, Mapping[str, str]], Settings]
"""Settings of a configuration's name and properties."""

_PAUSE_S = 5.0
_LONGEST_WAIT_S = 600.0
"""Until a scan that failed for a reason that may pass (a full disk, a lost device) is tried again."""


class Deferral:
    """Takes deferred scans, reconstructs them in the background, and hands them back.

    Parameters
    ----------
    node : Node
    scans : DeferredScans
        On disk.
    resolve : callable
        See `Resolve`.
    protect : callable, optional
        See `recon_node.sources.connection.Protect`.
    """

    def __init__(
        self, node: Node, scans: DeferredScans, resolve: Resolve, *, protect: Protect | None = None
    ) -> None:
        self.node = node
        self.scans = scans
        self._resolve = resolve
        self._protect = protect
        self._stopping = threading.Event()
        self._work = threading.Event()
        self._waits: dict[str, float] = {}
        self._resume: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="deferred", daemon=True)

    def __enter__(self) -> Self:
        if self.scans.own():
            self.scans.recover(finish=self.node.settings.server.on_vanish == "finish")
            self._thread.start()
        else:
            log.warning("another node works on the deferred scans of this folder: scans cannot be deferred")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(self.node.settings.server.drain_s)
        self.scans.release()

    def _check(self) -> None:
        if not self._thread.is_alive():
            raise ConfigError(
                f"another node works on the deferred scans in {self.scans.folder.name}: "
                "give this one a folder of its own (server.deferred)"
            )

    def defer(self, session: ScanSession, settings: Settings, properties: Mapping[str, str]) -> None:
        """Keep a scan, and answer with the fallback's images.

        Parameters
        ----------
        session : ScanSession
        settings : Settings
            With mode ``deferred``.
        properties : mapping
            What the peer asked for; the scan is reconstructed with them.

        Raises
        ------
        SourceError
            The stream broke off; what was complete is kept where the settings say so.
        DataError
            There is no room for the scan.
        ConfigError
            Another node works on this folder.
        """
        self._check()
        configuration = session.config.name
        with self.scans.start(
            session.scan_id, session.headers, configuration=configuration, properties=properties
        ) as arriving:
            following = Following(session, arriving.following)
            try:
                self._quick(following, settings, arriving.sync)
            except SourceError as error:
                if settings.server.on_vanish == "finish" and not isinstance(error, UnsupportedScan):
                    arriving.keep(whole=False)
                    self._work.set()
                raise
            arriving.keep(whole=True)
        session.text(f"deferred as {arriving.job.scan_id}: the {settings.recon.method} series follows")
        self._work.set()

    def _quick(self, session: ScanSession, settings: Settings, sync: Callable[[], None]) -> None:
        quick = settings.replace("recon", method=settings.recon.fallback)
        place = self.node.turns.place(priority=settings.delivery.priority)
        try:
            for slice_ in self.node.slices(session, quick, place):
                sync()
                images = slice_.result.images
                name = " ".join(filter(None, (images.header.protocol, images.made_by.method, "quick look")))
                session.reply(images, verdict=slice_.result.verdict, description=name)
        except SourceError:
            raise
        except ReconNodeError as error:
            # The scan itself is not lost: read on, so that all of it is kept.
            session.text(f"WRN no quick images: {error}")
            for _ in session:
                pass

    def retrieve(self, session: ScanSession, scan_id: str | None) -> None:
        """Hand back the finished scans of this patient that were not handed back yet.

        Parameters
        ----------
        session : ScanSession
            Its header says whose scans are asked for; its data is not used.
        scan_id : str, optional
            This scan alone, also if it was handed back before.

        Raises
        ------
        DataError
            Nothing is known of such a scan, or it failed.
        """
        self._check()
        for _ in session:
            pass
        jobs = self.scans.of_patient(session.headers, scan_id)
        if not jobs:
            raise DataError(
                "no deferred scan of this patient is known to this node: expected the same patient and study "
                "in the header, and without a patient the property scan"
            )
        fresh = [job for job in jobs if job.state == "done" and (scan_id is not None or not job.handed)]
        for job in fresh:
            self._hand_over(job, session)
        for job in jobs:
            if job.state in ("waiting", "arriving"):
                session.text(f"WRN deferred scan {job.scan_id} is not finished yet: ask again later")
        failed = [
            f"deferred scan {job.scan_id} failed: {job.reason}" for job in jobs if job.state == "failed"
        ]
        if failed and not fresh:
            raise DataError("; ".join(failed))

    def _hand_over(self, job: Job, session: ScanSession) -> None:
        sent = True
        for message in read_messages(memoryview(job.images.read_bytes()), close_optional=True):
            if isinstance(message, ImageMessage):
                sent = session.send_image(message)
        if sent:
            job.hand_over()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                job = self._next()
                if job is not None:
                    self._reconstruct(job)
                    continue
            except OSError as error:
                log.warning("deferred scans cannot be read or written: %s", error.strerror)
            self._work.wait(_PAUSE_S)
            self._work.clear()

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
        try:
            settings = self._resolve(job.configuration, job.properties)
            with ExitStack() as stack:
                session = stack.enter_context(Replayed(job, self._stopping))
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
        except ReconNodeError as error:
            self._failed(job, str(error), retryable=error.retryable)
        except Exception as error:  # noqa: BLE001 - one scan must not end the thread that serves all
            self._failed(job, f"internal error: {where_it_failed(error)}", retryable=False)
        else:
            log.info("deferred scan finished", extra={"scan": job.scan_id, "images": session.images})

    def _failed(self, job: Job, reason: str, *, retryable: bool) -> None:
        log.warning("deferred scan failed: %s", reason, extra={"scan": job.scan_id})
        if not retryable:
            job.fail(reason)
            return
        wait = min(2 * self._waits.get(job.scan_id, _PAUSE_S / 2), _LONGEST_WAIT_S)
        self._waits[job.scan_id] = wait
        self._resume[job.scan_id] = time.monotonic() + wait

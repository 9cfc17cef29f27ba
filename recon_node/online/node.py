"""The node at work on one scan: the same for the MRD server, the Gadgetron gadget and deferred scans.

What must not be lost is on disk before a reply leaves: DICOM files first (and their place in the
spool, where there are destinations), then the images to the scanner.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from recon_node.core.disk import check_room
from recon_node.core.durable import HIDDEN_FOLDER, sweep
from recon_node.core.errors import TruncatedStream
from recon_node.core.scan import SliceIndex
from recon_node.delivery import Spool
from recon_node.mrd.session import ScanSession
from recon_node.online.answer import answer
from recon_node.online.device_queue import DeviceQueue
from recon_node.online.frames import with_frames
from recon_node.online.metrics import Metrics
from recon_node.online.prefetch import Prefetch
from recon_node.online.retention import mark_not_queued
from recon_node.pipeline.queue import enqueue
from recon_node.pipeline.result import Slice
from recon_node.pipeline.row import Pipeline, Queue, row
from recon_node.pipeline.scan import expected_slices
from recon_node.pipeline.write import SeriesWriter
from recon_node.settings import Settings

log = logging.getLogger(__name__)

Observer = Callable[[Slice], None]
Watch = Callable[[ScanSession, bool], AbstractContextManager[Observer]]
"""Entered for each scan (and whether it is a deferred one); what that gives is told of each slice."""


class Node:
    """Reconstructs scans that arrive, one slice at a time on the device, however many scans are open.

    Parameters
    ----------
    settings : Settings
        The whole tree.
    spool : Spool, optional
        Where instances are queued for the destinations in `settings.delivery`.
    observer : callable, optional
        Told of each finished slice and its files.
    metrics : Metrics, optional
        Counters that are kept up to date.
    watch : callable, optional
        Sees scans come and go, for the status page.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        spool: Spool | None = None,
        observer: Observer | None = None,
        metrics: Metrics | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.observer = observer
        self.metrics = metrics or Metrics()
        self._watch = watch or (lambda session, background: nullcontext(lambda done: None))
        self.device_queue = DeviceQueue(settings.server.queue)
        SeriesWriter.from_settings(settings, Path(settings.server.out))
        sweep(Path(settings.server.out), f"**/{HIDDEN_FOLDER}*")
        Pipeline(settings)

    def check_room(self, spool: Spool | None) -> None:
        """See that a scan has room on the disks that it is written to.

        Raises
        ------
        DiskFull, SpoolFull
            One of them is nearly full.
        """
        check_room(Path(self.settings.server.out), "the images", self.settings.delivery.reserve_mb << 20)
        if spool is not None:
            spool.check_room(0)

    def reconstruct(
        self,
        session: ScanSession,
        settings: Settings,
        *,
        spool: Spool | None = None,
        background: bool = False,
        arriving: bool = False,
    ) -> None:
        """Reconstruct one scan: each slice to DICOM, to the spool, and back to the session.

        Parameters
        ----------
        session : ScanSession
        settings : Settings
            The node's, changed by what the peer asked for.
        spool : Spool, optional
            In place of the node's own.
        background : bool
            Whether slices of scans at a console go first.
        arriving : bool
            As for `slices`.

        Raises
        ------
        SourceError
            The stream broke off, after its complete slices were finished where the settings say so.
        DeliveryError
            Slices went back to the session, but not into the spool.
        DiskFull, SpoolFull
            A disk is nearly full.
        ReconNodeError
            The scan cannot be reconstructed.
        """
        spool = self.spool if spool is None else spool
        self.check_room(spool)
        writer = SeriesWriter.from_settings(settings, Path(settings.server.out), fsync=True)
        queue = None if spool is None else self._queue(spool, session.scan_id, settings)
        progress = Progress(session)
        with self._watch(session, background) as told:
            for done in self.slices(
                session, settings, background=background, arriving=arriving, writer=writer, queue=queue
            ):
                result = done.result
                latency = None if background else time.monotonic() - done.arrived
                self.metrics.on_slice(done.seconds, result.verdict.verdict, len(done.instances), latency)
                self.metrics.exams.on_slice(session.scan_id, result.verdict.verdict, done.instances)
                told(done)
                if self.observer is not None:
                    self.observer(done)
                sent = answer(session, result)
                if not sent and settings.server.on_vanish == "stop":
                    raise TruncatedStream(
                        "the client went away before its images were sent; its scan is stopped"
                    )
                progress.say(done)

    def _queue(self, spool: Spool, scan_id: str, settings: Settings) -> Queue:
        return lambda series: self.metrics.exams.on_queued(scan_id, _queued(spool, settings, series))

    def slices(
        self,
        session: ScanSession,
        settings: Settings,
        *,
        background: bool = False,
        arriving: bool = False,
        writer: SeriesWriter | None = None,
        queue: Queue | None = None,
        wanted: Callable[[SliceIndex], bool] = lambda index: True,
    ) -> Iterator[Slice]:
        """The row for a scan that arrives: reading goes on meanwhile, and one slice at a time has the device.

        With `arriving` a peer watches its scan, and gets preliminary images where the settings want these.
        `wanted` is as for `recon_node.pipeline.row.row`.

        Raises
        ------
        ReconNodeError
            As `recon_node.pipeline.row.row`.
        """
        again = session.capture is not None and session.capture.open  # then another try comes first
        place = self.device_queue.place(priority=settings.delivery.priority, background=background)
        rows = partial(
            row,
            session,
            Pipeline(settings),
            writer=writer,
            queue=queue,
            ahead=lambda prepared: Prefetch(prepared, settings.server.slices_ahead),
            turn=lambda: self.device_queue.turn(place),
            salvage=settings.server.on_vanish == "finish",
            hurry=not background and not again,
            wanted=wanted,
        )
        if not arriving:
            return rows()
        return with_frames(
            settings,
            lambda watch: rows(watch=watch),
            session.show,
            say=session.text,
            on_frame=self.metrics.on_frame,
            last_data=lambda: session.last_data,
        )


def _queued(spool: Spool, settings: Settings, files: Sequence[Path]) -> int:
    """Queue the files of one slice; where they went nowhere, mark them as kept nowhere else."""
    places = 0
    try:
        places = enqueue(spool, files, settings.delivery)
    finally:
        if not places and settings.server.out_keep_h is not None:
            mark_not_queued(files)
    return places


class Progress:
    """Tells the console and the log how far a scan is."""

    def __init__(self, session: ScanSession) -> None:
        self._session = session
        self._total = expected_slices(session.headers)
        self._started = time.monotonic()
        self._count = 0

    def say(self, done: Slice) -> None:
        """One slice more is done."""
        result = done.result
        self._count += 1
        count, total = self._count, self._total
        log.info(
            "slice reconstructed",
            extra={
                "scan": self._session.scan_id,
                "slice": result.kspace.index.slice,
                "method": result.images.made_by.method,
                "images": int(result.images.data.shape[0]),
                "seconds": round(sum(done.seconds.values()), 3),
            },
        )
        of = "" if total is None else f" of {total}"
        seconds = time.monotonic() - self._started
        left = "" if total is None or total <= count else f", {seconds / count * (total - count):.1f} s left"
        self._session.text(f"slice {count}{of}{left}")
        if result.verdict.expected is not None:
            self._session.text(f"slice {result.kspace.index.slice}: {result.verdict.expected.sentence}")
        for reason in (*result.verdict.reasons, *result.kspace.notes):
            self._session.text(f"WRN slice {result.kspace.index.slice}: {reason}")

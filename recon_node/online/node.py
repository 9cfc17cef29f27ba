"""The node at work on one scan: the same for the MRD server, the Gadgetron gadget and deferred scans.

What must not be lost is on disk before a reply leaves: DICOM files first (and their place in the
spool, where there are destinations), then the images to the scanner.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon_node.core.disk import check_room
from recon_node.core.durable import HIDDEN_FOLDER, sweep
from recon_node.core.errors import DataError, DeliveryError, ReconNodeError, SourceError, TruncatedStream
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.core.types import KSpace
from recon_node.delivery import Spool
from recon_node.dicom import WrittenInstance
from recon_node.mrd.session import ScanSession
from recon_node.online.device_queue import Place, Turns
from recon_node.online.metrics import Metrics
from recon_node.online.prefetch import Ahead
from recon_node.pipeline.queue import enqueue
from recon_node.pipeline.scan import Scan, told_together
from recon_node.pipeline.stages import Pipeline, Reconstruction
from recon_node.pipeline.write import SeriesWriter
from recon_node.settings import DeliverySettings, DicomSettings, LogSettings, ServerSettings, Settings

log = logging.getLogger(__name__)

_PIPELINES_KEPT = 4
"""Sets of settings whose networks stay loaded."""

Observer = Callable[[Reconstruction, Sequence[WrittenInstance]], None]


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
    """

    def __init__(
        self,
        settings: Settings,
        *,
        spool: Spool | None = None,
        observer: Observer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.observer = observer
        self.metrics = metrics or Metrics()
        self.turns = Turns(settings.server.queue)
        self._pipelines: list[tuple[Settings, Pipeline]] = []
        self._loading = threading.Lock()
        SeriesWriter.from_settings(settings, Path(settings.server.out))
        sweep(Path(settings.server.out), f"*/{HIDDEN_FOLDER}*")
        self.pipeline(settings)

    def pipeline(self, settings: Settings) -> Pipeline:
        """The pipeline for these settings; the latest few stay loaded.

        Raises
        ------
        WeightsError
            The weights cannot be loaded.
        """
        key = dataclasses.replace(
            settings,
            dicom=DicomSettings(),
            delivery=DeliverySettings(),
            server=ServerSettings(),
            log=LogSettings(),
        )
        with self._loading:
            for known, pipeline in self._pipelines:
                if known == key:
                    return pipeline
            pipeline = Pipeline(key)
            self._pipelines = [*self._pipelines[-_PIPELINES_KEPT + 1 :], (key, pipeline)]
            return pipeline

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
        progress = Progress(session)
        unqueued: list[DeliveryError] = []
        place = self.turns.place(priority=settings.delivery.priority, background=background)
        for slice_ in self.slices(session, settings, place):
            result = slice_.result
            instances = writer.write(result, slice_.source_id)
            if spool is not None:
                try:
                    enqueue(spool, [instance.path for instance in instances], settings.delivery)
                except DeliveryError as error:
                    unqueued.append(error)
            latency = None if background else time.monotonic() - slice_.arrived
            self.metrics.on_slice(result.seconds, result.verdict.verdict, len(instances), latency)
            if self.observer is not None:
                self.observer(result, instances)
            sent = session.reply(result.images, verdict=result.verdict)
            if not sent and settings.server.on_vanish == "stop":
                raise TruncatedStream("the client went away before its images were sent; its scan is stopped")
            progress.say(result)
        if unqueued:
            raise DeliveryError(
                f"{len(unqueued)} slices did not get into the spool ({unqueued[0]}); their files lie in "
                f"{settings.server.out}: `recon-node export` delivers them"
            ) from unqueued[0]

    def slices(self, session: ScanSession, settings: Settings, place: Place) -> Iterator[ReconstructedSlice]:
        """Reconstruct slice by slice; reading goes on meanwhile.

        Raises
        ------
        DataError
            Slices could not be reconstructed, told after all the others were.
        ReconNodeError
            As `reconstruct`.
        """
        refused: list[str] = []
        pipeline = self.pipeline(settings)
        stream = Broken(session)
        scan = Scan(stream, settings.prep)
        salvage = settings.server.on_vanish == "finish"
        with Ahead(arrivals(stream, scan, salvage=salvage), settings.server.slices_ahead) as items:
            for arrival in items:
                try:
                    with self.turns.turn(place):
                        result = pipeline.run(arrival.kspace, prepared_s=arrival.prepared_s)
                except DataError as error:
                    refused.append(str(error))
                    continue
                yield ReconstructedSlice(result=result, source_id=scan.source_id, arrived=arrival.at)
        if refused:
            raise DataError(told_together(refused))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrival:
    """K-space of one slice."""

    kspace: KSpace
    at: float
    """When its last line came, `time.monotonic()` seconds."""
    prepared_s: float
    """How long it took to receive and prepare."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReconstructedSlice:
    """One slice, and when its last line came."""

    result: Reconstruction
    source_id: str
    arrived: float
    """`time.monotonic()` seconds."""


class Broken:
    """A session's readouts, ending quietly where the stream breaks off; `error` tells that it did.

    Breaking off is whatever keeps the rest from being read: a client that is gone, silent or no longer
    makes sense. What came before was whole.
    """

    def __init__(self, session: ScanSession) -> None:
        self.session = session
        self.error: SourceError | None = None

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding."""
        return self.session.headers

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        try:
            yield from self.session
        except SourceError as error:
            self.error = error


def arrivals(stream: Broken, scan: Scan, *, salvage: bool) -> Iterator[Arrival]:
    """Each slice of `scan`, which reads `stream`.

    Raises
    ------
    SourceError
        The stream broke off. With `salvage`, the slices that had all of their lines came before.
    """
    slices = iter(scan)
    while True:
        try:
            kspace = next(slices, None)
        except ReconNodeError:
            if stream.error is None:
                raise
            kspace = None  # what is left of a broken stream cannot be reconstructed
        if kspace is None:
            break
        if stream.error is None or (salvage and kspace.lines_found >= kspace.lines_expected):
            yield Arrival(kspace=kspace, at=stream.session.last_data, prepared_s=scan.waited_s)
    if stream.error is not None:
        raise stream.error


class Progress:
    """Tells the console and the log how far a scan is."""

    def __init__(self, session: ScanSession) -> None:
        self._session = session
        self._total = expected_slices(session.headers)
        self._started = time.monotonic()
        self._count = 0

    def say(self, result: Reconstruction) -> None:
        """One slice more is done."""
        self._count += 1
        count, total = self._count, self._total
        log.info(
            "slice reconstructed",
            extra={
                "scan": self._session.scan_id,
                "slice": result.kspace.index.slice,
                "method": result.images.made_by.method,
                "images": int(result.images.data.shape[0]),
                "seconds": round(sum(result.seconds.values()), 3),
            },
        )
        of = "" if total is None else f" of {total}"
        seconds = time.monotonic() - self._started
        left = "" if total is None or total <= count else f", {seconds / count * (total - count):.1f} s left"
        self._session.text(f"slice {count}{of}{left}")
        for reason in (*result.verdict.reasons, *result.kspace.notes):
            self._session.text(f"WRN slice {result.kspace.index.slice}: {reason}")


def expected_slices(headers: Sequence[ScanHeader]) -> int | None:
    """How many k-spaces the headers announce; None where they do not say."""
    total = 0
    for header in headers:
        if "slice" not in header.limits:
            return None
        count = 1
        for name in ("slice", "contrast", "set", "repetition"):
            count *= header.limits[name].size if name in header.limits else 1
        total += count
    return total

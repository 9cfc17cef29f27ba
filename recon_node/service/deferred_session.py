"""A deferred scan as a session: on its way to the disk, and back from there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from recon_node.core.errors import SourceError
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.core.types import ImageSeries, Verdict
from recon_node.service.deferred_scans import Job
from recon_node.sources.config import ScanConfig
from recon_node.sources.files import open_source
from recon_node.sources.images import PixelType, image_messages
from recon_node.sources.messages import ImageMessage, image_bytes
from recon_node.sources.session import ScanSession

log = logging.getLogger(__name__)


class Following:
    """A session whose data is kept on its way through."""

    def __init__(
        self,
        session: ScanSession,
        keep: Callable[[Iterable[Readouts | Waveform]], Iterator[Readouts | Waveform]],
    ) -> None:
        self._session = session
        self._items = keep(session)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self.scan_id = session.scan_id
        self.headers = session.headers
        self.config = session.config
        self.text = session.text
        self.reply = session.reply
        self.send_image = session.send_image

    @property
    def peer_gone(self) -> bool:
        """Whether answers cannot reach the peer any more."""
        return self._session.peer_gone

    @property
    def last_data(self) -> float:
        """When the latest message came, `time.monotonic()` seconds."""
        return self._session.last_data

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """What has not been read yet, whoever read before."""
        while (item := self._next()) is not None:
            yield item

    def _next(self) -> Readouts | Waveform | None:
        with self._lock:
            if self._error is not None:
                raise self._error
            try:
                return next(self._items, None)
            except BaseException as error:
                self._error = error
                raise


class Replayed:
    """A deferred scan as a session: its replies are collected, for the console to fetch."""

    def __init__(self, job: Job, stopping: threading.Event) -> None:
        self._source = open_source(job.scan)
        self._stopping = stopping
        self.scan_id = job.scan_id
        self.headers: tuple[ScanHeader, ...] = self._source.headers
        self.config = ScanConfig(name=job.configuration, properties=job.properties)
        self.peer_gone = False
        self.last_data = 0.0
        self.stopped = False
        self.whole = job.whole
        self.images: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """The readouts that were kept.

        Raises
        ------
        SourceError
            The node is stopping, or the client had vanished before the end of its scan.
        """
        for item in self._source:
            if self._stopping.is_set():
                self.stopped = True
                raise SourceError("the node is stopping")
            yield item
        if not self.whole:
            raise SourceError("the client vanished before the end of its scan")

    def reply(
        self,
        images: ImageSeries,
        *,
        series_index: int = 1,
        description: str | None = None,
        verdict: Verdict | None = None,
        pixels: PixelType = "float32",
    ) -> bool:
        """Keep the images of one slice."""
        messages = image_messages(
            images, series_index=series_index, description=description, verdict=verdict, pixels=pixels
        )
        self.images.extend(map(image_bytes, messages))
        return True

    def send_image(self, image: ImageMessage) -> bool:
        """Keep one image."""
        self.images.append(image_bytes(image))
        return True

    def text(self, line: str) -> bool:
        """Log a line: there is no console."""
        log.debug("%s", line, extra={"scan": self.scan_id})
        return True

"""A deferred scan as a session: on its way to the disk, and back from there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from recon_node.core.errors import SourceError
from recon_node.core.scan import Readouts, Waveform
from recon_node.files.open import open_source
from recon_node.mrd.request import ScanConfig
from recon_node.mrd.session import Answering, ScanSession
from recon_node.online.deferred_job import Job

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
        self.peer = session.peer
        self.attributes = session.attributes
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


class Replayed(Answering):
    """A deferred scan as a session: its replies are collected, for the console to fetch."""

    def __init__(self, job: Job, stopping: threading.Event) -> None:
        self._source = open_source(job.scan)
        config = ScanConfig(name=job.configuration, properties=job.properties)
        super().__init__(job.scan_id, self._source.headers, config)
        self._stopping = stopping
        self._whole = job.whole
        self.stopped = False
        self.answers: list[bytes] = []

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
        if not self._whole:
            raise SourceError("the client vanished before the end of its scan")

    def text(self, line: str) -> bool:
        """Log a line: there is no console."""
        log.debug("%s", line, extra={"scan": self.scan_id})
        return True

    def _put(self, data: bytes | memoryview) -> bool:
        self.answers.append(bytes(data))
        return True

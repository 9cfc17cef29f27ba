"""Received scans as sessions: on their way to the disk, and back from there."""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from recon_node.core.errors import SourceError
from recon_node.core.scan import Readouts, SliceIndex, Waveform
from recon_node.core.types import ImageSeries
from recon_node.files.mrd_file import MrdFileSource
from recon_node.mrd.captures import Capture
from recon_node.mrd.frames import FrameReader
from recon_node.mrd.messages import ImageMessage
from recon_node.mrd.request import ScanConfig
from recon_node.mrd.session import Answering, ScanSession, WireSession

log = logging.getLogger(__name__)


class Following:
    """A session that several readers share, and that answers each slice once.

    Parameters
    ----------
    session : ScanSession
    items : iterable, optional
        Its data, where they are kept on their way.
    """

    def __init__(self, session: ScanSession, items: Iterable[Readouts | Waveform] | None = None) -> None:
        self._session = session
        self._items = iter(session if items is None else items)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._answered: set[tuple[int, SliceIndex]] = set()
        self.scan_id = session.scan_id
        self.headers = session.headers
        self.config = session.config
        self.peer = session.peer
        self.attributes = session.attributes
        self.capture = session.capture
        self.text = session.text
        self.show = session.show

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

    def reply(self, images: ImageSeries, *, series_index: int = 1, **options: Any) -> bool:
        """Send the images of a slice that was not answered yet; False if the peer is gone."""
        if (series_index, images.index) in self._answered:
            return not self.peer_gone
        sent = self._session.reply(images, series_index=series_index, **options)
        self._answered.add((series_index, images.index))
        return sent

    def send_image(self, image: ImageMessage) -> bool:
        """Send one image as it is; False if the peer is gone."""
        return self._session.send_image(image)

    def unanswered(self, index: SliceIndex) -> bool:
        """Whether images of a slice are still to be answered."""
        return all(index != answered for _, answered in self._answered)


class Replayed(Answering):
    """A received scan as a session.

    Parameters
    ----------
    capture : Capture
    stopping : threading.Event
        Ends it.
    to : Following, optional
        Who gets the replies; they are collected otherwise, for whoever fetches them.

    Raises
    ------
    SourceError
        Its raw data were given up, or hold no header.
    """

    def __init__(self, capture: Capture, stopping: threading.Event, *, to: Following | None = None) -> None:
        raw = capture.raw
        if raw is None:
            raise SourceError(f"the raw data of scan {capture.scan_id} are not kept any more")
        self._source = MrdFileSource(raw)
        config = ScanConfig(name=capture.configuration, properties=capture.properties)
        super().__init__(capture.scan_id, self._source.headers, config)
        self._stopping = stopping
        self._whole = capture.whole
        self._to = to
        if to is not None:
            self.capture = to.capture  # there is another try behind this one
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

    def reply(self, images: ImageSeries, **options: Any) -> bool:
        """Hand the images on, or keep them."""
        if self._to is not None:
            self.images += len(images.data)
            return self._to.reply(images, **options)
        return super().reply(images, **options)

    def text(self, line: str) -> bool:
        """Log a line: there is no console."""
        log.debug("%s", line, extra={"scan": self.scan_id})
        return True

    def _put(self, data: bytes | memoryview) -> bool:
        self.answers.append(bytes(data))
        return True


def asked_for(capture: Capture) -> ScanConfig:
    """What the peer asked for, from the received bytes: they may be all that is known.

    Raises
    ------
    SourceError
        There is no header.
    """
    raw = capture.raw
    if raw is None:
        raise SourceError(f"the raw data of scan {capture.scan_id} are not kept any more")
    try:
        with raw.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            session = WireSession(capture.scan_id, FrameReader(memoryview(data[:])), lambda data: True)
            session.read_header()
            session.read_parameters()
    except (OSError, ValueError) as error:
        raise SourceError(f"the raw data of scan {capture.scan_id} cannot be read ({error})") from error
    return session.config

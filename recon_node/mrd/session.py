"""One scan over a connection: a `Source` of readouts that can also answer with images."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol

from recon_node.core.errors import ProtocolError
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.core.types import ImageSeries, Verdict
from recon_node.mrd.captures import Arriving
from recon_node.mrd.frames import Frame, FrameReader
from recon_node.mrd.header import parse_header
from recon_node.mrd.images import PixelType, image_messages
from recon_node.mrd.messages import (
    ConfigFile,
    ConfigText,
    HeaderXml,
    ImageMessage,
    MessageId,
    RemoteError,
    Text,
    image_bytes,
    text_bytes,
)
from recon_node.mrd.meta import Values
from recon_node.mrd.request import ScanConfig, config_from_name, config_from_text, parameters_from_json
from recon_node.mrd.wire import decode

log = logging.getLogger(__name__)


class ScanSession(Protocol):
    """What a scan handler gets, from the MRD server and from the gadget alike."""

    @property
    def scan_id(self) -> str:
        """Random name of this scan, safe to log."""

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding."""

    @property
    def config(self) -> ScanConfig:
        """What the peer asked for."""

    @property
    def peer(self) -> str:
        """Address of the peer; empty where there is none."""

    @property
    def attributes(self) -> dict[str, str]:
        """Meta attributes of all images answered from now on."""

    capture: Arriving | None
    """Where what comes is kept on disk; None where it is not."""

    @property
    def peer_gone(self) -> bool:
        """Whether answers cannot reach the peer any more."""

    @property
    def last_data(self) -> float:
        """When the latest message came, `time.monotonic()` seconds."""

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        """Readouts as they arrive, in runs of one shape."""

    def reply(
        self,
        images: ImageSeries,
        *,
        series_index: int = 1,
        description: str | None = None,
        verdict: Verdict | None = None,
        pixels: PixelType = "float32",
    ) -> bool:
        """Send images now; False (never an exception) if the peer is gone."""

    def show(
        self,
        images: ImageSeries,
        *,
        series_index: int,
        description: str,
        phases: tuple[int, int],
        attributes: Mapping[str, Values],
    ) -> bool:
        """Send images that are no answer, where they keep none waiting; False if they were left out.

        They are neither counted nor kept with the scan. Any thread may call it.
        """

    def send_image(self, image: ImageMessage) -> bool:
        """Send one image as it is; False if the peer is gone."""

    def text(self, line: str) -> bool:
        """Show a line of progress on the peer's console, where it has one."""


_EXPECTED_DATA = ("ACQUISITION", "WAVEFORM", "IMAGE", "TEXT", "CLOSE")
_EXPECTED = {MessageId[name] for name in (*_EXPECTED_DATA, "CONFIG_FILE", "CONFIG_TEXT", "HEADER", "ERROR")}

ScanHandler = Callable[[ScanSession], None]
"""Reconstructs one scan. Raising a `ReconNodeError` tells the peer why; returning ends the scan well."""


class Answering(ABC):
    """The answering half of a session: images become messages for `_put`.

    Parameters
    ----------
    scan_id : str
    headers : tuple of ScanHeader
    config : ScanConfig
    """

    first_series = 1
    """Image series index that the handler's series 1 gets."""

    def __init__(
        self, scan_id: str, headers: tuple[ScanHeader, ...] = (), config: ScanConfig | None = None
    ) -> None:
        self._scan_id = scan_id
        self._headers = headers
        self._config = config or ScanConfig()
        self._gone = False
        self._last_data = time.monotonic()
        self.peer = ""
        """Address of the peer; empty where there is none."""
        self.attributes: dict[str, str] = {}
        """Meta attributes of all images answered from now on."""
        self.capture: Arriving | None = None
        """Where what comes is kept on disk; None where it is not."""
        self.images = 0
        """Images answered so far."""

    @property
    def scan_id(self) -> str:
        """Random name of this scan, safe to log."""
        return self._scan_id

    @property
    def headers(self) -> tuple[ScanHeader, ...]:
        """One per encoding."""
        return self._headers

    @property
    def config(self) -> ScanConfig:
        """What the peer asked for."""
        return self._config

    @property
    def peer_gone(self) -> bool:
        """Whether answers cannot reach the peer any more."""
        return self._gone

    @property
    def last_data(self) -> float:
        """When the latest message came, `time.monotonic()` seconds."""
        return self._last_data

    def reply(
        self,
        images: ImageSeries,
        *,
        series_index: int = 1,
        description: str | None = None,
        verdict: Verdict | None = None,
        pixels: PixelType = "float32",
    ) -> bool:
        """Send the images of one slice now; False if the peer is gone. See `images.image_messages`."""
        messages = image_messages(
            images,
            series_index=series_index + self.first_series - 1,
            description=description,
            verdict=verdict,
            pixels=pixels,
            attributes=self.attributes,
        )
        self.images += len(messages)
        return self._put(b"".join(map(image_bytes, messages)))

    def show(
        self,
        images: ImageSeries,
        *,
        series_index: int,
        description: str,
        phases: tuple[int, int],
        attributes: Mapping[str, Values],
    ) -> bool:
        """Send images that are no answer, where they keep none waiting; False if they were left out.

        Parameters
        ----------
        images : ImageSeries
        series_index : int
            As for `reply`.
        description : str
            Of the series.
        phases : (int, int)
            See `images.image_messages`.
        attributes : mapping
            Meta attributes beside those of all images.
        """
        messages = image_messages(
            images,
            series_index=series_index + self.first_series - 1,
            description=description,
            phases=phases,
            attributes={**self.attributes, **attributes},
        )
        return self._offer(b"".join(map(image_bytes, messages)))

    def send_image(self, image: ImageMessage) -> bool:
        """Send one image as it is; False if the peer is gone."""
        self.images += 1
        return self._put(image_bytes(image))

    def _offer(self, data: bytes) -> bool:
        """Take the bytes of messages that nobody has to get; False if they were left out."""
        del data
        return False

    @abstractmethod
    def _put(self, data: bytes | memoryview) -> bool:
        """Take the bytes of whole messages; False if the peer is gone."""


class WireSession(Answering):
    """The session of one connection of the MRD server.

    Parameters
    ----------
    scan_id : str
    reader : FrameReader
    send : callable
        Takes the bytes of whole messages; returns False when the peer is gone.
    peer : str
        Address of the peer; empty where it has none.
    on_frame : callable, optional
        Sees every frame before it is decoded (recording, limits).
    offer : callable, optional
        Takes the bytes of messages that the peer may leave; returns False where they were left out.
    """

    def __init__(
        self,
        scan_id: str,
        reader: FrameReader,
        send: Callable[[bytes | memoryview], bool],
        *,
        peer: str = "",
        on_frame: Callable[[Frame], None] | None = None,
        offer: Callable[[bytes], bool] = lambda data: False,
    ) -> None:
        super().__init__(scan_id)
        self.reader = reader
        reader.vet = self._vet
        self.peer = peer
        self._send = send
        self._on_frame = on_frame
        self._offered = offer
        self._first: Frame | None = None
        self.readouts = 0
        self.ignored = Counter[str]()
        """Messages that were of no use, by kind."""

    def read_header(self) -> None:
        """Read configuration and header.

        Raises
        ------
        ProtocolError
            Data, or a CLOSE, comes before the header.
        SourceError
            The header cannot be understood.
        """
        while not self._headers:
            frame = self._next()
            if frame is None or not self._settle(frame):
                raise ProtocolError(
                    "no ISMRMRD header before data or CLOSE, expected CONFIG_FILE or CONFIG_TEXT, then HEADER"
                )

    def read_parameters(self) -> None:
        """Read on to the first data, so that parameters sent after the header are known."""
        while self._first is None and (frame := self._next()) is not None:
            if not self._settle(frame):
                self._first = frame

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        frame, self._first = self._first or self._next(), None
        while frame is not None:
            for item in self._items(frame):
                if isinstance(item, Readouts):
                    self.readouts += len(item)
                yield item
            frame = self._next()

    def pass_on(self) -> None:
        """Read what is left for what goes back, or on, unchanged.

        Raises
        ------
        SourceError
            The stream broke off.
        """
        for _ in self:
            pass

    def text(self, line: str) -> bool:
        """Send a TEXT line (progress; ``WRN ...`` for a warning); False if the peer is gone."""
        return self._put(text_bytes(MessageId.TEXT, f"{line}\n"))

    def _put(self, data: bytes | memoryview) -> bool:
        if self.capture is not None:
            self.capture.sync()
            self.capture.answered(data)
        if not self._gone and not self._send(data):
            self._gone = True
            log.warning("peer went away before its images were sent", extra={"scan": self._scan_id})
        return not self._gone

    def _offer(self, data: bytes) -> bool:
        return not self._gone and self._offered(data)

    def _next(self) -> Frame | None:
        frame = self.reader.next_frame()
        if frame is None:
            return None
        self._last_data = time.monotonic()
        if self._on_frame is not None:
            self._on_frame(frame)
        return None if frame.message_id is MessageId.CLOSE else frame

    def _settle(self, frame: Frame) -> bool:
        """Take in a message that may precede the data; False if it is data."""
        match decode(frame):
            case ConfigFile(name=name):
                self._config = self._config.merged(config_from_name(name))
            case ConfigText(text=text):
                self._config = self._config.merged(config_from_text(text))
            case HeaderXml(xml=xml):
                if self._headers:
                    raise ProtocolError("a second ISMRMRD header arrived, expected one per connection")
                self._headers = parse_header(xml)
            case Text() as message:
                self._take_parameters(message)
            case _:
                return False
        return True

    def _take_parameters(self, message: Text) -> None:
        config = parameters_from_json(message.text)
        if config is None:
            self._ignore("TEXT")
            return
        self._config = self._config.merged(config)

    def _ignore(self, kind: str) -> None:
        """Log the first of its kind: a peer must not fill the log."""
        self.ignored[kind] += 1
        if self.ignored[kind] == 1:
            log.info("a %s message was ignored", kind, extra={"scan": self._scan_id})

    def _vet(self, message_id: MessageId) -> None:
        """Refuse what a scanner never sends before any of it is taken in."""
        if message_id not in _EXPECTED:
            raise ProtocolError(f"{message_id.name} came, expected {', '.join(_EXPECTED_DATA)}")

    def _items(self, frame: Frame) -> Collection[Readouts | Waveform]:
        """The data in a message; images that the peer sends go back unchanged."""
        message = decode(frame)
        match message:
            case Readouts() | Waveform():
                return [message]
            case ImageMessage():
                self.send_image(message)
            case Text():
                self._ignore("TEXT")
            case RemoteError():
                raise ProtocolError("the peer reported an error of its own and gave up the scan")
            case _:
                raise ProtocolError(
                    f"{type(message).__name__} among the data, "
                    "expected ACQUISITION, WAVEFORM, IMAGE, TEXT or CLOSE"
                )
        return []

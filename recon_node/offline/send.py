"""The MRD client: stream a raw data file to a server and keep the images that come back."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.errors import ProtocolError, SourceError, TruncatedStream, one_line
from recon_node.core.protocols import Source
from recon_node.core.scan import Readouts, Waveform
from recon_node.files.image_store import ImageStore
from recon_node.files.open import open_scans
from recon_node.mrd.frames import WireLimits
from recon_node.mrd.messages import (
    Close,
    ConfigFile,
    HeaderXml,
    ImageMessage,
    Message,
    RemoteError,
    Text,
)
from recon_node.mrd.transport import SocketTransport
from recon_node.mrd.wire import MessageWriter, read_messages

_TOLD = re.compile(r"(?P<kind>ERR|ERROR|WRN|WARNING)\b[: ]?(?P<rest>.*)", re.DOTALL)
"""Errors and warnings as this node's server and Gadgetron write them."""
ImageHook = Callable[[ImageMessage], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendSummary:
    """What became of a scan that was sent."""

    readouts: int
    images: int
    errors: tuple[str, ...]
    """Texts of the server that start with ERR, or ERROR as Gadgetron's do, without that word."""
    warnings: tuple[str, ...]
    """The same for WRN."""
    texts: tuple[str, ...]
    """All other texts."""
    closed: bool
    """Whether the server ended every scan with CLOSE."""
    seconds: float
    first_image_seconds: float | None
    """From connecting to the first image."""

    @property
    def ok(self) -> bool:
        """Whether the server finished every scan without an error."""
        return self.closed and not self.errors


def send_scan(
    path: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 9002,
    config: str = "default",
    properties: Mapping[str, str] | None = None,
    out: Path | None = None,
    group: str = "images",
    dataset: str | None = None,
    realtime: bool = False,
    timeout: float = 600.0,
    tls: ssl.SSLContext | None = None,
    on_image: ImageHook | None = None,
    on_text: Callable[[str], None] | None = None,
) -> SendSummary:
    """Send a file as a scanner would, receiving all the while; each of its scans on a connection of its own.

    Parameters
    ----------
    path : Path
        ISMRMRD HDF5 or MRD stream file.
    host, port : str, int
        The server.
    config : str
        Name of the configuration to ask for.
    properties : mapping, optional
        Parameters of the configuration, sent as OpenRecon does: JSON in a TEXT message after the header.
    out : Path, optional
        HDF5 file for the images (`image_store.ImageStore`), appended to where it exists.
    group : str
        Group in `out`.
    dataset : str, optional
        Which dataset of an HDF5 file that holds several.
    realtime : bool
        Keep the pace of the acquisition time stamps instead of sending as fast as possible.
    timeout : float
        Seconds of silence of the server, and for connecting.
    tls : ssl.SSLContext, optional
        See `core.tls.client_tls`.
    on_image, on_text : callable, optional
        Called in the receiving thread for each image and each text.

    Returns
    -------
    SendSummary
        Also where the server reported an error: see `ok`.

    Raises
    ------
    SourceError
        The file cannot be read, the server cannot be reached, or it breaks the protocol or the
        connection.
    """
    started = time.monotonic()
    readouts, receivers = 0, []
    for source in open_scans(path, group=dataset):
        xml = source.headers[0].xml
        with _connected(host, port, timeout, tls) as transport:
            receiver = _Receiver(transport, timeout, out, group, on_image, on_text)
            receivers.append(receiver)
            readouts += _send(
                source, _opening(xml, config, properties), transport, realtime=realtime, receiver=receiver
            )
            receiver.finish()
    first = next((r.first_image for r in receivers if r.first_image is not None), None)
    return SendSummary(
        readouts=readouts,
        images=sum(receiver.images for receiver in receivers),
        errors=tuple(text for receiver in receivers for text in receiver.errors),
        warnings=tuple(text for receiver in receivers for text in receiver.warnings),
        texts=tuple(text for receiver in receivers for text in receiver.texts),
        closed=all(receiver.closed for receiver in receivers),
        seconds=time.monotonic() - started,
        first_image_seconds=None if first is None else first - started,
    )


class _Receiver:
    """Reads the server's answers in a thread of its own."""

    def __init__(
        self,
        transport: SocketTransport,
        timeout: float,
        out: Path | None,
        group: str,
        on_image: ImageHook | None,
        on_text: Callable[[str], None] | None,
    ) -> None:
        self._transport = transport
        self._limits = WireLimits(idle_seconds=timeout, message_seconds=timeout)
        self._store = ImageStore(out, group=group) if out is not None else None
        self._on_image = on_image
        self._on_text = on_text
        self.images = 0
        self.first_image: float | None = None
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.texts: list[str] = []
        self.closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mrd-receive", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Wait for the server's CLOSE; raise what went wrong in the thread."""
        self._thread.join()
        if self._failure is not None and not self.errors:
            raise self._failure

    def _run(self) -> None:
        try:
            for message in read_messages(self._transport, limits=self._limits):
                self._take(message)
        except BaseException as error:  # noqa: BLE001 - raised again in `finish`, in the caller's thread
            self._failure = error
            # A sender that waits for a server which no longer reads would wait for ever.
            self._transport.abort()
        finally:
            if self._store is not None:
                self._store.close()

    def _take(self, message: Message) -> None:
        match message:
            case ImageMessage():
                self.first_image = self.first_image or time.monotonic()
                self.images += 1
                if self._store is not None:
                    self._store.append(message)
                if self._on_image is not None:
                    self._on_image(message)
            case Text():
                self._take_text(message.text.rstrip())
            case RemoteError():
                self.errors.append(one_line(message.text) or "it reported an error without a text")
            case Close():
                self.closed = True
            case _:
                raise ProtocolError(
                    f"the server sent {type(message).__name__}, expected IMAGE, TEXT or CLOSE"
                )

    def _take_text(self, text: str) -> None:
        told = _TOLD.match(text)
        if told is None:
            self.texts.append(text)
        else:
            (self.errors if told["kind"].startswith("E") else self.warnings).append(told["rest"].strip())
        if self._on_text is not None:
            self._on_text(text)


@contextlib.contextmanager
def _connected(host: str, port: int, timeout: float, tls: ssl.SSLContext | None) -> Iterator[SocketTransport]:
    try:
        sock = socket.create_connection((host, port), timeout)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=host)
    except OSError as error:
        raise SourceError(f"no MRD server at {host}:{port} ({error})") from error
    transport = SocketTransport(sock, send_seconds=timeout)
    try:
        yield transport
    finally:
        transport.close()


def _opening(xml: bytes, config: str, properties: Mapping[str, str] | None) -> list[Message]:
    """What comes before the data."""
    opening: list[Message] = [ConfigFile(name=config), HeaderXml(xml=xml)]
    if properties:
        opening.append(Text(text=json.dumps({"parameters": dict(properties)})))
    return opening


def _send(
    source: Source,
    opening: list[Message],
    transport: SocketTransport,
    *,
    realtime: bool,
    receiver: _Receiver,
) -> int:
    writer = MessageWriter(transport.send)
    sent = 0
    try:
        for message in opening:
            writer.write(message)
        for block in _paced(source) if realtime else source:
            if receiver.ended:
                return sent
            writer.write(block)
            sent += len(block) if isinstance(block, Readouts) else 0
        writer.write(Close())
    except TruncatedStream:
        # The server hung up. Its reason, if it sent one, is in the receiver.
        receiver.finish()
        if not receiver.errors:
            raise
    return sent


def _paced(source: Source) -> Iterator[Readouts | Waveform]:
    """Each readout when its time stamp says so, counted from the first."""
    start: tuple[float, int] | None = None
    for block in source:
        if not isinstance(block, Readouts):
            yield block
            continue
        stamps = block.head["acquisition_time_stamp"].astype(np.int64)
        cuts = np.flatnonzero(np.diff(stamps)) + 1
        for first, last in zip([0, *cuts], [*cuts, len(block)], strict=True):
            stamp = int(stamps[first])
            start = start or (time.monotonic(), stamp)
            due = start[0] + (stamp - start[1]) * TIME_STAMP_UNIT_MS / 1000
            time.sleep(max(0.0, due - time.monotonic()))
            yield block.select(slice(int(first), int(last)))

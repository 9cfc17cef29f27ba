"""One scan over one socket, from TLS handshake to lingering close: the way that server and gadget share."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from recon_node.core.budget import Budget
from recon_node.core.errors import (
    ConfigError,
    LimitReached,
    NodeBusy,
    ProtocolError,
    ReconNodeError,
    SourceError,
)
from recon_node.core.scan import ScanHeader
from recon_node.mrd.captures import Arriving, Captures
from recon_node.mrd.frames import Frame, FrameReader
from recon_node.mrd.guard import Ending, guarded
from recon_node.mrd.limits import ServerLimits
from recon_node.mrd.messages import MessageId, close_bytes, text_bytes
from recon_node.mrd.refusal import Rescue, answered
from recon_node.mrd.replies import Outbox
from recon_node.mrd.session import ScanHandler, WireSession
from recon_node.mrd.transport import SocketTransport

log = logging.getLogger(__name__)

_DATA = {MessageId.ACQUISITION, MessageId.WAVEFORM, MessageId.IMAGE}

Event = Mapping[str, str | int | float]
EventHook = Callable[[str, Event], None]
"""Told what happens; the values hold no patient data.

``refused`` (reason), ``started`` (scan, config), ``stopped`` (scan), ``finished`` (scan, outcome, seconds,
readouts, images, bytes_received, bytes_sent), ``closed`` (scan, outcome, reason, handed, header); outcome is
ok, error, truncated or crashed, the reason the name of an error.
"""
Protect = Callable[[Sequence[ScanHeader]], Callable[[], None]]
"""Keeps the patient data of these headers out of the log until what it returns is called."""


class ScanConnection(ABC):
    """A connected socket whose peer hands over one scan.

    Subclasses say how the protocol's two dialects differ: what opens a scan, and how it is ended.

    Parameters
    ----------
    sock : socket.socket
        Not yet wrapped where `tls` is given.
    limits : ServerLimits
    peer : str
        The address at the other end; empty where it has none.
    tls : ssl.SSLContext, optional
    budget : Budget, optional
        Of messages that have not arrived whole, of all connections.
    """

    def __init__(
        self,
        sock: socket.socket,
        limits: ServerLimits,
        *,
        peer: str = "",
        tls: ssl.SSLContext | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget
        self._sock = sock
        self._limits = limits
        self._tls = tls
        self.peer = peer
        self.scan_id = secrets.token_hex(6)
        self.started = time.monotonic()
        self.leaving = False
        """Whether all was said, and the peer only has to read it."""

    def abort(self) -> None:
        """End the connection at once."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Serve the connection to its end; never raises."""
        self._to_the_end(self._run)

    def refuse(self, reason: str) -> None:
        """Say why, and close; never raises."""
        self._to_the_end(lambda transport, outbox: self._refuse(transport, outbox, reason))

    def _to_the_end(self, talk: Callable[[SocketTransport, Outbox], None]) -> None:
        """Whatever happens, short of memory and threads too, the socket is let go of."""

        def work() -> None:
            transport = self._open()
            if transport is not None:
                talk(transport, Outbox(transport, max_bytes=self._limits.outbox_bytes))

        try:
            guarded(work, scan_id=self.scan_id)
        finally:
            self._release()

    def _open(self) -> SocketTransport | None:
        try:
            transport = SocketTransport(
                self._sock,
                send_seconds=self._limits.send_seconds,
                slowest=self._limits.slowest_reader,
                tls=self._tls,
            )
            self._sock = transport.socket
            transport.shake_hands(self.started + self._limits.handshake_seconds)
        except (OSError, ValueError, SourceError) as error:
            self._handshake_failed(error)
            return None
        return transport

    def _run(self, transport: SocketTransport, outbox: Outbox) -> None:
        reader = self._reader(transport)
        with contextlib.ExitStack() as guard:
            session: list[WireSession] = []
            ending = guarded(
                lambda: self._scan(transport, reader, outbox, guard, session.append),
                scan_id=self.scan_id,
            )
            self._ended(ending, session[0] if session else None, transport)
        try:
            self._close(transport, outbox, reader, ending.trouble)
        finally:
            reader.release()

    def _reader(self, transport: SocketTransport) -> FrameReader:
        """Of the scan's beginning, all of which has to come within the handshake's time."""
        seconds = self._limits.handshake_seconds
        wire = replace(self._limits.wire, idle_seconds=seconds, message_seconds=seconds)
        return FrameReader(transport, limits=wire, until=self.started + seconds, budget=self._budget)

    def _begun(self, reader: FrameReader) -> None:
        """The header has come: from here on the limits of the data count."""
        reader.limits = self._limits.wire
        reader.until = self.started + self._limits.scan_seconds

    @abstractmethod
    def _scan(
        self,
        transport: SocketTransport,
        reader: FrameReader,
        outbox: Outbox,
        guard: contextlib.ExitStack,
        on_session: Callable[[WireSession], None],
    ) -> None:
        """Read what opens a scan, and do what is asked for; `guard` is left when that has ended."""

    @abstractmethod
    def _refuse(self, transport: SocketTransport, outbox: Outbox, reason: str) -> None:
        """Say why it is not served."""

    @abstractmethod
    def _close(
        self, transport: SocketTransport, outbox: Outbox, reader: FrameReader, trouble: str | None
    ) -> None:
        """Report the trouble, and end the scan as the peer expects it."""

    def _ended(self, ending: Ending, session: WireSession | None, transport: SocketTransport) -> None:
        """The scan has ended; the peer has not been told yet."""
        if session is not None:
            counts = {"readouts": session.readouts, "images": session.images}
            log.info("scan ended: %s", ending.outcome, extra={"scan": self.scan_id, **counts})

    def _linger(self, transport: SocketTransport) -> None:
        """Let the peer read the last words."""
        self.leaving = True
        transport.drain(self._limits.linger_seconds)

    def _handshake_failed(self, error: Exception) -> None:
        """Nobody was there, or not with TLS."""
        log.warning("handshake failed: %s", type(error).__name__)

    def _release(self) -> None:
        """Close the socket."""
        self._sock.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all connections of a server have in common."""

    handlers: Mapping[str, ScanHandler]
    limits: ServerLimits
    slots: threading.BoundedSemaphore
    places: threading.BoundedSemaphore
    """Of scans that run or wait."""
    stopping: threading.Event
    budget: Budget | None = None
    """Of messages that have not arrived whole."""
    tls: ssl.SSLContext | None = None
    captures: Captures | None = None
    """Keeps every incoming stream."""
    on_event: EventHook | None = None
    protect: Protect | None = None
    rescue: Rescue | None = None

    def emit(self, name: str, event: Event) -> None:
        """Tell the hook; what goes wrong in it must not reach a scan."""
        hook = self.on_event
        if hook is not None:
            guarded(lambda: hook(name, event), scan_id="event hook")


class ServerConnection(ScanConnection):
    """A connection of the MRD server."""

    def __init__(self, sock: socket.socket, peer: str, shared: Shared) -> None:
        super().__init__(sock, shared.limits, peer=peer, tls=shared.tls, budget=shared.budget)
        self._shared = shared
        self._capture: Arriving | None = None
        self._session: WireSession | None = None
        self._ending: Ending | None = None

    def _refuse(self, transport: SocketTransport, outbox: Outbox, reason: str) -> None:
        self._shared.emit("refused", {"reason": reason.partition(":")[0]})
        log.warning("connection refused: %s", reason)
        self._close(transport, outbox, None, reason)

    def _handshake_failed(self, error: Exception) -> None:
        super()._handshake_failed(error)
        self._shared.emit("refused", {"reason": "handshake"})

    def _scan(
        self,
        transport: SocketTransport,
        reader: FrameReader,
        outbox: Outbox,
        guard: contextlib.ExitStack,
        on_session: Callable[[WireSession], None],
    ) -> None:
        captures = self._shared.captures
        if captures is not None:
            self._capture = captures.start(self.scan_id, peer=self.peer)
        watch = self._watch(transport)
        session = self._session = WireSession(
            self.scan_id, reader, outbox.put, peer=self.peer, on_frame=watch, offer=outbox.offer
        )
        session.capture = self._capture
        on_session(session)
        try:
            self._handshake(session, guard)
        except Exception as error:
            self._read_on(reader, watch, error)
            raise
        with self._turn(session, guard):
            answered(session, lambda: self._handler(session)(session), self._shared.rescue)

    def _read_on(self, reader: FrameReader, watch: Callable[[Frame], None], error: Exception) -> None:
        """What fails before the scan is begun, by no fault of its sender, is tried again when all is here."""
        theirs = isinstance(error, ReconNodeError) and not error.retryable
        if self._capture is None or not self._capture.open or theirs:
            return
        self._begun(reader)
        self._capture.later = True
        with contextlib.suppress(SourceError, LimitReached):
            for frame in reader:
                watch(frame)

    def _watch(self, transport: SocketTransport) -> Callable[[Frame], None]:
        limits, capture = self._limits, self._capture
        data = 0

        def watch(frame: Frame) -> None:
            nonlocal data
            if frame.message_id in _DATA:
                data += len(frame.raw)
            elif transport.waited_s > 10 * limits.wire.idle_seconds + data / limits.slowest_sender:
                raise ProtocolError(f"{data} bytes of data came in {transport.waited_s:.0f} s: given up")
            if capture is not None:
                capture.write(frame.raw)
                if frame.message_id is MessageId.CLOSE:
                    capture.ended()
            if transport.bytes_received > limits.scan_bytes:
                raise ProtocolError(
                    f"the scan has more than {limits.scan_bytes} bytes, the limit of this server "
                    "(server.scan_limit_gb)"
                )
            if time.monotonic() > self.started + limits.scan_seconds:
                raise ProtocolError(
                    f"the scan takes longer than {limits.scan_seconds:.0f} s, the limit of this server"
                )

        return watch

    def _handshake(self, session: WireSession, guard: contextlib.ExitStack) -> None:
        session.read_header()
        if self._shared.protect is not None:
            guard.callback(self._shared.protect(session.headers))
        self._begun(session.reader)
        session.read_parameters()

    def _handler(self, session: WireSession) -> ScanHandler:
        handler = self._shared.handlers.get(session.config.name)
        if handler is None:
            known = ", ".join(sorted(self._shared.handlers))
            raise ConfigError(
                f"unknown configuration {session.config.name[:64]!r}; this server knows {known}"
            )
        return handler

    @contextlib.contextmanager
    def _turn(self, session: WireSession, guard: contextlib.ExitStack) -> Iterator[None]:
        """Wait until one of the scans that may run has ended."""
        if not self._shared.places.acquire(blocking=False):
            self._shared.emit("refused", {"reason": "busy"})
            limits = self._limits
            raise NodeBusy(f"busy: {limits.scans} scans may run and {limits.waiting} may wait; try later")
        guard.callback(self._shared.places.release)
        slots = self._shared.slots
        if not slots.acquire(blocking=False):
            session.text("waiting for another scan to be reconstructed")
            while not slots.acquire(timeout=0.2):
                if self._shared.stopping.is_set():
                    raise SourceError("this server is shutting down")
        self._shared.emit("started", {"scan": self.scan_id, "config": session.config.name})
        try:
            yield
        finally:
            slots.release()
            self._shared.emit("stopped", {"scan": self.scan_id})

    def _ended(self, ending: Ending, session: WireSession | None, transport: SocketTransport) -> None:
        super()._ended(ending, session, transport)
        self._ending = ending
        self._shared.emit(
            "finished",
            {
                "scan": self.scan_id,
                "outcome": ending.outcome,
                "seconds": time.monotonic() - self.started,
                "readouts": 0 if session is None else session.readouts,
                "images": 0 if session is None else session.images,
                "bytes_received": transport.bytes_received,
                "bytes_sent": transport.bytes_sent,
            },
        )

    def _settle(self, trouble: str | None, *, handed: bool) -> None:
        """The peer has been told how it ended, or is gone."""
        if self._capture is not None:
            self._capture.settle(trouble, handed=handed)
        if self._ending is not None:
            header = self._session is not None and bool(self._session.headers)
            told = {"scan": self.scan_id, "outcome": self._ending.outcome, "reason": self._ending.reason}
            self._shared.emit("closed", {**told, "handed": int(handed), "header": int(header)})

    def _close(
        self, transport: SocketTransport, outbox: Outbox, reader: FrameReader | None, trouble: str | None
    ) -> None:
        if trouble is not None:
            outbox.put(text_bytes(MessageId.TEXT, f"ERR {trouble}\n"))
        outbox.put(close_bytes())
        sent = False
        try:
            sent = outbox.finish()
        finally:
            self._settle(trouble, handed=sent and self._session is not None and not self._session.peer_gone)
        if sent:
            transport.finish_sending()
            self._linger(transport)

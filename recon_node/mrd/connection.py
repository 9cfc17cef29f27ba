"""One connection of the MRD server, from TLS handshake to lingering close."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from recon_node.core.errors import (
    ConfigError,
    ProtocolError,
    ReconNodeError,
    SourceError,
    TruncatedStream,
    where_it_failed,
)
from recon_node.core.scan import ScanHeader
from recon_node.mrd.frames import Frame, FrameReader, WireLimits
from recon_node.mrd.messages import MessageId, close_bytes, text_bytes
from recon_node.mrd.recording import Recording, RecordingFolder
from recon_node.mrd.replies import Outbox
from recon_node.mrd.session import ScanHandler, WireSession
from recon_node.mrd.transport import SocketTransport

log = logging.getLogger(__name__)

Event = Mapping[str, str | int | float]
EventHook = Callable[[str, Event], None]
"""Told what happens; the values hold no patient data.

``refused`` (reason), ``started`` (scan, config), ``stopped`` (scan), ``finished`` (scan, outcome, seconds,
readouts, images, bytes_received, bytes_sent); outcome is ok, error, truncated or crashed.
"""
Protect = Callable[[Sequence[ScanHeader]], Callable[[], None]]
"""Keeps the patient data of these headers out of the log until what it returns is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What the server allows."""

    scans: int = 4
    """Scans reconstructed at a time."""
    waiting: int = 8
    """More connections that may wait for their turn; others are refused."""
    handshake_seconds: float = 30.0
    """From connecting to the end of the header."""
    scan_bytes: int = 64 << 30
    """Received in one scan."""
    scan_seconds: float = 4 * 3600.0
    """From connecting to the last acquisition."""
    outbox_bytes: int = 256 << 20
    """Images waiting for a peer that is slow to read."""
    send_seconds: float = 60.0
    """Without the peer accepting anything."""
    linger_seconds: float = 10.0
    """For the peer to read the last message before the connection is closed."""
    wire: WireLimits = field(default_factory=WireLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all connections of a server have in common."""

    handlers: Mapping[str, ScanHandler]
    limits: ServerLimits
    slots: threading.BoundedSemaphore
    stopping: threading.Event
    tls: ssl.SSLContext | None = None
    recordings: RecordingFolder | None = None
    on_event: EventHook | None = None
    protect: Protect | None = None

    def emit(self, name: str, event: Event) -> None:
        """Tell the hook; what goes wrong in it must not reach a scan."""
        if self.on_event is None:
            return
        try:
            self.on_event(name, event)
        except Exception as error:  # noqa: BLE001 - an observer never ends a scan
            log.log(logging.ERROR, "the event hook failed: %s", where_it_failed(error))


class ServerConnection:
    """Serves one accepted socket."""

    def __init__(self, sock: socket.socket, shared: Shared) -> None:
        self._sock = sock
        self._shared = shared
        self._limits = shared.limits
        self.scan_id = secrets.token_hex(6)
        self._started = time.monotonic()

    def abort(self) -> None:
        """End the connection at once."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def refuse(self, reason: str) -> None:
        """Say why, and close."""
        transport = self._open()
        if transport is None:
            return
        self._shared.emit("refused", {"reason": reason.partition(":")[0]})
        log.warning("connection refused: %s", reason, extra={"scan": self.scan_id})
        outbox = Outbox(transport, max_bytes=self._limits.outbox_bytes)
        self._close(transport, outbox, reason)

    def run(self) -> None:
        """Serve the connection to its end; never raises."""
        transport = self._open()
        if transport is None:
            return
        outbox = Outbox(transport, max_bytes=self._limits.outbox_bytes)
        with self._recording() as recording:
            session = self._session(transport, outbox, recording)
            outcome, trouble = self._outcome(session)
        self._shared.emit(
            "finished",
            {
                "scan": self.scan_id,
                "outcome": outcome,
                "seconds": time.monotonic() - self._started,
                "readouts": session.readouts,
                "images": session.images,
                "bytes_received": transport.bytes_received,
                "bytes_sent": transport.bytes_sent,
            },
        )
        log.info(
            "scan ended: %s",
            outcome,
            extra={"scan": self.scan_id, "readouts": session.readouts, "images": session.images},
        )
        self._close(transport, outbox, trouble)

    def _open(self) -> SocketTransport | None:
        try:
            if self._shared.tls is not None:
                self._sock.settimeout(self._limits.handshake_seconds)
                self._sock = self._shared.tls.wrap_socket(self._sock, server_side=True)
            return SocketTransport(self._sock, send_seconds=self._limits.send_seconds)
        except (OSError, ValueError) as error:
            log.warning("handshake failed: %s", error, extra={"scan": self.scan_id})
            self._shared.emit("refused", {"reason": "handshake"})
            self._sock.close()
            return None

    def _recording(self) -> contextlib.AbstractContextManager[Recording | None]:
        if self._shared.recordings is None:
            return contextlib.nullcontext()
        return self._shared.recordings.start(self.scan_id)

    def _session(
        self, transport: SocketTransport, outbox: Outbox, recording: Recording | None
    ) -> WireSession:
        limits = self._limits
        last = self._started + limits.scan_seconds

        def watch(frame: Frame) -> None:
            if recording is not None:
                recording.write(frame.raw)
                recording.complete = frame.message_id is MessageId.CLOSE
            if transport.bytes_received > limits.scan_bytes:
                raise ProtocolError(
                    f"the scan has more than {limits.scan_bytes} bytes, the limit of this server"
                )
            if time.monotonic() > last:
                raise ProtocolError(
                    f"the scan takes longer than {limits.scan_seconds:.0f} s, the limit of this server"
                )

        wire = replace(
            limits.wire, idle_seconds=limits.handshake_seconds, message_seconds=limits.handshake_seconds
        )
        return WireSession(self.scan_id, FrameReader(transport, limits=wire), outbox.put, on_frame=watch)

    def _outcome(self, session: WireSession) -> tuple[str, str | None]:
        """Run the scan: how it ended, and what to tell the peer where it did not end well."""
        with contextlib.ExitStack() as guard:
            return self._guarded(session, guard)

    def _guarded(self, session: WireSession, guard: contextlib.ExitStack) -> tuple[str, str | None]:
        try:
            handler = self._handshake(session, guard)
            with self._turn(session):
                handler(session)
        except TruncatedStream as error:
            log.warning("%s", error, extra={"scan": self.scan_id})
            return "truncated", str(error)
        except ReconNodeError as error:
            log.warning("%s: %s", type(error).__name__, error, extra={"scan": self.scan_id})
            return "error", str(error)
        except Exception as error:  # noqa: BLE001 - a fault in one scan must not touch another
            log.log(logging.ERROR, "scan failed: %s", where_it_failed(error), extra={"scan": self.scan_id})
            return "crashed", f"internal error; the node's log names scan {self.scan_id}"
        return "ok", None

    def _handshake(self, session: WireSession, guard: contextlib.ExitStack) -> ScanHandler:
        session.read_header()
        if self._shared.protect is not None:
            guard.callback(self._shared.protect(session.headers))
        session.reader.limits = self._limits.wire
        session.read_parameters()
        handler = self._shared.handlers.get(session.config.name)
        if handler is None:
            known = ", ".join(sorted(self._shared.handlers))
            raise ConfigError(
                f"unknown configuration {session.config.name[:64]!r}; this server knows {known}"
            )
        return handler

    @contextlib.contextmanager
    def _turn(self, session: WireSession) -> Iterator[None]:
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

    def _close(self, transport: SocketTransport, outbox: Outbox, trouble: str | None) -> None:
        if trouble is not None:
            line = " ".join(trouble.split())
            outbox.put(text_bytes(MessageId.TEXT, f"ERR {line}"))
        outbox.put(close_bytes())
        if outbox.finish():
            transport.finish_sending()
            transport.drain(self._limits.linger_seconds)
        transport.close()

"""The MRD server: what scanners and Gadgetron clients connect to.

One thread accepts, one thread serves each connection, one more sends its answers. What is done with
a scan is a callable given by the caller, chosen by a name from the caller's list.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from recon_node.core.errors import ConfigError
from recon_node.mrd.connection import EventHook, Protect, ServerConnection, ServerLimits, Shared
from recon_node.mrd.recording import RecordingFolder
from recon_node.mrd.session import ScanHandler

__all__ = ["MrdServer", "ServerLimits"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_MAX_REFUSALS = 32


class MrdServer:
    """Serves MRD connections until stopped.

    Parameters
    ----------
    handlers : mapping
        Configuration name to scan handler. Names from the network are only looked up here.
    host, port : str, int
        Where to listen; port 0 takes a free one (see `port`).
    limits : ServerLimits, optional
    allowed_peers : sequence of str
        Addresses or networks (``192.168.2.0/24``) that may connect; empty allows every peer that
        can reach `host`.
    tls : ssl.SSLContext, optional
        See `core.tls.server_tls`.
    recordings : RecordingFolder, optional
        Keeps every incoming stream.
    on_event : callable, optional
        See `connection.EventHook`.
    protect : callable, optional
        See `connection.Protect`.
    drain_seconds : float
        How long running scans may go on when the ``with`` block ends.

    Raises
    ------
    ConfigError
        The address cannot be listened on, or an allowed peer is no network.
    """

    def __init__(
        self,
        handlers: Mapping[str, ScanHandler],
        *,
        host: str = "127.0.0.1",
        port: int = 9002,
        limits: ServerLimits | None = None,
        allowed_peers: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        recordings: RecordingFolder | None = None,
        on_event: EventHook | None = None,
        protect: Protect | None = None,
        drain_seconds: float = 30.0,
    ) -> None:
        self._limits = limits or ServerLimits()
        self._networks = [_network(peer) for peer in allowed_peers]
        self._stopping = threading.Event()
        self._shared = Shared(
            handlers=dict(handlers),
            limits=self._limits,
            slots=threading.BoundedSemaphore(self._limits.scans),
            stopping=self._stopping,
            tls=tls,
            recordings=recordings,
            on_event=on_event,
            protect=protect,
        )
        self._drain_seconds = drain_seconds
        self._lock = threading.Lock()
        self._scans: dict[threading.Thread, ServerConnection] = {}
        self._refusals: dict[threading.Thread, ServerConnection] = {}
        self._acceptor: threading.Thread | None = None
        try:
            self._listener = socket.create_server((host, port), backlog=64)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
        self._listener.settimeout(_POLL_SECONDS)
        self.port: int = self._listener.getsockname()[1]

    @property
    def active(self) -> int:
        """Connections that are being served or wait for their turn."""
        with self._lock:
            return len(self._scans)

    @property
    def accepting(self) -> bool:
        """Whether new scans are taken (for a readiness check)."""
        running = self._acceptor is not None and self._acceptor.is_alive()
        return running and not self._stopping.is_set()

    def start(self) -> Self:
        """Accept connections in the background."""
        self._acceptor = threading.Thread(target=self._accept, name="mrd-accept", daemon=True)
        self._acceptor.start()
        return self

    def stop(self, *, drain_seconds: float = 30.0) -> bool:
        """Take no new scans, let the running ones end, then cut off what is left.

        Returns
        -------
        bool
            True if every scan ended by itself.
        """
        self._stopping.set()
        if self._acceptor is not None:
            self._acceptor.join()
        self._listener.close()
        left = self._join(drain_seconds)
        with self._lock:
            for connection in (*self._scans.values(), *self._refusals.values()):
                connection.abort()
        self._join(self._limits.linger_seconds + self._limits.send_seconds)
        return not left

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(drain_seconds=0.0 if kind else self._drain_seconds)

    def _join(self, seconds: float) -> int:
        """Wait for the scans; how many are still running."""
        deadline = time.monotonic() + seconds
        with self._lock:
            threads = [*self._scans]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in threads)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, address = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                log.warning("accepting a connection failed: %s", error)
                self._stopping.wait(_POLL_SECONDS)
                continue
            connection = ServerConnection(sock, self._shared)
            reason = self._refusal(str(address[0]))
            if reason is None:
                self._launch(self._scans, connection, None)
            elif len(self._refusals) < _MAX_REFUSALS:
                self._launch(self._refusals, connection, reason)
            else:
                sock.close()

    def _launch(
        self,
        where: dict[threading.Thread, ServerConnection],
        connection: ServerConnection,
        reason: str | None,
    ) -> None:
        def work() -> None:
            try:
                if reason is None:
                    connection.run()
                else:
                    connection.refuse(reason)
            finally:
                with self._lock:
                    where.pop(thread)

        thread = threading.Thread(target=work, name=f"mrd-{connection.scan_id}", daemon=True)
        with self._lock:
            where[thread] = connection
        thread.start()

    def _refusal(self, peer: str) -> str | None:
        if self._stopping.is_set():
            return "stopping: this server is shutting down"
        address = ipaddress.ip_address(peer.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if self._networks and not any(mapped in network for network in self._networks):
            return "not allowed: this host is not among the allowed peers"
        if self.active >= self._limits.scans + self._limits.waiting:
            limits = self._limits
            return f"busy: {limits.scans} scans may run and {limits.waiting} may wait; try later"
        return None


def _network(peer: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(peer)
    except ValueError as error:
        raise ConfigError(f"allowed peer {peer!r} is no address or network such as 192.168.2.0/24") from error

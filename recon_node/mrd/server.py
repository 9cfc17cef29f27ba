"""The MRD server: what scanners and Gadgetron clients connect to.

One thread serves each connection, one more sends its answers. What is done with a scan is a callable given by
the caller, chosen by a name from the caller's list.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from recon_node.core.budget import Budget
from recon_node.core.supervise import Supervised
from recon_node.mrd.acceptor import Acceptor
from recon_node.mrd.captures import Captures
from recon_node.mrd.connection import EventHook, Protect, ServerConnection, Shared
from recon_node.mrd.limits import ServerLimits
from recon_node.mrd.refusal import Rescue
from recon_node.mrd.session import ScanHandler

__all__ = ["MrdServer", "ServerLimits"]


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
    captures : Captures, optional
        Keeps every incoming stream.
    on_event : callable, optional
        See `connection.EventHook`.
    protect : callable, optional
        See `connection.Protect`.
    rescue : callable, optional
        See `refusal.Rescue`.
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
        captures: Captures | None = None,
        on_event: EventHook | None = None,
        protect: Protect | None = None,
        rescue: Rescue | None = None,
        drain_seconds: float = 30.0,
    ) -> None:
        self._limits = limits or ServerLimits()
        self._drain_seconds = drain_seconds
        scans = self._limits.scans + self._limits.waiting
        self._acceptor = Acceptor(
            lambda sock, peer: ServerConnection(sock, peer, shared),
            host=host,
            port=port,
            places=scans + self._limits.arriving,
            allowed_peers=allowed_peers,
        )
        shared = Shared(
            handlers=dict(handlers),
            limits=self._limits,
            slots=threading.BoundedSemaphore(self._limits.scans),
            places=threading.BoundedSemaphore(scans),
            stopping=self._acceptor.stopping,
            budget=Budget(self._limits.buffer_bytes, "server.buffer_mb"),
            tls=tls,
            captures=captures,
            on_event=on_event,
            protect=protect,
            rescue=rescue,
        )
        self.port = self._acceptor.port

    @property
    def active(self) -> int:
        """Connections that are being served or wait for their turn."""
        return self._acceptor.active

    @property
    def accepting(self) -> bool:
        """Whether new scans are taken (for a readiness check)."""
        return self._acceptor.accepting

    @property
    def thread(self) -> Supervised:
        """The thread that accepts."""
        return self._acceptor.thread

    def start(self) -> Self:
        """Accept connections in the background."""
        self._acceptor.start()
        return self

    def stop(self, *, drain_seconds: float = 30.0) -> bool:
        """Take no new scans, let the running ones end, then cut off what is left.

        Returns
        -------
        bool
            True if every scan ended by itself.
        """
        cut = self._limits.linger_seconds + self._limits.send_seconds
        return self._acceptor.stop(drain_seconds=drain_seconds, cut_seconds=cut)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(drain_seconds=0.0 if kind else self._drain_seconds)

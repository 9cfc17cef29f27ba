"""The one place that talks to pynetdicom as an acceptor: listen while a ``with`` block lasts.

Whoever reaches the port may connect, so each connection costs little and ends soon: addresses and AE titles
by list, a number of connections at a time, TLS shaken in the connection's own thread, an end to every read,
and a limit to what a peer may send.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from socketserver import BaseServer
from types import TracebackType
from typing import Any, Self

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from recon_node.core.errors import ConfigError, where_it_failed
from recon_node.core.supervise import Supervisor
from recon_node.delivery.peers.association import Handlers, ReadLimits
from recon_node.delivery.peers.late import drop_late_data
from recon_node.delivery.peers.pause import pause_reliably
from recon_node.dicom.uids import IMPLEMENTATION_NAME, IMPLEMENTATION_UID

_LOG = logging.getLogger(__name__)
_SILENCE_S = 60.0
_GREETING_S = 10.0
"""For the TLS handshake and the association request of a new connection."""
_POLL_S = 0.2
_STOP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who may connect, and how much of us each may use."""

    hosts: tuple[str, ...] | None = None
    """Host names, addresses or networks; None: anyone who reaches the port."""
    callers: tuple[str, ...] | None = None
    """AE titles of callers; None: any. With a list, they also have to know our own."""
    connections: int = 16
    total_bytes: int = 1 << 40
    """Over the life of one connection."""

    def admits(self, address: str) -> bool:
        """Whether a connection from this address may stay."""
        return self.hosts is None or any(_matches(address, host) for host in self.hosts)


class Acceptor:
    """Answers C-ECHO, takes storage commitment in both roles, and whatever a subclass adds.

    Parameters
    ----------
    ae_title : str
        Own title.
    host, port : str, int
        Where to listen; port 0 takes a free one (see `port`).
    tls : ssl.SSLContext, optional
        Server-side context.
    admission : Admission
        Who may connect; anyone where left out.
    """

    def __init__(
        self,
        *,
        ae_title: str,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        admission: Admission | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self.admission = admission or Admission()
        self.supervisor = Supervisor()
        self._tls = tls
        self._server: _Server | None = None

    def add_contexts(self, ae: AE) -> None:
        """Further presentation contexts."""

    def handlers(self) -> Handlers:
        """What happens on a request."""
        return []

    def __enter__(self) -> Self:
        """Listen.

        Raises
        ------
        ConfigError
            The address cannot be listened on.
        """
        ae = AE(ae_title=self.ae_title)
        ae.implementation_class_uid = UID(IMPLEMENTATION_UID)
        ae.implementation_version_name = IMPLEMENTATION_NAME
        ae.network_timeout = _SILENCE_S
        ae.acse_timeout = _GREETING_S
        ae.maximum_associations = self.admission.connections
        if self.admission.callers is not None:
            ae.require_calling_aet = list(self.admission.callers)
            ae.require_called_aet = True
        ae.add_supported_context(Verification)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self.add_contexts(ae)
        opened = partial(_limit, total_bytes=self.admission.total_bytes)
        try:
            server: Any = ae.make_server(
                (self.host, self.port),
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, opened),
                    (evt.EVT_CONN_OPEN, drop_late_data),
                    (evt.EVT_ESTABLISHED, _pause_reliably),
                    (evt.EVT_CONN_CLOSE, _closed),
                    *self.handlers(),
                ],
                server_class=partial(_Server, self.admission, self._tls),  # type: ignore[arg-type]
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror or error}"
            ) from error
        self._server = server
        self.port = int(server.server_address[1])
        serve = partial(server.serve_forever, _POLL_S)
        self.supervisor.run(f"dicom-listener-{self.port}", serve)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self.supervisor.stopping.set()
        self._server.shutdown()
        self.supervisor.stop(_STOP_S)


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, which waits for no single peer."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, admission: Admission, tls: ssl.SSLContext | None, ae: AE, *args: Any, **options: Any
    ) -> None:
        self._admission = admission
        self._tls = tls
        self._greeting = 0
        self._lock = threading.Lock()
        super().__init__(ae, *args, **options)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection may stay; others are closed without a word."""
        if not self._admission.admits(str(client_address[0])):
            _LOG.warning("connection from %s refused: not in the list of peers", client_address[0])
            return False
        with self._lock:
            if self._greeting + len(self.active_associations) >= self._admission.connections:
                return False
            self._greeting += 1
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Greet in a thread of its own."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._greeted()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """TLS handshake, then pynetdicom's association."""
        try:
            request.settimeout(_GREETING_S)
            if self._tls is not None:
                request = self._tls.wrap_socket(request, server_side=True)
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 - whatever a stranger provokes ends with its connection
            self.handle_error(request, client_address)
            self.shutdown_request(request)
        finally:
            self._greeted()

    def _greeted(self) -> None:
        with self._lock:
            self._greeting -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line in the log, no traceback on the terminal."""
        import sys

        error = sys.exc_info()[1]
        cause = "" if error is None else where_it_failed(error)
        _LOG.info("connection from %s ended: %s", client_address[0], cause)

    def shutdown(self) -> None:
        """Stop accepting, end the associations that are open, close."""
        BaseServer.shutdown(self)
        for association in self.active_associations:
            association.abort(block=False)
        self.server_close()


def _limit(event: Any, *, total_bytes: int) -> None:
    """Reads end, even if the peer stops in the middle of a message (pynetdicom's have no end)."""
    sock = event.assoc.dul.socket
    sock.socket.settimeout(_SILENCE_S)
    limits = ReadLimits(seconds=_SILENCE_S, total_bytes=total_bytes)

    def recv(count: int) -> bytearray:
        received = bytearray()
        try:
            received = limits.recv(sock.socket, count)
        except OSError:
            sock.socket.close()
            raise
        finally:
            if len(received) < count:
                _closed(event)
        return received

    sock.recv = recv


def _pause_reliably(event: Any) -> None:
    """A report from another thread waits until the answer to the request it is about has gone out."""
    pause_reliably(event.assoc)


def _closed(event: Any) -> None:
    """Wake the thread of a connection that ended, which would wait out the time for its first request."""
    if not event.assoc.is_established:
        event.assoc.dul.to_user_queue.put(None)


def _matches(address: str, host: str) -> bool:
    try:
        return _ip(address) in ipaddress.ip_network(host, strict=False)
    except ValueError:
        pass
    try:
        found: Sequence[Any] = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return any(_ip(str(one[4][0])) == _ip(address) for one in found)


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found

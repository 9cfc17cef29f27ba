"""A port that speaks HTTP while a ``with`` block lasts: so many connections at once, each its thread."""

from __future__ import annotations

import contextlib
import logging
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, SO_ERROR, SOL_SOCKET, socket
from types import TracebackType
from typing import Any, Self

from recon_node.core.errors import ConfigError, where_it_failed

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 64
_POLL_S = 0.2
_REQUEST_S = 10.0
"""From connecting to the answer's beginning, however busy the peer seems."""
_SOON_S = 0.5
"""After which a request that is not whole makes room for another, where no place is free."""


class HttpPort:
    """Serves a handler's pages.

    Parameters
    ----------
    handler : type
        Of `QuietHandler`.
    name : str
        Of the thread, and in the log.
    host, port : str, int
        Where to listen; port 0 takes a free one (see `port`).
    tls : ssl.SSLContext, optional
        Server-side context.

    Raises
    ------
    ConfigError
        The address cannot be listened on.
    """

    def __init__(
        self,
        handler: type[QuietHandler],
        *,
        name: str,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        try:
            self._server = _Server(name, (host, port), handler)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
        if tls is not None:
            # Each connection shakes hands in its own thread.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name=name, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class QuietHandler(BaseHTTPRequestHandler):
    """A request handler whose silent peers are let go, and which tells nothing of the machine."""

    timeout = _REQUEST_S
    server_version = "recon-node"
    sys_version = ""

    def parse_request(self) -> bool:
        """Whether there is a request, and somebody who waits for its answer."""
        return super().parse_request() and not _gone(self.request)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin to answer: the request has come in time."""
        if isinstance(self.server, _Server):
            self.server.heard(self.request)
        super().send_response(code, message)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of the base class
        """Say nothing: a page that is looked at every few seconds is no news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 2 * _MOST_CONNECTIONS

    def __init__(self, name: str, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._name = name
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._arriving: dict[Any, float] = {}
        """Since when connections whose request is not whole are open, the oldest first."""
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread a connection, and no more than there are places."""
        if _gone(request) or not self._has_place():
            self.shutdown_request(request)
            return
        with self._lock:
            self._arriving[request] = time.monotonic()
        super().process_request(request, client_address)

    def _has_place(self) -> bool:
        """Whether a place is free, or becomes free soon: who only watches is not waited for."""
        if self._places.acquire(blocking=False):
            return True
        self._cut_off(_SOON_S, most=1)
        return self._places.acquire(timeout=_POLL_S if self._arriving else 0)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.heard(request)
            self._places.release()

    def heard(self, request: Any) -> None:
        """A request is whole, or gone."""
        with self._lock:
            self._arriving.pop(request, None)

    def service_actions(self) -> None:
        """End whoever takes too long to ask; called every `_POLL_S`, and behind each connection."""
        self._cut_off(_REQUEST_S, most=_MOST_CONNECTIONS)

    def _cut_off(self, seconds: float, *, most: int) -> None:
        with self._lock:
            before = time.monotonic() - seconds
            late = [request for request, since in self._arriving.items() if since <= before]
            for request in late[:most]:
                with contextlib.suppress(OSError):
                    request.shutdown(SHUT_RDWR)

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """A peer that went away is no news; anything else is one line."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            log.warning("%s page: %s", self._name, where_it_failed(error))


def _gone(request: Any) -> bool:
    """Whether the peer reset the connection: no page is made for nobody."""
    try:
        return bool(request.getsockopt(SOL_SOCKET, SO_ERROR))
    except OSError:
        return True

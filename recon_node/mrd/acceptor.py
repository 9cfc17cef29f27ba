"""The one accept loop: a thread for each connection, a bound on their number, an orderly end."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, Self

from recon_node.core.errors import ConfigError, where_it_failed
from recon_node.core.supervise import Supervised

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_MAX_REFUSALS = 32
_BACKLOG = 64


class Served(Protocol):
    """One accepted connection."""

    leaving: bool
    """Whether all was said, and the peer only has to read it: such a one makes room for another."""

    def run(self) -> None:
        """Serve it to its end and close it."""

    def refuse(self, reason: str) -> None:
        """Say why it is not served, and close it."""

    def abort(self) -> None:
        """End it at once, from another thread."""


Serve = Callable[[socket.socket, str], Served]
"""Makes the connection of a socket and its peer's address."""


class Acceptor:
    """Accepts connections until stopped.

    Parameters
    ----------
    serve : callable
        See `Serve`.
    host, port : str, int
        Where to listen; port 0 takes a free one (see `port`).
    places : int
        Connections at a time; further ones are refused with a word.
    allowed_peers : sequence of str
        Addresses or networks that may connect; empty allows every peer that can reach `host`.
    name : str
        Of the threads.

    Raises
    ------
    ConfigError
        The address cannot be listened on, or an allowed peer is no network.
    """

    def __init__(
        self,
        serve: Serve,
        *,
        host: str,
        port: int,
        places: int,
        allowed_peers: Sequence[str] = (),
        name: str = "mrd",
    ) -> None:
        self._serve = serve
        self._places = places
        self._networks = [_network(peer) for peer in allowed_peers]
        self._name = name
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[Served, threading.Thread] = {}
        self._refused: dict[Served, threading.Thread] = {}
        try:
            self._listener = socket.create_server((host, port), backlog=_BACKLOG)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot listen on {host}:{port} ({reason})") from error
        self._listener.settimeout(_POLL_SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self.thread = Supervised(f"{name}-accept", self._accept, self.stopping, longest_wait_s=5.0)

    @property
    def active(self) -> int:
        """Connections that are being served."""
        with self._lock:
            return len(self._running)

    @property
    def accepting(self) -> bool:
        """Whether connections are taken (for a readiness check)."""
        return self.thread.alive and not self.stopping.is_set()

    def start(self) -> Self:
        """Accept connections in the background."""
        self.thread.start()
        return self

    def stop(self, *, drain_seconds: float, cut_seconds: float) -> bool:
        """Take no new connections, let the running ones end, then cut off what is left.

        Parameters
        ----------
        drain_seconds : float
            How long running connections may go on.
        cut_seconds : float
            How long those that were cut off may take to notice.

        Returns
        -------
        bool
            True if every connection ended by itself.
        """
        self.stopping.set()
        self.thread.join()
        self._listener.close()
        left = self._join(drain_seconds)
        with self._lock:
            for connection in (*self._running, *self._refused):
                connection.abort()
        self._join(cut_seconds)
        return not left

    @contextlib.contextmanager
    def running(self, *, drain_seconds: float, cut_seconds: float) -> Iterator[Self]:
        """Accept until the block ends, then `stop`: at once where it ends with an error."""
        self.start()
        patience = 0.0
        try:
            yield self
            patience = drain_seconds
        finally:
            self.stop(drain_seconds=patience, cut_seconds=cut_seconds)

    def _join(self, seconds: float) -> int:
        """Wait for the connections; how many still run."""
        deadline = time.monotonic() + seconds
        with self._lock:
            threads = [*self._running.values()]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in threads)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, address = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                log.warning("accepting a connection failed: %s", error.strerror)
                self.stopping.wait(_POLL_SECONDS)
                continue
            try:
                self._take(sock, str(address[0]))
            except BaseException:
                sock.close()
                raise

    def _take(self, sock: socket.socket, peer: str) -> None:
        """Serve or refuse; a client never hangs for want of memory or threads here."""
        reason = self._reason_to_refuse(peer)
        if reason is not None and len(self._refused) >= _MAX_REFUSALS:
            sock.close()
            return
        try:
            self._launch(self._serve(sock, peer), reason)
        except (MemoryError, RuntimeError) as error:  # no memory, or "can't start new thread"
            log.error("a connection was closed unserved: %s", where_it_failed(error))  # noqa: TRY400
            sock.close()

    def _launch(self, connection: Served, reason: str | None) -> None:
        where = self._running if reason is None else self._refused

        def work() -> None:
            try:
                if reason is None:
                    connection.run()
                else:
                    connection.refuse(reason)
            finally:
                with self._lock:
                    where.pop(connection, None)

        thread = threading.Thread(target=work, name=f"{self._name}-connection", daemon=True)
        with self._lock:
            where[connection] = thread
        try:
            thread.start()
        except BaseException:
            with self._lock:
                where.pop(connection, None)
            raise

    def _reason_to_refuse(self, peer: str) -> str | None:
        if self.stopping.is_set():
            return "stopping: this server is shutting down"
        if not self._allowed(peer):
            return "not allowed: this host is not among the allowed peers"
        if not self._room():
            return f"busy: {self._places} connections are open, the limit of this node; try later"
        return None

    def _room(self) -> bool:
        """Whether a place is free, or becomes so by ending whoever is only leaving."""
        with self._lock:
            running = list(self._running)
        leaving = [connection for connection in running if connection.leaving]
        if len(running) - len(leaving) >= self._places or len(running) >= 2 * self._places:
            return False
        if len(running) >= self._places:
            leaving[0].abort()
        return True

    def _allowed(self, peer: str) -> bool:
        if not self._networks:
            return True
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(peer.partition("%")[0])
            mapped = getattr(address, "ipv4_mapped", None) or address
            return any(mapped in network for network in self._networks)
        return False


def _network(peer: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(peer)
    except ValueError as error:
        raise ConfigError(f"allowed peer {peer!r} is no address or network such as 192.168.2.0/24") from error

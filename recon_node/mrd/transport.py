"""Bytes over a socket, plain or TLS: waits with a deadline, survives nothing silently, never spins."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

from recon_node.core.errors import ProtocolError, TruncatedStream

_WAITS = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_TICK_SECONDS = 0.5
_TIMEVAL = struct.Struct("@ll")
_FLOOD_BYTES = 2 << 20
_GATHER_SECONDS = 0.002
"""See `SocketTransport.receive`."""


class SocketTransport:
    """Reads and writes one connected socket, from one reading and several writing threads.

    A plain socket blocks in the system with short time-outs, which costs one system call per read. A
    TLS session must not be used by two threads at a time: there the socket does not block and is
    waited for outside a lock.

    Parameters
    ----------
    sock : socket.socket
        Connected; for TLS already wrapped, unless `tls` is given.
    send_seconds : float
        Longest time without any progress while sending.
    slowest : float
        Bytes each second that the peer has to take on average, beyond `send_seconds` once; 0 for none.
    tls : ssl.SSLContext, optional
        Of a server: the socket is wrapped with it, and `shake_hands` is due.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        send_seconds: float = 60.0,
        slowest: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if tls is not None:
            sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.socket = sock
        self._send_seconds = send_seconds
        self._slowest = slowest
        self._sending_s = 0.0
        self.waited_s = 0.0
        """For data, in `receive`."""
        self._sending = threading.Lock()
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._session: contextlib.AbstractContextManager[object] = (
            threading.Lock() if self._tls else contextlib.nullcontext()
        )
        self._flood = False
        self.bytes_received = 0
        self.bytes_sent = 0
        sock.setblocking(not self._tls)
        if not self._tls:
            self._limit_calls(socket.SO_RCVTIMEO, _TICK_SECONDS)
            self._limit_calls(socket.SO_SNDTIMEO, _TICK_SECONDS)
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def shake_hands(self, deadline: float) -> None:
        """Finish the TLS handshake of a server; nothing to do on a plain socket.

        Raises
        ------
        ProtocolError
            It took longer than to `deadline` (`time.monotonic()` seconds), however busy the peer seemed.
        OSError
            The peer does not speak TLS, or its certificate is refused.
        """
        if not isinstance(self.socket, ssl.SSLSocket):
            return
        while True:
            try:
                self.socket.do_handshake()
            except _WAITS as wait:
                self._wait(wait, select.POLLIN, deadline, "no TLS handshake: time limit reached")
            else:
                return

    def receive(self, room: memoryview, deadline: float) -> int:
        """Receive at least one byte into `room`; 0 if the peer has closed its side.

        What comes in a flood the system gathers for a moment, so that it costs few calls and few wake-ups.

        Raises
        ------
        ProtocolError
            Nothing arrived before `deadline` (`time.monotonic()` seconds).
        TruncatedStream
            The connection broke.
        """
        began = time.monotonic()
        try:
            return self._receive(room, deadline)
        finally:
            self.waited_s += time.monotonic() - began

    def _receive(self, room: memoryview, deadline: float) -> int:
        while True:
            try:
                with self._session:
                    got = self.socket.recv_into(room)
                self._gather(got)
            except _WAITS as wait:
                self._wait(wait, select.POLLIN, deadline, "the peer stopped sending: time limit reached")
                self._gather(0)
            except (OSError, ValueError) as error:
                raise TruncatedStream(f"the connection broke while receiving: {error}") from error
            else:
                self.bytes_received += got
                return got

    def _gather(self, got: int) -> None:
        """After a large receipt let the next wait for `_FLOOD_BYTES`, `_GATHER_SECONDS` at most."""
        flood = not self._tls and got >= (_FLOOD_BYTES if self._flood else _FLOOD_BYTES // 32)
        if flood != self._flood:
            self._flood = flood
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _FLOOD_BYTES if flood else 1)
            self._limit_calls(socket.SO_RCVTIMEO, _GATHER_SECONDS if flood else _TICK_SECONDS)

    def _limit_calls(self, option: int, seconds: float) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(0, int(seconds * 1e6)))

    def send(self, data: bytes | memoryview, *, urgent: Callable[[], bool] = lambda: True) -> None:
        """Send all of `data`.

        Parameters
        ----------
        data : bytes or memoryview
        urgent : callable
            Whether the peer has to take it by now; time before that does not count.

        Raises
        ------
        ProtocolError
            The peer accepted nothing for `send_seconds`, or all in all too little.
        TruncatedStream
            The connection broke.
        """
        with self._sending:
            left = memoryview(data).cast("B")
            began = time.monotonic()
            deadline = began + self._send_seconds
            while left:
                pressed = urgent()
                if not pressed:
                    began = time.monotonic()
                    deadline = began + self._send_seconds
                self._check_rate(time.monotonic() - began)
                try:
                    with self._session:
                        done = self.socket.send(left)
                except _WAITS as wait:
                    until = deadline if pressed else math.inf
                    self._wait(wait, select.POLLOUT, until, "the peer stopped receiving: time limit reached")
                except (OSError, ValueError) as error:
                    raise TruncatedStream(f"the connection broke while sending: {error}") from error
                else:
                    left = left[done:]
                    self.bytes_sent += done
                    deadline = time.monotonic() + self._send_seconds
            self._sending_s += time.monotonic() - began

    def _check_rate(self, seconds: float) -> None:
        """`seconds` went by in this call so far."""
        spent = self._sending_s + seconds
        if self._slowest and spent > self._send_seconds + self.bytes_sent / self._slowest:
            raise ProtocolError(
                f"the peer reads too slowly: {self.bytes_sent} bytes in {spent:.0f} s, expected at least "
                f"{self._slowest / 1000:.0f} kB/s (server.min_rate_kb_s)"
            )

    def finish_sending(self) -> None:
        """Tell the peer that nothing more will be sent (half close)."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def drain(self, seconds: float) -> None:
        """Read and discard until the peer closes, `seconds` at most.

        Closing a socket with unread bytes makes the system reset it, and the reset discards what the
        peer has not read yet: the very error text that explains the closing.
        """
        deadline = time.monotonic() + seconds
        room = memoryview(bytearray(1 << 16))
        try:
            while time.monotonic() < deadline and self.receive(room, deadline):
                pass
        except (ProtocolError, TruncatedStream):
            return

    def abort(self) -> None:
        """End the connection at once; a thread waiting in it wakes with `TruncatedStream` or 0 bytes."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def release(self) -> None:
        """Give the socket back to whoever made it, blocking without time-outs."""
        self.socket.settimeout(None)
        if not self._tls:
            self._gather(0)
            self._limit_calls(socket.SO_RCVTIMEO, 0)
            self._limit_calls(socket.SO_SNDTIMEO, 0)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _wait(self, wait: BaseException, event: int, deadline: float, message: str) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProtocolError(message) from None
        if not self._tls:
            return
        if isinstance(wait, ssl.SSLWantReadError):
            event = select.POLLIN
        elif isinstance(wait, ssl.SSLWantWriteError):
            event = select.POLLOUT
        poll = select.poll()
        try:
            poll.register(self.socket, event)
            poll.poll(max(1, int(min(left, _TICK_SECONDS) * 1000)))
        except (OSError, ValueError) as error:
            raise TruncatedStream(f"the connection broke: {error}") from error

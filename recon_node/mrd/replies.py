"""Answers leave from a thread of their own: a peer slow to read never stops the reading of its data."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial

from recon_node.core.errors import SourceError
from recon_node.mrd.transport import SocketTransport

_LITTLE = 8
"""The part of an outbox's bytes that may wait before messages that the peer may leave."""


class Outbox:
    """A bounded queue of messages before one socket.

    A client may send its whole scan before it reads the first image. If images were written by the
    thread that reads, both sides would wait for each other for ever.

    Parameters
    ----------
    transport : SocketTransport
    max_bytes : int
        `put` waits while more than this is queued (one message always fits).
    """

    def __init__(self, transport: SocketTransport, *, max_bytes: int) -> None:
        self._transport = transport
        self._max_bytes = max_bytes
        self._queue: deque[tuple[bytes | memoryview, bool]] = deque()
        """Messages, and whether the peer has to take them."""
        self._queued = 0
        self._changed = threading.Condition()
        self._offered = False
        """Whether messages that the peer may leave have not left."""
        self._closing = False
        self._sending = False
        self.failure: SourceError | None = None
        self._thread: threading.Thread | None = None
        """From the first message on: a connection that is never answered needs none."""

    def put(self, data: bytes | memoryview) -> bool:
        """Queue whole messages; False if the peer cannot be reached any more."""
        size = len(data)
        with self._changed:
            self._changed.wait_for(
                lambda: self.failure is not None or not self._queued or self._queued + size <= self._max_bytes
            )
            return self._take(data, needed=True)

    def offer(self, data: bytes | memoryview) -> bool:
        """Queue messages that the peer may leave, where none such, and little else, waits; False if left out.

        However long the peer takes none, that is no failure until something waits behind them.
        """
        with self._changed:
            if self._offered or self._closing or self._queued > self._max_bytes // _LITTLE:
                return False
            self._offered = self._take(data, needed=False)
            return self._offered

    def _take(self, data: bytes | memoryview, *, needed: bool) -> bool:
        if self.failure is not None:
            return False
        self._start()
        self._queue.append((data, needed))
        self._queued += len(data)
        self._changed.notify_all()
        return True

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            thread.start()
            self._thread = thread

    def finish(self) -> bool:
        """Wait until everything has left; False if the peer broke the connection before."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        return self.failure is None

    def _urgent(self, *, needed: bool) -> bool:
        """Whether the peer has to take what is being sent, or something waits behind it."""
        return needed or bool(self._queue) or self._closing

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                data, needed = self._queue.popleft()
            try:
                self._transport.send(data, urgent=partial(self._urgent, needed=needed))
            except SourceError as error:
                with self._changed:
                    self.failure = error
                    self._queue.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._queued -= len(data)
                self._offered &= needed
                self._changed.notify_all()

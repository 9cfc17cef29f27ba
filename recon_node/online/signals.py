"""SIGTERM and Ctrl-C for programs that serve: the first asks them to end, the second ends them at once.

SIGHUP asks those that can to read their settings again.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_POLL_S = 0.1
_AT_ONCE = b"stopped at once: what was running is cut off; nothing that was acknowledged is lost\n"


class Stop:
    """Whether the program has been asked to end, and how.

    It is polled: a lock that a signal's handler took might be held by the very thread it interrupted.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._hangups = 0
        self._answered = 0

    def hang_up(self) -> None:
        """SIGHUP came."""
        self._hangups += 1

    def hung_up(self) -> bool:
        """Whether SIGHUP came since the last time this was asked."""
        came, self._answered = self._hangups > self._answered, self._hangups
        return came

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until somebody asks, at most `timeout` seconds; whether he did."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.signal is None and (end is None or time.monotonic() < end):
            time.sleep(_POLL_S)
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, the ordinary end of a server; 130 after Ctrl-C."""
        return 130 if self.signal == signal.SIGINT else 0


@contextmanager
def stopped_by_signals(*, reloads: bool = False) -> Iterator[Stop]:
    """Take SIGTERM and Ctrl-C until the block ends, the orderly end of what runs included.

    The second one ends the process where it stands, as a kill would: what a reply was sent for is on disk.

    Parameters
    ----------
    reloads : bool
        Take SIGHUP, too (`Stop.hung_up`); otherwise it ends the process as it always did.
    """
    stop = Stop()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.signal is not None:
            os.write(2, _AT_ONCE)
            os._exit(130 if number == signal.SIGINT else 1)
        stop.signal = number

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    if reloads:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda number, frame: stop.hang_up())
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """End the process, also where threads are stuck in the network: Python would abort on their locks."""
    stuck = [thread for thread in threading.enumerate() if thread.daemon]
    if not stuck:
        sys.exit(code)
    atexit._run_exitfuncs()  # noqa: SLF001 - what `sys.exit` would do before it waits for locks
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""Long-lived threads that come back: restarted with back-off, counted, and known to the readiness check.

An exception that nobody foresaw must not end what the node lives by (delivery, deferred scans, the accept
loop). Each such thread is a `Supervised`; a `Supervisor` holds those of one part of the node, and may hold
other supervisors' threads as well, so that one question answers for the whole tree.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from recon_node.core.errors import where_it_failed

log = logging.getLogger(__name__)

OnFailure = Callable[[BaseException], None]
"""Told of each failure, in the failed thread, before the wait."""


class EndedEarly(Exception):
    """A target returned though nobody had stopped it."""


class Supervised:
    """One thread that runs `target` until `stop` is set, and again after whatever it raises.

    Parameters
    ----------
    name : str
        Of the thread; shown by readiness, log and counters.
    target : callable
        Runs until `stop` is set. To return before that is a failure too.
    stop : threading.Event
        Ends the back-off; `target` has to look at it by itself.
    first_wait_s, longest_wait_s : float
        Waits double from the first to the longest, and begin anew once the target ran that long.
    on_failure : callable, optional
        See `OnFailure`; what goes wrong in it is logged.
    """

    def __init__(
        self,
        name: str,
        target: Callable[[], object],
        stop: threading.Event,
        *,
        first_wait_s: float = 1.0,
        longest_wait_s: float = 60.0,
        on_failure: OnFailure | None = None,
    ) -> None:
        self.name = name
        self._target = target
        self._stop = stop
        self._waits = (first_wait_s, longest_wait_s)
        self._on_failure = on_failure
        self._wait_s = 0.0
        self._began = 0.0
        self._down = False
        self._trouble: str | None = None
        self.failures = 0
        """Since the start."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Run the target in the background.

        Raises
        ------
        RuntimeError
            The system gives no thread.
        """
        self._began = time.monotonic()
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, which `stop` brings about; False if it did not come in time (seconds)."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the target runs and has, since its last failure, held out as long as it had to wait."""
        running = self._thread.is_alive() and not self._down
        return running and (self._trouble is None or self._held_out(self._wait_s))

    @property
    def trouble(self) -> str | None:
        """Why it is not alive (type and place of the failure, never its text); None while it is."""
        if self.alive:
            return None
        return self._trouble or "not running"

    def _held_out(self, seconds: float) -> bool:
        return time.monotonic() - self._began >= seconds

    def _run(self) -> None:
        while not self._stop.is_set():
            error = self._once()
            if self._stop.is_set():
                return
            self._failed(error or EndedEarly())
            self._stop.wait(self._wait_s)
            self._began, self._down = time.monotonic(), False

    def _once(self) -> BaseException | None:
        try:
            self._target()
        except BaseException as error:  # noqa: BLE001 - that is what this class is for
            return error
        return None

    def _failed(self, error: BaseException) -> None:
        first, longest = self._waits
        fresh = not self._wait_s or self._held_out(longest)
        self._wait_s = first if fresh else min(longest, 2.0 * self._wait_s)
        self._trouble, self._down = where_it_failed(error), True
        self.failures += 1
        log.error("%s failed (%s); started again in %.3g s", self.name, self._trouble, self._wait_s)
        if self._on_failure is None:
            return
        try:
            self._on_failure(error)
        except Exception as second:  # noqa: BLE001 - an observer never ends what it observes
            log.error("%s: its failure hook failed: %s", self.name, where_it_failed(second))  # noqa: TRY400


class Supervisor:
    """The supervised threads of one part of the node.

    Parameters
    ----------
    stop : threading.Event, optional
        Shared by all; set by `stop`.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stopping = stop or threading.Event()
        self._threads: list[Supervised] = []

    def run(
        self,
        name: str,
        target: Callable[[], object],
        *,
        first_wait_s: float = 1.0,
        longest_wait_s: float = 60.0,
    ) -> Supervised:
        """Start `target` as a supervised thread; the waits are those of `Supervised`."""
        thread = Supervised(
            name, target, self.stopping, first_wait_s=first_wait_s, longest_wait_s=longest_wait_s
        )
        thread.start()
        self._threads.append(thread)
        return thread

    def watch(self, *threads: Supervised) -> None:
        """Answer for threads that somebody else starts and stops, too."""
        self._threads.extend(threads)

    def stop(self, timeout: float) -> bool:
        """End all threads; False if that took longer than `timeout` seconds."""
        self.stopping.set()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return all(thread.join(0.0) for thread in self._threads)

    def trouble(self) -> str | None:
        """Name and reason of a thread that is down; None while all are alive."""
        for thread in self._threads:
            reason = thread.trouble
            if reason is not None:
                return f"{thread.name} is down: {reason}"
        return None

    def failures(self) -> Mapping[str, int]:
        """Thread to how often it failed, for a counter."""
        return {thread.name: thread.failures for thread in self._threads}

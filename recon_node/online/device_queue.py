"""Whose turn it is: one slice at a time on the device, however many scans are open."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recon_node.core.choices import Order


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A scan's place in the queue; the smallest goes first."""

    background: bool
    """Nobody waits at a console for it."""
    urgency: int
    """The scan's priority, negative."""
    age: int
    """By order of arrival, so that the scan that goes first is the smaller."""


class DeviceQueue:
    """Hands out turns, one at a time, to the waiting scan that comes first.

    Scans at a console go before deferred ones, then those of higher priority, then by age. A turn that has
    begun is never taken away: a slice on the device is finished.

    Parameters
    ----------
    order : {"newest", "oldest"}
        Which of two scans of one priority goes first.
    """

    def __init__(self, order: Order = "newest") -> None:
        self._sign = -1 if order == "newest" else 1
        self._arrivals = itertools.count(1)
        self._ticket = itertools.count()
        self._waiting: list[tuple[Place, int]] = []
        self._busy = False
        self._changed = threading.Condition()

    def place(self, *, priority: int = 0, background: bool = False) -> Place:
        """The place of a scan that arrives now."""
        return Place(background, -priority, self._sign * next(self._arrivals))

    @property
    def waiting(self) -> int:
        """Slices that wait for a turn."""
        with self._changed:
            return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether somebody has the device."""
        with self._changed:
            return self._busy

    @contextmanager
    def turn(self, place: Place) -> Iterator[None]:
        """Wait for a turn, which lasts until the block ends."""
        with self._changed:
            mine = (place, next(self._ticket))
            heapq.heappush(self._waiting, mine)
            self._changed.wait_for(lambda: not self._busy and self._waiting[0] == mine)
            heapq.heappop(self._waiting)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

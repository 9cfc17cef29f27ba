"""A pause of pynetdicom's reactor that can be relied on.

pynetdicom pauses the thread that serves an association while a request waits for its answer, but takes a
flag from before the pause for the pause itself: on a busy machine the thread may run once more, take the
answer off the queue as if it were a request, and the request waits until it times out. And it serves a
report of storage commitment in a thread of its own, which lowers that flag while the association's thread
stays paused: whoever asked for the pause, to release, would wait for ever.
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association

_LOOK_S = 0.05
"""How often to see whether the thread has ended instead of pausing."""


class Pause:
    """In place of the event that an association's thread waits for, whose `clear` returns once it waits."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._changed = threading.Condition()
        self._open = True
        self._waiting = False

    def wait(self, timeout: float | None = None) -> bool:
        """Let the calling thread pass while open; the association's thread, before each of its rounds."""
        with self._changed:
            self._waiting = True
            self._changed.notify_all()
            passed = self._changed.wait_for(lambda: self._open, timeout)
            self._waiting = False
            return passed

    def set(self) -> None:
        """Let the association's thread go on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Stop the association's thread; returns once it has stopped, or ended."""
        with self._changed:
            self._open = False
            while not self._waiting and self._association.is_alive():
                if threading.current_thread() is self._association:
                    return
                self._changed.wait(_LOOK_S)

    def is_set(self) -> bool:
        """Whether the thread may pass."""
        return self._open


class _Paused(Association):
    """An association that needs no flag beside its `Pause`, whose `clear` has waited already."""

    @property
    def _is_paused(self) -> bool:
        return True

    @_is_paused.setter
    def _is_paused(self, _: bool) -> None:
        pass


def pause_reliably(association: Association) -> None:
    """Give an association, established and without a request in progress, such a pause."""
    association._reactor_checkpoint = Pause(association)  # type: ignore[assignment]  # noqa: SLF001
    association.__class__ = _Paused

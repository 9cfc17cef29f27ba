"""Asking a destination what it has: before sending again what may be there, and after a success.

A second store of an instance that is there can destroy it at some archives, and a success was seen without
anything being stored. Not every destination can be asked; that is found out once and remembered for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from recon_node.core.errors import DeliveryError, DicomError, where_it_failed
from recon_node.delivery.instance import Instance, read_instance
from recon_node.delivery.outcome import PacsBusy
from recon_node.delivery.queue.entry import Entry

_LOG = logging.getLogger(__name__)
_REMEMBERED_S = 3600.0
_FAILURES = 3
"""In a row, while the destination otherwise works or not: then it counts as one that cannot be asked."""


@runtime_checkable
class Askable(Protocol):
    """A destination that tells what it has (C-FIND, QIDO-RS)."""

    def holds(self, instances: Sequence[Instance]) -> Mapping[str, bool] | None:
        """SOP instance UID to whether it is there; None where this destination cannot be asked."""


class Asking:
    """What one destination says it has.

    Parameters
    ----------
    name : str
        Of the destination, for the log.
    destination : object
        Any destination; one without `Askable.holds` is never asked.
    steady : callable
        Clock, in seconds.
    """

    def __init__(self, name: str, destination: object, steady: Callable[[], float]) -> None:
        self._name = name
        self._destination = destination if isinstance(destination, Askable) else None
        self._steady = steady
        self._not_before = 0.0
        self._failures = 0
        self.known = False
        """Whether it was ever found out if it can be asked."""

    @property
    def possible(self) -> bool:
        """Whether it can be asked, as far as is known."""
        return self._destination is not None and self._steady() >= self._not_before

    def held(self, entries: Sequence[Entry]) -> dict[Entry, bool] | None:
        """Entry to whether its instance is there; those it says nothing of are left out.

        Returns None where it cannot be asked.

        Raises
        ------
        DeliveryError
            It should be possible, but did not work now.
        """
        if self._destination is None or not self.possible:
            return None
        known = {entry: instance for entry in entries if (instance := _identity(entry)) is not None}
        try:
            answer = self._destination.holds(list(known.values()))
        except PacsBusy:
            raise
        except DeliveryError:
            self._failures += 1
            if self._failures < _FAILURES:
                raise
            answer = None
        except Exception as error:  # noqa: BLE001 - a destination may be anyone's code
            _LOG.warning("%s: asking what it has failed (%s)", self._name, where_it_failed(error))
            answer = None
        self.known = True
        if answer is None:
            self._give_up()
            return None
        self._failures = 0
        return {entry: answer[i.uid] for entry, i in known.items() if i.uid in answer}

    def _give_up(self) -> None:
        self._failures = 0
        self._not_before = self._steady() + _REMEMBERED_S
        _LOG.info("%s: cannot be asked what it has; its answers are believed", self._name)


def _identity(entry: Entry) -> Instance | None:
    try:
        return read_instance(entry.path)
    except DicomError:
        return None

"""Data that comes too late to be sent, which pynetdicom takes for a fault of its own."""

from __future__ import annotations

import logging
from typing import Any

from pynetdicom.fsm import TRANSITION_TABLE

log = logging.getLogger(__name__)

_DATA = "Evt9"
"""A primitive to be sent (PS3.8 Table 9-10: P-DATA request)."""


def drop_late_data(event: Any) -> None:
    """Handler of an opened connection: what is to be sent after a release has been asked for is dropped.

    A report of storage commitment may arrive while this side ends the association. Its answer then comes too
    late; pynetdicom's state machine knows no such thing, and its thread would end with the exception.
    """
    machine = event.assoc.dul.state_machine
    act = machine.do_action

    def do_action(name: str) -> None:
        if name == _DATA and (name, machine.current_state) not in TRANSITION_TABLE:
            log.debug("data dropped: the association is being released")
            return
        act(name)

    machine.do_action = do_action

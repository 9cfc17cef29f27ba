"""A scan that is refused is still answered: quick images where they can be had, and always the originals.

Whoever sent images gets them back, whoever sent raw data gets what somebody can make of it in a hurry; the
reason comes last. A stream that broke off, or asks for more than is allowed or than there is memory
for, gets nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from recon_node.core.errors import LimitReached, ProtocolError, ReconNodeError, TruncatedStream
from recon_node.mrd.guard import guarded
from recon_node.mrd.session import ScanSession, WireSession

log = logging.getLogger(__name__)

Rescue = Callable[[ScanSession, str], None]
"""Answers, in another way, a scan none of which has been read; told why it is refused."""

_GIVEN_UP = (ProtocolError, TruncatedStream, LimitReached, MemoryError)


def answered(session: WireSession, work: Callable[[], object], rescue: Rescue | None) -> None:
    """Do `work`; where that fails, answer the rest of the scan before the error is raised.

    Parameters
    ----------
    session : WireSession
        Of the scan that `work` answers.
    work : callable
    rescue : callable, optional
        Tried where nothing of the scan has been read yet.

    Raises
    ------
    Exception
        What `work` raised.
    """
    try:
        work()
    except _GIVEN_UP:
        raise
    except Exception as error:
        why = str(error) if isinstance(error, ReconNodeError) else type(error).__name__
        if rescue is not None and not session.readouts:
            ending = guarded(lambda: rescue(session, why), scan_id=session.scan_id)
            if ending.trouble is not None:
                session.text(f"WRN no quick images: {ending.trouble}")
        guarded(session.pass_on, scan_id=session.scan_id)
        raise

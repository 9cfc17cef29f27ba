"""A scan whose reconstruction fails is tried again from what was captured, while the scanner still waits.

The way down: the same once more; the same, but only answered; the fallback's images, only answered. What was
only answered gets its DICOM from `deferred_worker.Background`, as does a scan that could not be answered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from recon_node.core.errors import ConfigError, DataError, LimitReached, SourceError
from recon_node.delivery import Spool
from recon_node.mrd.captures import Arriving
from recon_node.mrd.guard import guarded
from recon_node.mrd.session import ScanSession
from recon_node.online.again import Following, Replayed
from recon_node.online.answer import answer
from recon_node.online.node import Node
from recon_node.online.quick import quick_look
from recon_node.online.received import described
from recon_node.pipeline.row import quick
from recon_node.settings import Settings

log = logging.getLogger(__name__)

_FINAL = (SourceError, ConfigError, LimitReached)
"""What no second try mends: no scan, a wish that cannot be met, too much of it."""


def reconstruct(
    node: Node,
    session: ScanSession,
    settings: Settings,
    properties: Mapping[str, str],
    *,
    spool: Spool | None = None,
) -> None:
    """Reconstruct a scan that a scanner waits for; with a capture, whatever fails it gets an image.

    Parameters
    ----------
    node : Node
    session : ScanSession
    settings : Settings
        The node's, changed by what the peer asked for.
    properties : mapping
        What the peer asked for.
    spool : Spool, optional
        In place of the node's own.

    Raises
    ------
    ReconNodeError
        As `Node.reconstruct`, where there is no capture or no try succeeded.
    """
    arriving = session.capture
    if arriving is None or not arriving.open:
        node.reconstruct(session, settings, spool=spool, arriving=True)
        return
    arriving.describe(kind="direct", **described(session, settings, properties))
    following = Following(session)
    try:
        node.reconstruct(following, settings, spool=spool, arriving=True)
    except _FINAL:
        raise
    except Exception as error:
        tries = _Tries(node, following, arriving, spool)
        if not tries.answer(settings, error):
            raise


class _Tries:
    """The tries of one scan after the first."""

    def __init__(self, node: Node, following: Following, arriving: Arriving, spool: Spool | None) -> None:
        self._node = node
        self._following = following
        self._arriving = arriving
        self._spool = spool

    def answer(self, settings: Settings, error: Exception) -> bool:
        """Whether the scanner has its images after all."""
        kind, scan_id = type(error).__name__, self._following.scan_id
        if not self._all_is_here():
            return False
        log.warning("trying again from the capture: %s", kind, extra={"scan": scan_id})
        self._arriving.later = True
        repeated = not isinstance(error, DataError)  # what the data say, they will say again
        if repeated and self._try(settings, write=True):
            self._arriving.later = False
            self._following.text(f"WRN the first try failed ({kind}); these images are of a second one")
            return True
        in_hurry = quick(settings)
        for wanted in (settings, in_hurry) if repeated else (in_hurry,):
            why = None if wanted is settings else f"{settings.recon.method} failed ({kind})"
            if self._try(wanted, write=False, why=why):
                self._arriving.describe(made_by=wanted.recon.method)
                self._node.metrics.exams.fell_back(scan_id)
                self._following.text(
                    f"WRN the first try failed ({kind}); these images are by {wanted.recon.method}, their "
                    f"DICOM follows from scan {scan_id}"
                )
                return True
        self._arriving.later = repeated
        return False

    def _all_is_here(self) -> bool:
        """Read what is left of the scan: whether its capture is whole."""
        try:
            for _ in self._following:
                pass
        except SourceError:
            return False
        self._arriving.sync()
        return self._arriving.open and self._arriving.capture.whole

    def _try(self, settings: Settings, *, write: bool, why: str | None = None) -> bool:
        def work() -> None:
            with Replayed(self._arriving.capture, threading.Event(), to=self._following) as session:
                if write:
                    self._node.reconstruct(session, settings, spool=self._spool)
                    return
                for done in self._node.slices(session, settings, wanted=self._following.unanswered):
                    answer(self._following, done.result if why is None else quick_look(done.result, why))

        return guarded(work, scan_id=self._following.scan_id).trouble is None

"""Long reconstructions that no console waits for: quick images now, the network's later.

A deferred scan is kept on disk while the console gets the fallback method's images. Once the connection has
closed, `deferred_worker.Background` makes the images that were asked for: DICOM as for every scan, and kept
for the console to fetch with mode ``retrieve``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from recon_node.core.errors import DataError, SourceError, UnsupportedScan
from recon_node.mrd.captures import Arriving, Capture, Captures
from recon_node.mrd.captures.entitled import Identity, Tries, hashed, new_ticket
from recon_node.mrd.guard import guarded
from recon_node.mrd.messages import ImageMessage
from recon_node.mrd.session import ScanSession
from recon_node.mrd.wire import read_messages
from recon_node.online.again import Following
from recon_node.online.node import Node
from recon_node.online.received import described
from recon_node.settings import Settings

log = logging.getLogger(__name__)
audit = logging.getLogger("recon_node.audit")
"""Who fetched, or tried to fetch, whose images."""

_UNFINISHED = ("waiting", "arriving")


class Deferral:
    """Takes scans to be reconstructed later.

    Parameters
    ----------
    node : Node
    scans : Captures
        On disk.
    """

    def __init__(self, node: Node, scans: Captures) -> None:
        self._node = node
        self.scans = scans

    def defer(self, session: ScanSession, settings: Settings, properties: Mapping[str, str]) -> None:
        """Keep a scan, and answer with the fallback's images.

        Parameters
        ----------
        session : ScanSession
        settings : Settings
            With mode ``deferred``.
        properties : mapping
            What the peer asked for; the scan is reconstructed with them.

        Raises
        ------
        SourceError
            The stream broke off; what was complete is kept where the settings say so.
        DiskFull, DataError
            There is no room for the scan.
        """
        self.scans.check_room()
        ticket = new_ticket()
        session.attributes["DeferredScan"] = session.scan_id
        session.attributes["DeferredTicket"] = ticket
        with self._kept(session) as arriving:
            arriving.describe(
                kind="deferred", ticket=hashed([ticket]), **described(session, settings, properties)
            )
            following = _following(session, arriving)
            try:
                self._quick(following, settings)
            except SourceError as error:
                if settings.server.on_vanish == "finish" and not isinstance(error, UnsupportedScan):
                    arriving.keep()
                raise
            arriving.ended()
            arriving.keep()
        session.text(
            f"deferred as {session.scan_id}, ticket {ticket}: the {settings.recon.method} series follows"
        )

    def _kept(self, session: ScanSession) -> AbstractContextManager[Arriving]:
        """Where the scan is kept already, or is from now on."""
        if session.capture is None:
            return self.scans.start(session.scan_id, needed=True, peer=session.peer)
        session.capture.require()
        return nullcontext(session.capture)

    def _quick(self, session: ScanSession, settings: Settings) -> None:
        """Whatever becomes of them, the scan itself is not lost by it."""
        ending = guarded(
            lambda: self._answer(session, settings),
            scan_id=session.scan_id,
            let_through=(SourceError,),
        )
        if ending.trouble is not None:
            _read_on(session, ending.trouble)

    def _answer(self, session: ScanSession, settings: Settings) -> None:
        quick = settings.replace("recon", method=settings.recon.fallback)
        for done in self._node.slices(session, quick, arriving=True):
            images = done.result.images
            name = " ".join(filter(None, (images.header.protocol, images.made_by.method, "quick look")))
            session.reply(images, verdict=done.result.verdict, description=name)


def _following(session: ScanSession, arriving: Arriving) -> Following:
    """The session, read once by several, whose data are kept before they are used, and before an answer."""
    if session.capture is not None:
        return Following(session)
    session.capture = arriving
    return Following(session, arriving.following(session.headers[0].xml, session))


def _read_on(session: ScanSession, reason: str) -> None:
    """No quick images; but all of the scan is kept."""
    session.text(f"WRN no quick images: {reason}")
    for _ in session:
        pass


def retrieve(
    scans: Captures,
    tries: Tries,
    session: ScanSession,
    *,
    scan_id: str | None = None,
    ticket: str | None = None,
) -> None:
    """Hand back the finished scans that the peer is entitled to, and that were not handed back yet.

    Parameters
    ----------
    scans : Captures
    tries : Tries
        Wrong ones, by address.
    session : ScanSession
        Its header and address say whose scans are asked for; its data is not used.
    scan_id : str, optional
        This scan alone, also if it was handed back before.
    ticket : str, optional
        What was handed over with the quick images.

    Raises
    ------
    DataError
        There is no image to hand over: nothing of the kind is known, it is not finished, it failed, or all
        was handed over before.
    LimitReached
        There were too many wrong tries from this address.
    """
    for _ in session:
        pass
    if ticket is None:
        tries.check(session.peer)
    asking = Identity.of(session.headers, session.peer)
    jobs = scans.fetchable(asking, scan_id=scan_id, ticket=ticket)
    if not jobs:
        audit.warning(
            "no deferred scan for this peer", extra=_who(session, asking, tries.wrong(session.peer))
        )
        raise DataError(
            "no deferred scan of this patient is known to this node: expected the same patient and study in "
            "the header and the address that sent it, or with another address the property ticket"
        )
    fresh = [job for job in jobs if job.state == "done" and (scan_id is not None or not job.handed)]
    images = 0
    for job in fresh:
        audit.info("deferred scan fetched", extra={**_who(session, asking), "config": job.scan_id})
        images += _hand_over(job, session)
    if not images:
        raise DataError(_nothing_to_hand_over(jobs, fresh))
    for job in jobs:
        if job.state in _UNFINISHED:
            session.text(f"WRN {_unfinished(job)}")


def _nothing_to_hand_over(jobs: Sequence[Capture], fresh: Sequence[Capture]) -> str:
    """Why the console gets no image, as its operator has to know."""
    told = [f"deferred scan {job.scan_id} failed: {job.reason}" for job in jobs if job.state == "failed"]
    told += [_unfinished(job) for job in jobs if job.state in _UNFINISHED]
    told += [f"deferred scan {job.scan_id} has no image that may leave this node" for job in fresh]
    names = ", ".join(job.scan_id for job in jobs[-3:])
    fetched = f"nothing new to hand over: {names} was fetched before; property scan fetches it again"
    return "; ".join(told) or fetched


def _unfinished(job: Capture) -> str:
    return f"deferred scan {job.scan_id} is not finished yet: ask again later"


def _who(session: ScanSession, asking: Identity, tries: int = 0) -> dict[str, str | int]:
    """Who asks, and for whom, without a patient's data."""
    return {
        "scan": session.scan_id,
        "peer": session.peer or "local",
        "patient": asking.patient[:12] or "none",
        **({"tries": tries} if tries else {}),
    }


def _hand_over(job: Capture, session: ScanSession) -> int:
    """Images of a scan that were sent."""
    sent, count = True, 0
    try:
        images = job.images.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"the images of scan {job.scan_id} were removed at this moment") from error
    for message in read_messages(memoryview(images), close_optional=True):
        if isinstance(message, ImageMessage):
            sent = session.send_image(message)
            count += 1
    if sent and count:
        job.hand_over()
    return count

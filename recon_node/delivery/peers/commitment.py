"""Storage commitment, push model (PS3.4 Annex J): the PACS says that it will keep what it took.

The request (N-ACTION) names instances under a transaction UID. The report (N-EVENT-REPORT) may come
on the same association or, as with Orthanc, on a new one that the PACS opens to a
`CommitmentListener`.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from recon_node.core.errors import PacsMisconfigured, PacsUnreachable, where_it_failed
from recon_node.delivery.peers.acceptor import Acceptor, Admission
from recon_node.delivery.peers.association import Handlers, Peer, drop, open_association, release

_LOG = logging.getLogger(__name__)
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
_REQUEST_COMMITMENT = 1
REPORT_BYTES = 64 << 20
"""Over the life of a connection; a report on 200 instances has some 40 kB."""
_REASONS = {
    0x0110: "processing failure",
    0x0112: "it does not have the instance",
    0x0119: "SOP class and instance contradict each other",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What the PACS committed itself to."""

    transaction: str
    committed: frozenset[str]
    """SOP Instance UIDs."""
    failed: Mapping[str, str]
    """SOP Instance UID to reason."""


OnReport = Callable[[CommitmentReport], None]


def request_commitment(
    peer: Peer, instances: Sequence[tuple[str, str]], transaction: str, *, wait_s: float
) -> CommitmentReport | None:
    """Ask `peer` to commit itself to instances it was sent.

    Parameters
    ----------
    peer : Peer
        The PACS.
    instances : sequence of (str, str)
        SOP class and SOP Instance UID.
    transaction : str
        A new UID.
    wait_s : float
        How long to keep the association open for the report.

    Returns
    -------
    CommitmentReport or None
        None where no report came on this association; expect it at the listener.

    Raises
    ------
    DeliveryError
        The request did not get through (as for `open_association`), or was refused.
    """
    arrived = threading.Event()
    reports: list[CommitmentReport] = []

    def on_report(event: evt.Event) -> tuple[int, None]:
        report = _read(event)
        if report is None or report.transaction != transaction:
            return 0x0110, None
        reports.append(report)
        return 0x0000, None

    def on_sent(event: evt.Event) -> None:
        # Not before: a release that overtakes our answer leaves the PACS waiting for it.
        if reports and isinstance(event.pdu, P_DATA_TF):
            arrived.set()

    association = open_association(
        peer,
        [build_context(StorageCommitmentPushModel)],
        handlers=[(evt.EVT_N_EVENT_REPORT, on_report), (evt.EVT_PDU_SENT, on_sent)],
    )
    try:
        request = _request(instances, transaction)
        try:
            status, _ = association.send_n_action(
                request, _REQUEST_COMMITMENT, StorageCommitmentPushModel, WELL_KNOWN_INSTANCE
            )
        except Exception as error:  # of pynetdicom, about what the peer negotiated
            drop(association)
            cause = where_it_failed(error)
            raise PacsUnreachable(f"{peer}: storage commitment cannot be asked for ({cause})") from error
        if "Status" not in status:
            raise PacsUnreachable(f"{peer}: no answer to the storage commitment request")
        if status.Status != 0:
            raise PacsMisconfigured(f"{peer} refused storage commitment with status 0x{status.Status:04X}")
        arrived.wait(wait_s)
    finally:
        release(association)
    return reports[0] if reports else None


class CommitmentListener(Acceptor):
    """Takes reports from the PACS while the ``with`` block lasts.

    Parameters
    ----------
    on_report : callable
        Called with each report, from the connection's thread; if it raises, the PACS is told of a
        processing failure and may report again.
    ae_title : str
        The title under which the PACS knows us.
    host, port : str, int
        Where to listen; port 0 takes a free one (see `port`).
    tls : ssl.SSLContext, optional
        Server-side context.
    admission : Admission, optional
        Who may report; anyone who reaches the port where left out.
    """

    def __init__(
        self,
        on_report: OnReport,
        *,
        ae_title: str = "RECON-NODE",
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        admission: Admission | None = None,
    ) -> None:
        admission = admission or Admission(total_bytes=REPORT_BYTES)
        super().__init__(ae_title=ae_title, host=host, port=port, tls=tls, admission=admission)
        self._on_report = on_report

    def handlers(self) -> Handlers:
        """N-EVENT-REPORT."""
        return [(evt.EVT_N_EVENT_REPORT, self._handle)]

    def _handle(self, event: evt.Event) -> tuple[int, None]:
        report = _read(event)
        if report is None:
            return 0x0115, None
        try:
            self._on_report(report)
        except Exception as error:  # noqa: BLE001 - pynetdicom would log it with the data set
            _LOG.warning("a commitment report was not taken (%s)", where_it_failed(error))
            return 0x0110, None
        return 0x0000, None


def _request(instances: Sequence[tuple[str, str]], transaction: str) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = []
    for sop_class, uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = uid
        request.ReferencedSOPSequence.append(item)
    return request


def _read(event: evt.Event) -> CommitmentReport | None:
    """The report in an N-EVENT-REPORT; None where it makes no sense."""
    try:
        information = event.event_information
        return CommitmentReport(
            transaction=str(information.TransactionUID),
            committed=frozenset(
                str(i.ReferencedSOPInstanceUID) for i in information.get("ReferencedSOPSequence") or ()
            ),
            failed={
                str(i.ReferencedSOPInstanceUID): _reason(int(i.get("FailureReason", 0x0110)))
                for i in information.get("FailedSOPSequence") or ()
            },
        )
    except Exception:  # noqa: BLE001 - pydicom raises what it likes on a damaged data set
        return None


def _reason(code: int) -> str:
    return f"storage commitment failed: {_REASONS.get(code, 'failure')} (0x{code:04X})"

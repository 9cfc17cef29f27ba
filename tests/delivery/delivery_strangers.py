"""A port for commitment reports, and a PACS that reports to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from recon_node.delivery import CommitmentReport
from recon_node.delivery.destinations import open_listener

PACS = "dicom://PACS@127.0.0.1:104"


@contextlib.contextmanager
def listening(
    options: str = "", *, expected: tuple[str, ...] = (PACS,), scheme: str = "dicom"
) -> Iterator[tuple[int, list[CommitmentReport]]]:
    reports: list[CommitmentReport] = []
    address = f"{scheme}://RECON-NODE@127.0.0.1:0{options}"
    with open_listener(address, reports.append, expected=expected) as listener:
        yield listener.port, reports


def report(
    port: int, *, calling: str = "PACS", called: str = "RECON-NODE", transaction: str = "1.2.3"
) -> int | None:
    """Send a commitment report; its status, or None where the association was refused."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    association = ae.associate("127.0.0.1", port, ae_title=called, ext_neg=[role])
    if not association.is_established:
        if association.dul.socket.socket is not None:  # pynetdicom leaves it open
            association.dul.socket.socket.close()
        return None
    told = Dataset()
    told.TransactionUID = "1.2.3"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2", "1.2.3.4"
    told.ReferencedSOPSequence = [item]
    status, _ = association.send_n_event_report(told, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
    association.release()
    return int(status.Status)


def well(port: int) -> bool:
    """Whether the PACS can report, whatever else is going on."""
    return report(port) == 0

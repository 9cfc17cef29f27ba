"""A small storage SCP for the demo and the tests: C-ECHO, C-STORE, storage commitment (PS3.4 Annex J)."""

from __future__ import annotations

import queue
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from recon_node.core import durable
from recon_node.core.names import below, path_component
from recon_node.delivery.peers.acceptor import Acceptor
from recon_node.delivery.peers.association import Handlers
from recon_node.delivery.peers.commitment import WELL_KNOWN_INSTANCE

NO_SUCH_OBJECT = 0x0112
_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless]


class StorageScp(Acceptor):
    """Stores instances below `folder` while the ``with`` block lasts.

    An instance that is already there is answered with success and left as it is, as Orthanc does.

    Parameters
    ----------
    folder : Path
        Instances go to ``<folder>/<study>/<series>/<SOP instance>.dcm``, synced before the answer.
    ae_title : str
        Own title; any calling title is welcome.
    host, port : str, int
        Where to listen; port 0 takes a free one (see `port`).
    tls : ssl.SSLContext, optional
        Server-side context.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "EMBEDDED",
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(ae_title=ae_title, host=host, port=port, tls=tls)
        self.folder = folder
        self._reports: queue.Queue[tuple[Any, Dataset, int] | None] = queue.Queue()
        self._reporter = threading.Thread(target=self._report, name="commitment-reports", daemon=True)

    @property
    def address(self) -> str:
        """As `open_destination` takes it."""
        return f"dicom{'s' if self._tls else ''}://{self.ae_title}@{self.host}:{self.port}"

    def files(self) -> list[Path]:
        """What is stored, sorted by path."""
        return sorted(self.folder.rglob("*.dcm"))

    def add_contexts(self, ae: AE) -> None:
        """Every storage SOP class, compressed without loss or not at all."""
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax), _SYNTAXES)

    def handlers(self) -> Handlers:
        """C-STORE and storage commitment."""
        return [(evt.EVT_C_STORE, self._on_store), (evt.EVT_N_ACTION, self._on_commitment)]

    def __enter__(self) -> Self:
        super().__enter__()
        self._reporter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reports.put(None)
        super().__exit__(kind, error, trace)
        self._reporter.join(timeout=10)

    def _on_store(self, event: Any) -> int:
        request = event.request
        target = self._place(event)
        if target.exists() or self._find(str(request.AffectedSOPInstanceUID)):
            return 0x0000
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            durable.write_bytes(target, event.encoded_dataset())
        except OSError:
            return 0xA700
        return 0x0000

    def _place(self, event: Any) -> Path:
        dataset = event.dataset
        study, series = dataset.get("StudyInstanceUID", "study"), dataset.get("SeriesInstanceUID", "series")
        uid = str(event.request.AffectedSOPInstanceUID)
        place = below(self.folder, str(study or "study"), str(series or "series"), uid)
        return place.with_name(f"{place.name}.dcm")

    def _find(self, uid: str) -> bool:
        return next(self.folder.glob(f"*/*/{path_component(uid)}.dcm"), None) is not None

    def _on_commitment(self, event: Any) -> tuple[int, None]:
        if event.action_type != 1:
            return 0x0123, None
        request = event.action_information
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        found, lost = [], []
        for item in request.ReferencedSOPSequence:
            if self._find(str(item.ReferencedSOPInstanceUID)):
                found.append(_reference(item))
            else:
                failed = _reference(item)
                failed.FailureReason = NO_SUCH_OBJECT
                lost.append(failed)
        if found:
            report.ReferencedSOPSequence = found
        if lost:
            report.FailedSOPSequence = lost
        self._reports.put((event.assoc, report, 2 if lost else 1))
        return 0x0000, None

    def _report(self) -> None:
        while (work := self._reports.get()) is not None:
            association, report, kind = work
            if association.is_established:
                association.send_n_event_report(report, kind, StorageCommitmentPushModel, WELL_KNOWN_INSTANCE)


def _reference(item: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = item.ReferencedSOPClassUID
    reference.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
    return reference

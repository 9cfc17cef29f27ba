"""Delivery by C-STORE (PS3.4 Annex B) and C-ECHO (PS3.4 Annex A)."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from pydicom.dataset import FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config, build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from recon_node.core.errors import (
    DeliveryError,
    DicomError,
    PacsMisconfigured,
    PacsUnreachable,
    where_it_failed,
)
from recon_node.delivery.instance import Instance, read_dataset, read_instance
from recon_node.delivery.outcome import Outcome, PacsBusy, Unanswered, judge_status
from recon_node.delivery.peers.association import NoContext, Peer, drop, open_association, release
from recon_node.delivery.peers.commitment import CommitmentReport, request_commitment
from recon_node.delivery.peers.query import find_instances
from recon_node.delivery.peers.sender import Sender, as_delivery

_config.STORE_SEND_CHUNKED_DATASET = True  # a file is sent as it is, in pieces

_FALL_BACK: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_MOST_KINDS = 60
"""Two contexts a kind and one for storage commitment must stay within 128 (PS3.8 9.3.2.2)."""

Kind = tuple[str, str]


class DicomDestination(Sender):
    """An application entity that stores what is sent to it.

    Associations are kept open between calls and shared by turns: each call of `deliver` borrows one
    or opens its own, so that several threads may deliver at the same time.

    Parameters
    ----------
    peer : Peer
        Address, AE titles, TLS, timeouts.
    name : str, optional
        Name from the settings; the address where left out.
    commits : bool
        The PACS does storage commitment: a success alone does not count.
    verify : bool
        Ask it by C-FIND what it has; False for one that does not tell the truth (a router).
    report_wait_s : float
        How long to keep an association open for a commitment report, before it has to come on one of
        the PACS's own.
    idle_s : float
        An association unused for so long is released rather than reused.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        name: str | None = None,
        commits: bool = False,
        verify: bool = True,
        report_wait_s: float = 2.0,
        idle_s: float = 10.0,
    ) -> None:
        self.peer = peer
        self._verify = verify
        self._name = name or f"dicom{'s' if peer.tls else ''}://{peer}"
        self.commits = commits
        self._report_wait_s = report_wait_s
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._free: list[tuple[float, _Session]] = []

    @property
    def name(self) -> str:
        """Name from the settings, or the address."""
        return self._name

    def deliver(self, files: Sequence[Path]) -> Generator[Outcome, None, None]:
        """Deliver `files` one after the other over one association, telling of each as it is answered.

        Raises
        ------
        PacsUnreachable, PacsBusy, PacsMisconfigured
            About the destination; files not yet told of were not delivered.
        """
        sendable: list[tuple[Path, Instance]] = []
        for file in files:
            try:
                sendable.append((file, read_instance(file)))
            except DicomError as error:
                yield Outcome(file, as_delivery(error))
        session: _Session | None = None
        try:
            for position, (file, instance) in enumerate(sendable):
                if session is None or not session.offers(instance):
                    self._end(session)
                    session = None
                    session = self._borrow([i for _, i in sendable[position:]])
                outcome = session.store(file, instance)
                _raise_if_busy(outcome)
                if not session.alive:
                    session = None
                yield outcome
        except BaseException:
            self._end(session)
            raise
        self._return(session)

    def echo(self) -> float:
        """C-ECHO; returns the seconds it took, association included.

        Raises
        ------
        DeliveryError
            With a diagnosis.
        """
        start = time.perf_counter()
        association = open_association(self.peer, [build_context(Verification)])
        try:
            status = association.send_c_echo()
        finally:
            release(association)
        if "Status" not in status:
            raise PacsUnreachable(f"{self.peer}: no answer to the C-ECHO request")
        if status.Status != 0:
            raise PacsMisconfigured(f"{self.peer}: C-ECHO failed with status 0x{status.Status:04X}")
        return time.perf_counter() - start

    def ask_commitment(
        self, instances: Sequence[tuple[str, str]], transaction: str
    ) -> CommitmentReport | None:
        """Storage commitment for (SOP class, SOP instance) pairs; see `request_commitment`.

        Idle associations are released first: some PACS serve one at a time.
        """
        self.close()
        return request_commitment(self.peer, instances, transaction, wait_s=self._report_wait_s)

    def holds(self, instances: Sequence[Instance]) -> Mapping[str, bool] | None:
        """SOP instance UID to whether it is there, by C-FIND; None where it cannot be asked.

        Idle associations are released first: some PACS serve one at a time.

        Raises
        ------
        DeliveryError
            As for `open_association`, or the answer broke off.
        """
        if not self._verify:
            return None
        self.close()
        return find_instances(self.peer, instances)

    def close(self) -> None:
        """Release the associations kept open."""
        with self._lock:
            free, self._free = self._free, []
        for _, session in free:
            session.close()

    def _borrow(self, instances: Sequence[Instance]) -> _Session:
        kinds = list(dict.fromkeys((i.sop_class, i.transfer_syntax) for i in instances))[:_MOST_KINDS]
        stale = []
        found = None
        now = time.monotonic()
        with self._lock:
            while self._free and found is None:
                since, session = self._free.pop()
                if now - since < self._idle_s and session.alive and session.offers(instances[0]):
                    found = session
                else:
                    stale.append(session)
        for session in stale:
            session.close()
        return found or _Session(self.peer, kinds)

    def _return(self, session: _Session | None) -> None:
        if session is not None and session.alive:
            with self._lock:
                self._free.append((time.monotonic(), session))

    @staticmethod
    def _end(session: _Session | None) -> None:
        if session is not None:
            session.close()


class _Session:
    """One association for storing."""

    def __init__(self, peer: Peer, kinds: Sequence[Kind]) -> None:
        self.peer = peer
        self._kinds = set(kinds)
        self._message = 0
        contexts = [build_context(sop, [syntax]) for sop, syntax in kinds]
        contexts += [build_context(sop, _FALL_BACK) for sop in dict.fromkeys(sop for sop, _ in kinds)]
        self._association: Association | None
        self._refusal: DeliveryError | None = None
        try:
            self._association = open_association(peer, contexts)
        except NoContext as error:
            self._association, self._refusal = None, error

    @property
    def alive(self) -> bool:
        """Whether it can be used for another instance."""
        return self._refusal is not None or (
            self._association is not None and self._association.is_established
        )

    def offers(self, instance: Instance) -> bool:
        """Whether a context for this kind of instance was proposed (accepted or not)."""
        return (instance.sop_class, instance.transfer_syntax) in self._kinds

    def close(self) -> None:
        if self._association is not None:
            release(self._association)

    def store(self, file: Path, instance: Instance) -> Outcome:
        """C-STORE one file."""
        if self._association is None:
            return Outcome(file, self._refusal)
        try:
            dataset = self._prepared(file, instance)
        except DicomError as error:
            return Outcome(file, as_delivery(error))
        except PacsMisconfigured as error:
            return Outcome(file, error)
        self._message = self._message % 0xFFFF + 1
        return self._request(file, self._association, dataset)

    def _request(self, file: Path, association: Association, dataset: FileDataset | Path) -> Outcome:
        if not association.is_established:
            return Outcome(file, PacsUnreachable(f"{self.peer} closed the association before an instance"))
        try:
            answer = association.send_c_store(dataset, msg_id=self._message)
        except Exception as problem:  # noqa: BLE001 - of pynetdicom, about the data set or the peer
            drop(association)
            cause = f"{self.peer}: the instance cannot be sent to it ({where_it_failed(problem)})"
            return Outcome(file, Unanswered(cause))
        if "Status" not in answer:
            release(association)
            return Outcome(file, Unanswered(f"{self.peer} gave no valid answer, or closed the association"))
        error, note = judge_status(int(answer.Status))
        return Outcome(file, _named(error, self.peer), note)

    def _prepared(self, file: Path, instance: Instance) -> FileDataset | Path:
        """What to send in a transfer syntax the peer accepted: the file as it is, wherever it can be.

        The other data sets are decompressed or encoded anew.
        """
        accepted = self._accepted(instance.sop_class)
        if not accepted:
            name = UID(instance.sop_class).name
            raise PacsMisconfigured(f"{self.peer} accepted no presentation context for {name}")
        if instance.transfer_syntax in accepted and instance.is_filed_as_itself:
            return file
        dataset = read_dataset(file)
        syntax = UID(instance.transfer_syntax)
        if instance.transfer_syntax in accepted:
            return dataset
        if not syntax.is_transfer_syntax:
            raise PacsMisconfigured(
                f"{self.peer} does not take the private transfer syntax {syntax}, and it is not known here"
            )
        if syntax.is_compressed:
            try:
                dataset.decompress()
            except Exception as error:  # of pydicom and its decoders
                raise PacsMisconfigured(
                    f"{self.peer} does not take {syntax.name}, and it cannot be decompressed here "
                    f"({where_it_failed(error)})"
                ) from error
        return dataset

    def _accepted(self, sop_class: str) -> set[str]:
        contexts = self._association.accepted_contexts if self._association else []
        return {str(c.transfer_syntax[0]) for c in contexts if c.abstract_syntax == sop_class}


def _raise_if_busy(outcome: Outcome) -> None:
    """Out of resources is the destination's trouble, not the instance's."""
    if isinstance(outcome.error, PacsBusy):
        raise outcome.error


def _named(error: DeliveryError | None, peer: Peer) -> DeliveryError | None:
    if error is not None:
        error.args = (f"{peer}: {error}",)
    return error

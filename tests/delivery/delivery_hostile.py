"""Storage SCPs that misbehave; the first few attempts at each instance go wrong, then all is well."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)


class HostileScp:
    """Counts what arrives and what it stores; goes wrong as `fault` says for the first `times` stores.

    Faults: ``abort-before`` and ``abort-after`` storing, ``hang-up`` (TCP reset), ``busy`` (A700),
    ``failing`` (0110), ``forget`` (success, but not stored; commitment tells), ``slow``, ``silent`` (no
    answer); and ``refused``, ``mismatch``, ``unsupported``, ``warning`` answer with such a status.
    """

    def __init__(
        self,
        fault: str = "none",
        times: int = 1,
        *,
        port: int = 0,
        delay_s: float = 0.3,
        reject: str | None = None,
        syntaxes: list[str] | None = None,
        finds: bool = False,
        hides: int = 0,
        pdu_bytes: int | None = None,
    ) -> None:
        """`finds`: answers C-FIND with what it holds, but says it has nothing the first `hides` times;
        `pdu_bytes`: the longest PDU that it takes."""
        self.fault = fault
        self.left = times
        self.port = port
        self.delay_s = delay_s
        self.reject = reject
        self.received: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.held: dict[str, str] = {}
        self.forgotten: Counter[str] = Counter()
        self.associations = self.released = 0
        self.lock = threading.Lock()
        self.questions = 0
        self._finds, self._hides, self._pdu_bytes = finds, hides, pdu_bytes
        self._syntaxes = syntaxes
        self._server: Any = None

    @property
    def address(self) -> str:
        return f"dicom://HOSTILE@127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        ae = AE(ae_title="HOSTILE")
        ae.acse_timeout = 5
        ae.require_calling_aet = ["SOMEONE-ELSE"] if self.reject == "calling" else []
        ae.require_called_aet = self.reject == "called"
        ae.maximum_associations = 1 if self.reject == "congestion" else 20
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts if self.reject != "context" else []:
            ae.add_supported_context(str(context.abstract_syntax), self._syntaxes or context.transfer_syntax)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        if self._finds:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self._pdu_bytes is not None:
            ae.maximum_pdu_size = self._pdu_bytes
        self._server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_N_ACTION, self._commit),
                (evt.EVT_C_FIND, self._find),
                (evt.EVT_ACCEPTED, self._accepted),
                (evt.EVT_RELEASED, self._released),
            ],
        )
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def _accepted(self, event: Any) -> None:
        self.associations += 1

    def _released(self, event: Any) -> None:
        self.released += 1

    def _turn(self) -> str:
        with self.lock:
            if self.left <= 0:
                return "none"
            self.left -= 1
            return self.fault

    def _store(self, event: Any) -> Any:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self.lock:
            self.received[uid] += 1
        fault = self._turn()
        if fault in ("none", "abort-after", "slow", "silent-after", "hang-up-after"):
            with self.lock:
                self.held[uid] = hashlib.sha256(event.encoded_dataset()).hexdigest()
        if fault == "forget":
            self.forgotten[uid] += 1
        answer = self._misbehave(fault, event)
        if answer == 0 and fault in ("none", "slow", "forget"):
            with self.lock:
                self.answered[uid] += 1
        return answer

    def _misbehave(self, fault: str, event: Any) -> Any:
        if fault in ("abort-before", "abort-after"):
            event.assoc.abort()
        elif fault in ("hang-up", "hang-up-after"):
            with contextlib.suppress(OSError):
                event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        elif fault in ("slow", "silent", "silent-after"):
            time.sleep(self.delay_s)
        statuses: dict[str, Any] = {
            "busy": 0xA700,
            "failing": 0x0110,
            "refused": 0xC000,
            "mismatch": 0xA900,
            "unsupported": 0x0122,
            "warning": 0xB000,
        }
        return statuses.get(fault, 0x0000)

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.questions += 1
        wanted = event.identifier.SOPInstanceUID or list(self.held)
        for uid in [wanted] if isinstance(wanted, str) else wanted:
            if uid in self.held and self.questions > self._hides:
                found = Dataset()
                found.QueryRetrieveLevel, found.SOPInstanceUID = "IMAGE", uid
                yield 0xFF00, found

    def _commit(self, event: Any) -> tuple[int, None]:
        request = event.action_information
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        groups: dict[bool, list[Dataset]] = {True: [], False: []}
        for item in request.ReferencedSOPSequence:
            there = item.ReferencedSOPInstanceUID in self.held
            if not there:
                item.FailureReason = 0x0112
            groups[there].append(item)
        report.ReferencedSOPSequence = groups[True]
        report.FailedSOPSequence = groups[False]
        kind = 2 if groups[False] else 1
        threading.Thread(target=self._report, args=(event.assoc, report, kind), daemon=True).start()
        return 0x0000, None

    @staticmethod
    def _report(association: Any, report: Dataset, kind: int) -> None:
        time.sleep(0.05)
        if association.is_established:
            association.send_n_event_report(
                report, kind, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"
            )


class RawServer:
    """Answers every connection with what `talk` does to the socket."""

    def __init__(self, talk: Callable[[socket.socket], None], port: int = 0) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    talk(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]

    @property
    def address(self) -> str:
        return f"dicom://RAW@127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def hang_up(sock: socket.socket) -> None:
    sock.recv(10)


def say_garbage(sock: socket.socket) -> None:
    sock.recv(10)
    sock.sendall(os.urandom(4000))


def say_half_a_pdu(sock: socket.socket) -> None:
    sock.recv(10)
    sock.sendall(b"\x02\x00\x00\x00\x10\x00half")
    time.sleep(3)


def announce_a_huge_pdu(sock: socket.socket) -> None:
    sock.recv(10)
    sock.sendall(b"\x02\x00\xff\xff\xff\xff" + b"x" * 1000)


def speak_http(sock: socket.socket) -> None:
    sock.recv(10)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def say_nothing(sock: socket.socket) -> None:
    sock.recv(10)
    time.sleep(3)

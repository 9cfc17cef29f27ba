"""Peers that speak DICOM as nobody foresaw, and strangers at the port for commitment reports."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from delivery_hostile import HostileScp
from delivery_strangers import listening, well
from pydicom import dcmread

from benchmarks.fault_parts import EAGER, KINDS, PATIENCE_S, QUICK, Verdict, kind, make_files
from benchmarks.fault_peers import judge
from recon_node.core.errors import PacsUnreachable
from recon_node.delivery import DeliveryWorker, Outcome, Spool, StorageScp, open_destination, read_instance

GE_PRIVATE = "1.2.840.113619.5.2"


def absurd(size: int) -> None:
    """A peer that announces an absurd PDU length; later it is repaired."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        files = make_files(folder / "instances")
        for number in range(1 if short else 4):
            with Spool(folder / str(number)) as spool:
                spool.put(files, ["pacs"])
                with HostileScp(pdu_bytes=size) as odd:
                    address = odd.address + QUICK
                    worker = DeliveryWorker(spool, {"pacs": open_destination(address)}, policy=EAGER)
                    with worker:
                        worker.drain(timeout=0.5)
                        dead = int(worker.trouble() is not None)
                before = set(odd.held)
                with HostileScp(port=odd.port) as scp:
                    again = DeliveryWorker(spool, {"pacs": open_destination(address)}, policy=EAGER)
                    with again:
                        spool.retry()
                        again.drain(timeout=PATIENCE_S)
                    scp.held.update(dict.fromkeys(before, "by the odd one"))
                    verdict = judge(spool, files, scp, 1)
                verdict.dead += dead
                yield verdict

    KINDS.append((f"peer takes PDUs of {size} bytes", experiments))


for _size in (1, 6, 7, 12, 40):
    absurd(_size)


class Raising:
    """A destination whose code raises something for its first instance, however often it is tried."""

    name, commits = "pacs", False

    def __init__(self, error: BaseException, poison: str, inner: object) -> None:
        self.error, self.poison, self.inner = error, poison, inner

    def deliver(self, files: list[Path]) -> Iterator[Outcome]:
        for file in files:
            if read_instance(file).uid == self.poison:
                raise self.error
            yield from self.inner.deliver([file])

    def send(self, files: list[Path]) -> None:
        list(self.deliver(files))

    def ask_commitment(self, *_: object) -> None:
        return None

    def echo(self) -> float:
        return 0.0

    def close(self) -> None:
        self.inner.close()


def poison(error: BaseException) -> None:
    """The others are delivered, the poison instance is a dead letter with a reason."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        files = make_files(folder / "instances", 6)
        for number in range(1 if short else 4):
            with StorageScp(folder / f"pacs{number}") as scp, Spool(folder / str(number)) as spool:
                first = read_instance(files[0]).uid
                destination = Raising(error, first, open_destination(scp.address))
                policy = EAGER if isinstance(error, PacsUnreachable) else _FEW
                spool.put(files, ["pacs"])
                with DeliveryWorker(spool, {"pacs": destination}, policy=policy) as worker:
                    end = time.monotonic() + PATIENCE_S
                    while len(scp.files()) < 5 and time.monotonic() < end:
                        time.sleep(0.02)
                    worker.drain(timeout=1.0)
                    dead = int(worker.trouble() is not None)
                kept = len(spool.entries(state="dead")) + len(spool.entries(state="waiting"))
                yield Verdict(lost=5 - len(scp.files()), stuck=abs(kept - 1), dead=dead)

    KINDS.append((f"poison instance: {type(error).__name__}", experiments))


_FEW = type(EAGER)(first_wait=0.01, longest_wait=0.02, poll=0.02, jitter=0.1, give_up_after=3)
for _error in (
    ZeroDivisionError(),
    ValueError("a NUL in a UID"),
    MemoryError(),
    RuntimeError("can't start new thread"),
    RecursionError(),
    SystemError(),
    PacsUnreachable("the connection broke while it was proposed"),
):
    poison(_error)


@kind("private transfer syntax among others")
def private(folder: Path, short: bool) -> Iterator[Verdict]:
    files = make_files(folder / "instances", 4)
    odd = dcmread(files[0])
    odd.file_meta.TransferSyntaxUID = GE_PRIVATE
    odd.save_as(files[0], implicit_vr=True, little_endian=True)
    for number in range(1 if short else 4):
        with HostileScp() as scp, Spool(folder / str(number)) as spool:
            spool.put(files, ["pacs"])
            with DeliveryWorker(spool, {"pacs": open_destination(scp.address)}, policy=EAGER) as worker:
                worker.drain(timeout=PATIENCE_S)
                dead = int(worker.trouble() is not None)
            lost = len({read_instance(f).uid for f in files[1:]} - set(scp.held))
            yield Verdict(lost=lost, stuck=abs(len(spool.entries(state="dead")) - 1), dead=dead)


def strangers(name: str, annoy: Callable[[int], None], *, times: int = 20) -> None:
    """Strangers at the port for commitment reports; then the PACS reports."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        for _ in range(1 if short else 3):
            with listening() as (port, reports):
                for _ in range(times):
                    with contextlib.suppress(OSError):
                        annoy(port)
                end = time.monotonic() + 15
                while not well(port) and time.monotonic() < end:
                    time.sleep(0.1)
                yield Verdict(faults=times, lost=int(not reports))

    KINDS.append((f"report port: {name}", experiments))


def says(data: bytes) -> Callable[[int], None]:
    def annoy(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(data)

    return annoy


def huge(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(struct.pack(">BBL", 1, 0, 3 << 30))
        for _ in range(16):
            sock.sendall(bytes(1 << 20))


strangers("noise", says(random.Random(3).randbytes(500)))
strangers("HTTP", says(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
strangers("TLS", says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)))
strangers("a PDU of 3 GiB", huge, times=4)
strangers("half an association request", says(b"\x01\x00\x00\x00\x00\xff" + bytes(20)))
strangers("an association request of zeros", says(b"\x01\x00\x00\x00\x00\x44" + bytes(68)))
strangers("P-DATA before any association", says(b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03\x00\x00"))
strangers(
    "every PDU type in turn", says(b"".join(struct.pack(">BBL", t, 0, 4) + bytes(4) for t in range(1, 9)))
)
strangers("hang-up at once", says(b""))

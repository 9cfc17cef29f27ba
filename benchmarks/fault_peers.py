"""What PACS and networks do to a delivery."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import delivery_hostile as hostile
from delivery_hostile import HostileScp, RawServer

from benchmarks.fault_parts import (
    EAGER,
    KINDS,
    PATIENCE_S,
    QUICK,
    Verdict,
    kind,
    make_files,
)
from recon_node.delivery import DeliveryWorker, Spool, open_destination
from recon_node.delivery.instance import read_instance


def peers(name: str, fault: str, *, commitment: bool = False, delay_s: float = 0.1, times: int = 2) -> None:
    """A real association with a peer that goes wrong a few times."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        files = make_files(folder / "instances")
        for number in range(1 if short else 6):
            with HostileScp(fault, times=times, delay_s=delay_s) as scp:
                address = scp.address + QUICK + ("&commitment=true" if commitment else "")
                yield through(folder / str(number), address, files, scp, faults=times)

    KINDS.append((name, experiments))


def through(folder: Path, address: str, files: list[Path], scp: HostileScp, *, faults: int) -> Verdict:
    with Spool(folder) as spool:
        worker = DeliveryWorker(spool, {"pacs": open_destination(address)}, policy=EAGER)
        spool.put(files, ["pacs"])
        with worker:
            end = time.monotonic() + PATIENCE_S
            while not worker.drain(timeout=0.2) and time.monotonic() < end:
                pass
            if spool.entries(state="dead"):
                spool.retry()
                worker.drain(timeout=PATIENCE_S)
        return judge(spool, files, scp, faults)


def judge(spool: Spool, files: list[Path], scp: HostileScp, faults: int) -> Verdict:
    uids = {read_instance(f).uid for f in files}
    left = [e for s in ("waiting", "stored", "dead") for e in spool.entries(state=s)]
    repeats = sum(scp.received.values()) - len(scp.received)
    twice = sum(max(0, scp.answered[u] - 1 - scp.forgotten[u]) for u in uids)
    return Verdict(faults, len(uids - set(scp.held)), twice, len(left), repeats)


peers("PACS out of resources (A700)", "busy")
peers("PACS fails while processing (0110)", "failing")
peers("PACS aborts before storing", "abort-before")
peers("PACS aborts after storing, before answering", "abort-after")
peers("connection cut before storing", "hang-up")
peers("connection cut after storing, before answering", "hang-up-after")
peers("PACS slow", "slow")
peers("PACS silent until the time-out", "silent", delay_s=1.5, times=1)
peers("PACS stores, but answers too late", "silent-after", delay_s=1.5, times=1)
peers("PACS accepts and forgets (storage commitment)", "forget", commitment=True)
peers("PACS refuses for good, then is repaired (C000, retry)", "refused")
peers("PACS lacks the SOP class, then is repaired (0122, retry)", "unsupported")


def impostors(name: str, talk: Callable[[Any], None]) -> None:
    """Something else answers at the PACS's port; later the PACS is back."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        files = make_files(folder / "instances")
        for number in range(1 if short else 4):
            with Spool(folder / str(number)) as spool, contextlib.ExitStack() as stack:
                impostor = RawServer(talk)
                address = f"dicom://HOSTILE@127.0.0.1:{impostor.port}?connect=0.3&associate=0.3&answer=1&network=0.3"
                worker = DeliveryWorker(spool, {"pacs": open_destination(address)}, policy=EAGER)
                spool.put(files, ["pacs"])
                with impostor:
                    worker.send_once("pacs")
                scp = stack.enter_context(HostileScp(port=impostor.port))
                with worker:
                    worker.drain(timeout=PATIENCE_S)
                yield judge(spool, files, scp, 1)

    KINDS.append((name, experiments))


impostors("peer hangs up", hostile.hang_up)
impostors("peer sends noise", hostile.say_garbage)
impostors("peer stops in the middle of a message", hostile.say_half_a_pdu)
impostors("peer announces 4 GiB", hostile.announce_a_huge_pdu)
impostors("peer speaks HTTP", hostile.speak_http)
impostors("peer says nothing", hostile.say_nothing)


@kind("PACS away, then back")
def outage(folder: Path, short: bool) -> Iterator[Verdict]:
    files = make_files(folder / "instances")
    for number in range(1 if short else 6):
        with HostileScp() as scp:
            port = scp.port
        with Spool(folder / str(number)) as spool:
            address = f"dicom://HOSTILE@127.0.0.1:{port}" + QUICK
            worker = DeliveryWorker(spool, {"pacs": open_destination(address)}, policy=EAGER)
            spool.put(files, ["pacs"])
            worker.send_once("pacs")
            with HostileScp(port=port) as back, worker:
                worker.drain(timeout=PATIENCE_S)
                verdict = judge(spool, files, back, 1)
            yield verdict

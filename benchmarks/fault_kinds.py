"""The kinds of fault that `benchmarks.faults` injects."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import delivery_hostile as hostile
from delivery_hostile import HostileScp, RawServer
from delivery_parts import FakeClock, make_instance

from benchmarks.tracer import killed_before
from recon_node.core.errors import DeliveryError, ReconNodeError
from recon_node.delivery import DeliveryWorker, Outcome, Policy, Spool, open_destination
from recon_node.delivery.instance import read_instance

EAGER = Policy(first_wait=0.01, longest_wait=0.05, poll=0.02, jitter=0.1)
QUICK = "?connect=1&associate=1&answer=1&network=1"
PATIENCE_S = 20.0


@dataclass
class Verdict:
    """What one experiment showed."""

    faults: int = 1
    lost: int = 0
    twice: int = 0
    stuck: int = 0
    doubt: int = 0


Experiments = Callable[[Path, bool], Iterator[Verdict]]
KINDS: list[tuple[str, Experiments]] = []


def kind(name: str) -> Callable[[Experiments], Experiments]:
    def register(function: Experiments) -> Experiments:
        KINDS.append((name, function))
        return function

    return register


def make_files(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [make_instance(folder / f"{n}.dcm", n) for n in range(count)]


class Ledger:
    """A receiver that writes down each instance it is given, one system call each."""

    name = "pacs"
    commits = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def deliver(self, files: Sequence[Path]) -> Generator[Outcome, None, None]:
        for file in files:
            record = f"{read_instance(file).uid} {hash_of(file)}\n".encode()
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, record)
            os.close(handle)
            yield Outcome(file)

    def send(self, files: Sequence[Path]) -> None:
        list(self.deliver(files))

    def ask_commitment(self, instances: Sequence[tuple[str, str]], transaction: str) -> None:
        return None

    def echo(self) -> float:
        return 0.0

    def close(self) -> None:
        return None

    def received(self) -> Counter[tuple[str, str]]:
        text = self.path.read_text() if self.path.exists() else ""
        return Counter((w[0], w[1]) for w in (line.split() for line in text.splitlines()))


def hash_of(file: Path) -> str:
    return f"{hash(file.read_bytes()) & 0xFFFFFFFFFFFF:x}"


def recorded(spool: Spool, files: Sequence[Path]) -> set[str]:
    """Instances whose success the spool remembers, or whose file it let go."""
    waiting = {e.uid for s in ("waiting", "dead") for e in spool.entries(destination="pacs", state=s)}
    return {read_instance(f).uid for f in files} - waiting


def finish(spool: Spool, ledger: Ledger, files: Sequence[Path], *, faults: int = 1) -> Verdict:
    """Put once more what is not known to be safe, deliver everything, and judge."""
    before, known = ledger.received(), recorded(spool, files)
    worker = DeliveryWorker(spool, {"pacs": ledger}, policy=EAGER)
    for _ in range(20):
        worker.send_once("pacs")
        worker.confirm_once("pacs")
    after = ledger.received()
    wanted = {(read_instance(f).uid, hash_of(f)) for f in files}
    again = {k: n - before[k] for k, n in after.items() if before[k] and n > before[k]}
    left = [e for s in ("waiting", "stored", "dead") for e in spool.entries(destination="pacs", state=s)]
    return Verdict(
        faults=faults,
        lost=len(wanted - set(after)) + len(set(after) - wanted),
        twice=sum(n for (uid, _), n in again.items() if uid in known),
        stuck=len(left),
        doubt=sum(n for (uid, _), n in again.items() if uid not in known),
    )


# -------------------------------------------------------------------- kill -9 before every system call


def kills(
    folder: Path,
    short: bool,
    prepare: Callable[[Path, list[Path]], None],
    act: Callable[[Path, list[Path]], None],
) -> Iterator[Verdict]:
    files = make_files(folder / "instances", 2)
    number = step = 41 if short else 1
    while True:
        root = folder / str(number)
        prepare(root, files)
        if not killed_before(lambda root=root: act(root, files), number):
            shutil.rmtree(root)
            return
        with Spool(root / "spool") as spool:
            if not (root / "acknowledged").exists():
                # The caller never heard that put had succeeded, so it puts again.
                spool.put(files, ["pacs"])
            # Killed between burying and retrying: a person would ask for the retry again.
            spool.retry()
            yield finish(spool, Ledger(root / "ledger"), files)
        shutil.rmtree(root)
        number += step


def nothing_yet(root: Path, files: list[Path]) -> None:
    root.mkdir()


def already_put(root: Path, files: list[Path]) -> None:
    root.mkdir()
    put(root, files)


def put(root: Path, files: list[Path]) -> None:
    with Spool(root / "spool") as spool:
        spool.put(files, ["pacs"])
        (root / "acknowledged").touch()


def put_for_two(root: Path, files: list[Path]) -> None:
    with Spool(root / "spool") as spool:
        spool.put(files, ["pacs", "other"])
        (root / "acknowledged").touch()


def deliver(root: Path, files: list[Path]) -> None:
    with Spool(root / "spool") as spool:
        worker = DeliveryWorker(spool, {"pacs": Ledger(root / "ledger")}, policy=EAGER)
        worker.send_once("pacs")


def deliver_with_grace(root: Path, files: list[Path]) -> None:
    with Spool(root / "spool") as spool:
        policy = Policy(grace=1e-9)
        worker = DeliveryWorker(spool, {"pacs": Ledger(root / "ledger")}, policy=policy)
        worker.send_once("pacs")
        worker.confirm_once("pacs")


def deliver_and_purge(root: Path, files: list[Path]) -> None:
    deliver(root, files)
    with Spool(root / "spool") as spool:
        spool.purge()


def bury_and_retry(root: Path, files: list[Path]) -> None:
    with Spool(root / "spool") as spool:
        spool.bury(spool.claim("pacs", limit=1), "an example")
        spool.retry()


def already_dead(root: Path, files: list[Path]) -> None:
    already_put(root, files)
    with Spool(root / "spool") as spool:
        spool.bury(spool.claim("pacs"), "an example")
    (root / "acknowledged").unlink()


def lost_index(root: Path, files: list[Path]) -> None:
    already_put(root, files)
    for path in (root / "spool").glob("index*"):
        path.unlink()


def torn_index(root: Path, files: list[Path]) -> None:
    already_put(root, files)
    (root / "spool" / "index.sqlite3").write_bytes(b"torn" * 3000)


def reopen(root: Path, files: list[Path]) -> None:
    Spool(root / "spool").close()


def postpone(root: Path, files: list[Path]) -> None:
    with Spool(root / "spool") as spool:
        entry, *rest = spool.claim("pacs")
        spool.postpone(entry, 0.01, "an example")
        spool.release(rest)
    time.sleep(0.01)


def kill_kind(
    name: str, prepare: Callable[[Path, list[Path]], None], act: Callable[[Path, list[Path]], None]
) -> None:
    KINDS.append(
        (f"kill -9 before each system call of {name}", lambda f, s: _retried(kills(f, s, prepare, act)))
    )


def _retried(verdicts: Iterator[Verdict]) -> Iterator[Verdict]:
    yield from verdicts


kill_kind("put", nothing_yet, put)
kill_kind("put for two destinations", nothing_yet, put_for_two)
kill_kind("put over a dead one", already_dead, put)
kill_kind("claim, send, record", already_put, deliver)
kill_kind("send, store, grace, record", already_put, deliver_with_grace)
kill_kind("send, record, purge", already_put, deliver_and_purge)
kill_kind("bury and retry", already_put, bury_and_retry)
kill_kind("postpone and release", already_put, postpone)
kill_kind("rebuilding a lost index", lost_index, reopen)
kill_kind("setting a torn index aside", torn_index, reopen)


# -------------------------------------------------------------------- what disks and clocks do


def damage(name: str, harm: Callable[[Path, int], None], *, in_use: bool = False) -> None:
    """A kind of damage done to a spool with two entries, at rest or while it is open."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        files = make_files(folder / "instances")
        for number in range(1 if short else 10):
            root = folder / str(number)
            already_put(root, files)
            with contextlib.ExitStack() as stack:
                spool = stack.enter_context(Spool(root / "spool")) if in_use else None
                harm(root / "spool", number)
                spool = spool or stack.enter_context(Spool(root / "spool"))
                patiently(spool.reconcile)
                patiently(lambda s=spool: s.claim("nobody"))
                yield again_if_damaged(spool, root, files)

    KINDS.append((name, experiments))


def patiently(action: Callable[[], Any]) -> None:
    """Two tries: the first may report damage that it has just repaired."""
    with contextlib.suppress(ReconNodeError):
        action()
        return
    action()


def again_if_damaged(spool: Spool, root: Path, files: list[Path]) -> Verdict:
    """A damaged file must be reported, not sent; then its source is put again."""
    ledger = Ledger(root / "ledger")
    worker = DeliveryWorker(spool, {"pacs": ledger}, policy=EAGER)
    worker.send_once("pacs")
    if any("damaged" in str(e.reason) for e in spool.entries(state="dead")):
        spool.put(files, ["pacs"])
    return finish(spool, ledger, files)


def waiting_file(spool: Path) -> Path:
    return sorted((spool / "waiting" / "pacs").iterdir())[0]


def flip_a_bit(spool: Path, number: int) -> None:
    data = bytearray(waiting_file(spool).read_bytes())
    data[number * 37 % len(data)] ^= 1
    waiting_file(spool).write_bytes(data)


def remove_index(spool: Path, number: int) -> None:
    for path in spool.glob("index*"):
        path.unlink()


def roll_index_back(spool: Path, number: int) -> None:
    """The index of before the last put: as after restoring a backup."""
    remove_index(spool, number)
    old = spool / "old"
    Spool(old).close()
    shutil.copy(old / "index.sqlite3", spool / "index.sqlite3")
    shutil.rmtree(old)


def leave_in_two_states(spool: Path, number: int) -> None:
    source = waiting_file(spool)
    target = spool / "dead" / "pacs" / source.name
    target.parent.mkdir()
    os.link(source, target)


damage("file cut off", lambda s, n: os.truncate(waiting_file(s), 7 * n + 1))
damage("file empty", lambda s, n: os.truncate(waiting_file(s), 0))
damage("one bit of a file flipped", flip_a_bit)
damage("file left in two states", leave_in_two_states)
damage(
    "half-written file left below incoming", lambda s, n: (s / "incoming" / "x.part").write_bytes(b"x" * n)
)
damage("index lost", remove_index)
damage("index older than the files", roll_index_back)
damage("index overwritten with noise", lambda s, n: (s / "index.sqlite3").write_bytes(os.urandom(9000 + n)))
damage("index cut off", lambda s, n: os.truncate(s / "index.sqlite3", 4096 + 512 * n))
damage("index removed while in use", remove_index, in_use=True)
damage(
    "index overwritten while in use",
    lambda s, n: [(s / f"index.sqlite3{x}").write_bytes(os.urandom(40_000)) for x in ("", "-wal")] and None,
    in_use=True,
)


def failing_calls(name: str, target: str, error: Callable[[], BaseException]) -> None:
    """A system call fails at its n-th use during put; the caller tries again later."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        files = make_files(folder / "instances")
        for number in range(1 if short else 8):
            root = folder / str(number)
            root.mkdir()
            with Spool(root / "spool") as spool:
                original = getattr(os, target)
                calls = iter([*[original] * number, _raising(error)])
                with mock.patch.object(os, target, lambda *a, c=calls, o=original: next(c, o)(*a)):
                    with contextlib.suppress(DeliveryError):
                        spool.put(files, ["pacs"])
                spool.put(files, ["pacs"])
                yield finish(spool, Ledger(root / "ledger"), files)

    KINDS.append((name, experiments))


def _raising(error: Callable[[], BaseException]) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise error()

    return call


failing_calls(
    "no space left while writing", "write", lambda: OSError(errno.ENOSPC, "No space left on device")
)
failing_calls("input/output error while syncing", "fsync", lambda: OSError(errno.EIO, "Input/output error"))
failing_calls("no space left for a name", "link", lambda: OSError(errno.ENOSPC, "No space left on device"))


@kind("disk really full (small tmpfs)")
def full_disk(folder: Path, short: bool) -> Iterator[Verdict]:
    files = make_files(folder / "instances", 400)
    for number in range(1 if short else 6):
        disk = folder / f"disk{number}"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={1500 + 32 * number}k", "tmpfs", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            return
        try:
            yield _fill(disk, folder / f"ledger{number}", files)
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def _fill(disk: Path, ledger: Path, files: list[Path]) -> Verdict:
    """Offer 400 files to a disk that holds fewer; deliver, clean, offer again until all are taken."""
    receiver = Ledger(ledger)
    refusals, taken = 0, set()
    end = time.monotonic() + PATIENCE_S
    with Spool(disk / "spool") as spool:
        while len(taken) < len(files) and time.monotonic() < end:
            for file in files:
                if file in taken:
                    continue
                try:
                    spool.put([file], ["pacs"])
                    taken.add(file)
                except ReconNodeError:
                    refusals += 1
                    break
            worker = DeliveryWorker(spool, {"pacs": receiver}, policy=EAGER)
            with contextlib.suppress(ReconNodeError):
                worker.send_once("pacs")
            with contextlib.suppress(ReconNodeError):
                spool.purge()
        verdict = finish(spool, receiver, sorted(taken))
    verdict.faults = min(refusals, 3)
    verdict.lost += len(files) - len(taken)
    return verdict


@kind("index full")
def full_index(folder: Path, short: bool) -> Iterator[Verdict]:
    files = make_files(folder / "instances")
    for number in range(1 if short else 6):
        with Spool(folder / str(number)) as spool:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            with mock.patch("recon_node.delivery.ledger.Ledger.insert", side_effect=error):
                with contextlib.suppress(DeliveryError):
                    spool.put(files, ["pacs"])
            spool.put(files, ["pacs"])
            yield finish(spool, Ledger(folder / f"ledger{number}"), files)


def clocks(name: str, change: Callable[[FakeClock, int], None]) -> None:
    """The clock does something while entries are claimed and postponed."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        files = make_files(folder / "instances")
        for number in range(1 if short else 8):
            clock = FakeClock()
            with Spool(folder / str(number), clock=clock) as holder:
                holder.put(files, ["pacs"])
                first, *_ = holder.claim("pacs", limit=2)
                holder.postpone(first, 30.0, "an example")
                change(clock, number)
            clock.advance(31.0)
            with Spool(folder / str(number), clock=clock) as spool:
                yield finish(spool, Ledger(folder / f"ledger{number}"), files)

    KINDS.append((name, experiments))


def jump(clock: FakeClock, seconds: float) -> None:
    clock.date += seconds


clocks("wall clock jumps back", lambda c, n: jump(c, -(10.0**n)))
clocks("wall clock jumps ahead", lambda c, n: jump(c, 10.0**n))
clocks("restart of the machine", lambda c, n: c.restart())


# -------------------------------------------------------------------- what PACS and networks do


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

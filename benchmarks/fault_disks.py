"""What disks and clocks do to a spool."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from delivery_parts import FakeClock

from benchmarks.fault_kills import already_put
from benchmarks.fault_parts import (
    EAGER,
    KINDS,
    PATIENCE_S,
    Ledger,
    Verdict,
    finish,
    kind,
    make_files,
)
from recon_node.core.errors import DeliveryError, ReconNodeError
from recon_node.delivery import DeliveryWorker, Spool


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
    lambda s, n: (
        [(s / f"index.sqlite3{x}").write_bytes(os.urandom(40_000)) for x in ("", "-journal")] and None
    ),
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
            with mock.patch("recon_node.delivery.queue.ledger.Ledger.insert", side_effect=error):
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

"""kill -9 before each system call of everything the spool does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.fault_parts import EAGER, KINDS, Ledger, Verdict, finish, kind, make_files
from benchmarks.tracer import killed_before
from recon_node.delivery import DeliveryWorker, Policy, Spool, StorageScp, read_instance


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


def dead_letter_and_retry(root: Path, files: list[Path]) -> None:
    with Spool(root / "spool") as spool:
        spool.dead_letter(spool.claim("pacs", limit=1), "an example")
        spool.retry()


def already_dead(root: Path, files: list[Path]) -> None:
    already_put(root, files)
    with Spool(root / "spool") as spool:
        spool.dead_letter(spool.claim("pacs"), "an example")
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
    KINDS.append((f"kill -9 before each system call of {name}", lambda f, s: kills(f, s, prepare, act)))


kill_kind("put", nothing_yet, put)
kill_kind("put for two destinations", nothing_yet, put_for_two)
kill_kind("put over a dead one", already_dead, put)
kill_kind("claim, send, record", already_put, deliver)
kill_kind("send, store, grace, record", already_put, deliver_with_grace)
kill_kind("send, record, purge", already_put, deliver_and_purge)
kill_kind("dead letter and retry", already_put, dead_letter_and_retry)
kill_kind("postpone and release", already_put, postpone)
kill_kind("rebuilding a lost index", lost_index, reopen)
kill_kind("setting a torn index aside", torn_index, reopen)


_PROGRAM = """
import sys
from pathlib import Path
from recon_node.offline.export import export
from recon_node.settings import DeliverySettings
export([Path(sys.argv[1])], sys.argv[2], DeliverySettings(spool=sys.argv[3], reserve_mb=0))
"""


@kind("kill -9 of an export to a PACS that is at work")
def killed_exports(folder: Path, short: bool) -> Iterator[Verdict]:
    """At a random instance; the next export goes on, and the receiver's files are counted."""
    files = make_files(folder / "instances", 24)
    for number in range(1 if short else 12):
        with StorageScp(folder / f"pacs{number}") as scp:
            words = [str(files[0].parent), scp.address, str(folder / f"spool{number}")]
            command = [sys.executable, "-c", _PROGRAM, *words]
            child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while len(scp.files()) < 2 * number % 24 and child.poll() is None:
                time.sleep(0.001)
            child.kill()
            child.wait()
            subprocess.run(command, check=True)
            kept = [read_instance(path).uid for path in scp.files()]
            with Spool(folder / f"spool{number}") as spool:
                left = [e for s in ("waiting", "stored", "dead") for e in spool.entries(state=s)]
        lost = {read_instance(file).uid for file in files} - set(kept)
        yield Verdict(lost=len(lost), twice=len(kept) - len(set(kept)), stuck=len(left))

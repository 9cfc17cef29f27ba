"""What experiments with faults are made of: a receiver that writes down what it gets, and a judge."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from delivery_parts import make_instance

from recon_node.delivery import DeliveryWorker, Outcome, Policy, Spool
from recon_node.delivery.instance import read_instance

EAGER = Policy(first_wait=0.01, longest_wait=0.05, poll=0.02, jitter=0.1, looks=(0.02, 0.05))
QUICK = "?connect=1&associate=1&answer=1&network=1"
PATIENCE_S = 20.0


@dataclass
class Verdict:
    """What one experiment showed; see `benchmarks.faults` for the counts."""

    faults: int = 1
    lost: int = 0
    twice: int = 0
    stuck: int = 0
    doubt: int = 0
    outside: int = 0
    dead: int = 0
    peak_mb: float = 0.0
    good_s: float = 0.0


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
            record = f"{hash_of(file)} {read_instance(file).uid}\n".encode()
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
        return Counter((w[1], w[0]) for w in (line.split(" ", 1) for line in text.splitlines()))


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

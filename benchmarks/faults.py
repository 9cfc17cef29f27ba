"""The fault campaign: break the delivery in every way at hand, and count at the receiver.

    python -m benchmarks.faults [--short] [--only WORDS]

Each fault is one experiment: instances are put into a spool, something goes wrong once or for a
while, and then the worker may finish. Counted for each kind:

lost          put had returned, yet the receiver never got it, or got other bytes
stored twice  sent again although its success had been recorded: a sender that forgets
stuck         neither delivered nor, where the fault is permanent, dead with a reason, at the end
outside       a file written outside the folder that it was meant for
dead          a thread of delivery that is down at the end, or an exception that nobody caught
in doubt      sent again because the first answer was lost to the fault (a PACS recognises the SOP
              Instance UID and keeps one); for information
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "delivery"))

from benchmarks import fault_kinds
from benchmarks.fault_kinds import Verdict


@dataclass
class Row:
    """One kind of fault."""

    kind: str
    faults: int = 0
    lost: int = 0
    twice: int = 0
    stuck: int = 0
    outside: int = 0
    dead: int = 0
    doubt: int = 0
    seconds: float = 0.0

    def add(self, verdict: Verdict) -> None:
        self.faults += verdict.faults
        self.lost += verdict.lost
        self.twice += verdict.twice
        self.stuck += verdict.stuck
        self.outside += verdict.outside
        self.dead += verdict.dead
        self.doubt += verdict.doubt


def campaign(
    kinds: Iterable[tuple[str, Callable[[Path, bool], Iterable[Verdict]]]], short: bool
) -> list[Row]:
    """Run every kind of fault, each experiment in a folder of its own."""
    rows = []
    for kind, experiments in kinds:
        row = Row(kind)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="faults-") as folder, uncaught() as told:
            for verdict in experiments(Path(folder), short):
                row.add(verdict)
        row.dead += len(told)
        row.seconds = time.perf_counter() - start
        rows.append(row)
        print(line(row), flush=True)
    return rows


@contextlib.contextmanager
def uncaught() -> Iterator[list[str]]:
    """Exceptions that end a thread while the block lasts."""
    told: list[str] = []
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        told.append(f"{args.exc_type.__name__} in {args.thread}")
        before(args)

    threading.excepthook = hook
    try:
        yield told
    finally:
        threading.excepthook = before


def line(row: Row) -> str:
    counts = f"{row.faults:7d}{row.lost:7d}{row.twice:14d}{row.stuck:7d}{row.outside:9d}{row.dead:6d}"
    numbers = f"{counts}{row.doubt:10d}{row.seconds:9.1f}"
    return f"{row.kind:54s}{numbers}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a few of each kind")
    parser.add_argument("--only", default="", help="kinds whose name holds these words")
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    kinds = [kind for kind in fault_kinds.KINDS if options.only in kind[0]]
    print(f"{'kind of fault':54s} faults   lost  stored twice  stuck  outside  dead  in doubt  seconds")
    rows = campaign(kinds, options.short)
    total = Row(f"{len(rows)} kinds")
    for row in rows:
        total.add(Verdict(row.faults, row.lost, row.twice, row.stuck, row.doubt, row.outside, row.dead))
        total.seconds += row.seconds
    print(line(total))
    return 1 if total.lost or total.twice or total.stuck or total.outside or total.dead else 0


if __name__ == "__main__":
    sys.exit(main())

"""The fault campaign: break the node in every way at hand, and count what came of it.

    python -m benchmarks.faults [--short] [--only WORDS]

Delivery: instances are put into a spool, something goes wrong once or for a while, and then the worker may
finish. Ports: a live node, and a module for Gadgetron, are attacked; then a good scan has to be served. Files: raw
data is changed at random and replayed. The ports and files have a process of their own. Counted for each kind:

lost          put had returned, yet the receiver never got it, or got other bytes; images of the good scan
stored twice  sent again although its success had been recorded: a sender that forgets
stuck         neither delivered nor, where the fault is permanent, dead with a reason, at the end; a node that
              is not ready or late with the good scan; a file that is not refused in one line, or never
outside       a file written outside the folder that it was meant for; images or pages for somebody else
dead          a thread of delivery that is down at the end, an exception that nobody caught, a node that ended
in doubt      sent again because the first answer was lost to the fault (a PACS recognises the SOP
              Instance UID and keeps one); for information
MB, good s    most memory of the node or command that was attacked, and the slowest good scan behind it; from
              2048 MB and 10 s on the campaign fails
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "delivery"))

from benchmarks import fault_kinds
from benchmarks.fault_kinds import Verdict
from benchmarks.fault_node import GOOD_S, MOST_MB

PORTS_AND_FILES = ("node:", "module:", "mutated file:", "hostile file:", "hostile package:")


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
    peak_mb: float = 0.0
    good_s: float = 0.0
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        counts = (self.lost, self.twice, self.stuck, self.outside, self.dead)
        return any(counts) or self.peak_mb >= MOST_MB or self.good_s >= GOOD_S

    def add(self, verdict: Verdict) -> None:
        self.faults += verdict.faults
        self.lost += verdict.lost
        self.twice += verdict.twice
        self.stuck += verdict.stuck
        self.outside += verdict.outside
        self.dead += verdict.dead
        self.doubt += verdict.doubt
        self.peak_mb = max(self.peak_mb, verdict.peak_mb)
        self.good_s = max(self.good_s, verdict.good_s)


def campaign(names: Iterable[str], short: bool) -> list[Row]:
    """Run kinds of fault by their names, each experiment in a folder of its own."""
    logging.disable(logging.ERROR)
    kinds = dict(fault_kinds.KINDS)
    rows = []
    for kind in names:
        experiments = kinds[kind]
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
    numbers = f"{counts}{row.doubt:10d}{row.peak_mb:7.0f}{row.good_s:8.2f}{row.seconds:9.1f}"
    return f"{row.kind[:60]:60s}{numbers}"


def both_parts(names: list[str], short: bool) -> list[Row]:
    """Delivery here, ports and files in a process of their own."""
    apart = [name for name in names if name.startswith(PORTS_AND_FILES)]
    here = [name for name in names if name not in apart]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        rows = other.submit(campaign, apart, short)
        return campaign(here, short) + rows.result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a few of each kind")
    parser.add_argument("--only", default="", help="kinds whose name holds these words")
    options = parser.parse_args()
    began = time.perf_counter()
    names = [name for name, _ in fault_kinds.KINDS if options.only in name]
    print(
        f"{'kind of fault':60s} faults   lost  stored twice  stuck  outside  dead  in doubt     MB  good s  seconds"
    )
    rows = both_parts(names, options.short)
    total = Row(f"{len(rows)} kinds")
    for row in rows:
        total.add(Verdict(**{field.name: getattr(row, field.name) for field in dataclasses.fields(Verdict)}))
    total.seconds = time.perf_counter() - began
    print(line(total))
    return int(total.failed)


if __name__ == "__main__":
    sys.exit(main())

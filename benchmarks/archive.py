"""Replay of whole archives: what spreading gains, what the engine costs, how much memory it takes, what kills cost.

    python -m benchmarks.archive speedup [--slices 40] [--files 1] [--method kt]
    python -m benchmarks.archive overhead [--slices 40] [--method kt]
    python -m benchmarks.archive tiny [--scans 100000]
    python -m benchmarks.archive kills [--scans 100] [--every 10]
    python -m benchmarks.archive memory [--gb 10]
    python -m benchmarks.archive stream [--gb 2]

`speedup`: wall time of one worker over that of two, starting included; bytes are compared. `ceiling_ratio` is what
the machine gives: one worker over two processes that know nothing of each other, each with half of the slices in a
file of its own, started at once; `share_of_ceiling` is how much of that two workers reach. `overhead`: CPU time of
a replay over that of a plain loop (read, reconstruct, write) in the same process, and of two workers. `tiny`: peak
memory of the process that is client and scheduler. `kills`: a worker process is killed every few seconds; every
instance has to be there once, with the bytes of an undisturbed replay, and the ledger has to say so. `memory`: peak
memory of a replay of one file. `stream`: that of `recon-node stream`, from a pipe to a pipe. Each prints one line of JSON; exit code 1 where the bound is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.archive_memory import memory, settings_for, stream, tiny
from recon_node.files.open import open_scans
from recon_node.offline.ledger import query
from recon_node.offline.replay import replay
from recon_node.pipeline.row import Pipeline, row
from recon_node.pipeline.write import SeriesWriter
from recon_node.simulate import simulate_scan

SIZE = {"acceleration": 8, "pattern": "random", "coils": 8, "phases": 20, "matrix": 128}
SMALL = {"acceleration": 4, "pattern": "random", "coils": 4, "phases": 8, "matrix": 64}
_LOOK_S = 0.2
BOUNDS = {"speedup": 1.8, "overhead": 1.05}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


def scans(folder: Path, files: int, slices: int, size: dict[str, Any]) -> list[Path]:
    """Drawn hearts as files."""
    paths = [folder / f"{number:04d}.h5" for number in range(files)]
    for seed, path in enumerate(paths):
        simulate_scan(path, slices=slices, seed=seed, **size)
    return paths


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds, those of child processes included."""
    me = psutil.Process()
    earlier, spent = _cpu(me), {}
    ended = threading.Event()

    def look() -> None:
        while True:
            spent.update(_cpu(me))
            if ended.wait(_LOOK_S):
                return

    thread = threading.Thread(target=look)
    start = time.perf_counter()
    thread.start()
    try:
        work()
    finally:
        ended.set()
        thread.join()
    wall = time.perf_counter() - start
    return wall, sum(seconds - earlier.get(pid, 0.0) for pid, seconds in (spent | _cpu(me)).items())


def _cpu(process: psutil.Process) -> dict[int, float]:
    """CPU seconds of a process and those it started, which are there; workers are no children of their own."""
    found = {}
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            times = one.cpu_times()
            found[one.pid] = times.user + times.system
    return found


def _plain(path: Path, out: Path, method: str) -> None:
    replay([path], out, settings_for(method))


def apart(paths: list[Path], out: Path, method: str) -> None:
    """Each file by a process of its own, all started at once."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_plain, args=(path, out / path.stem, method)) for path in paths]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def speedup(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    paths = scans(folder, options.files, options.slices // options.files, SIZE)
    settings = settings_for(options.method)
    wall, cpu = {}, {}
    for workers in (1, 2):
        out = folder / f"by{workers}"
        wall[workers], cpu[workers] = timed(
            lambda out=out, n=workers: replay(paths, out, settings, workers=n)
        )
    halves = folder / "halves"
    halves.mkdir()
    pair = scans(halves, 2, options.slices // 2, SIZE)
    ceiling, ceiling_cpu = timed(lambda: apart(pair, halves, options.method))
    same = contents(folder / "by1") == contents(folder / "by2")
    ratio = wall[1] / wall[2]
    return {
        "slices": options.slices,
        "wall_s": wall,
        "cpu_s": cpu,
        "cores_used": {n: cpu[n] / wall[n] for n in wall},
        "ratio": ratio,
        "ceiling_wall_s": ceiling,
        "ceiling_cpu_s": ceiling_cpu,
        "ceiling_ratio": wall[1] / ceiling,
        "share_of_ceiling": ceiling / wall[2],
        "same_bytes": same,
        "load": os.getloadavg()[0],
        "ok": same and ratio >= BOUNDS["speedup"],
    }


def overhead(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    paths = scans(folder, 4, options.slices // 4, SIZE)
    settings = settings_for(options.method)

    def loop(out: Path) -> None:
        pipeline = Pipeline(settings)
        for path in paths:
            for source in open_scans(path):
                for _ in row(source, pipeline, writer=SeriesWriter.from_settings(settings, out)):
                    pass

    loop(folder / "warm")
    turns: dict[str, list[float]] = {"loop": [], "replay": []}
    for turn in range(options.turns):
        turns["loop"].append(timed(lambda turn=turn: loop(folder / f"loop{turn}"))[1])
        turns["replay"].append(timed(lambda turn=turn: replay(paths, folder / f"replay{turn}", settings))[1])
    plain, engine = (float(np.median(turns[name])) for name in ("loop", "replay"))
    workers = timed(lambda: replay(paths, folder / "two", settings, workers=2))[1]
    return {
        "slices": options.slices,
        "loop_cpu_s": plain,
        "replay_cpu_s": engine,
        "ratio": engine / plain,
        "two_workers_cpu_s_with_start": workers,
        "two_workers_ratio_with_start": workers / plain,
        "ok": engine / plain < BOUNDS["overhead"],
    }


@contextmanager
def killing(every: float, begun: threading.Event) -> Iterator[list[int]]:
    """Kills one of this process's workers now and then, once work has begun."""
    killed: list[int] = []
    stop = threading.Event()

    def work() -> None:
        while not begun.wait(1) and not stop.is_set():
            pass
        while not stop.wait(every):
            workers = [child for child in multiprocessing.active_children() if child.is_alive()]
            if workers:
                unlucky = random.choice(workers)
                unlucky.kill()
                killed.append(unlucky.pid or 0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def kills(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    paths = scans(folder, options.scans, 3, SMALL)
    settings = settings_for(options.method)
    replay(paths, folder / "calm", settings)
    start = time.perf_counter()
    begun = threading.Event()
    with killing(options.every, begun) as killed:
        done = replay(
            paths,
            folder / "killed",
            settings,
            workers=options.workers,
            progress=lambda slices: begun.set(),
        )
    seconds = time.perf_counter() - start
    calm, found = contents(folder / "calm"), contents(folder / "killed")
    rows = query(folder / "killed", "status = 'done'")
    instances = [uid for result in done for entry in result.series for uid in entry["instances"]]
    right = len(rows) == 3 * options.scans and sum(one["instances"] for one in rows) == len(instances)
    once = len(set(instances)) == len(instances) == len(found)
    errors = [result.error for result in done if result.error is not None]
    return {
        "scans": options.scans,
        "killed": len(killed),
        "seconds": seconds,
        "errors": errors[:3],
        "same_bytes": calm == found,
        "each_instance_once": once,
        "ledger_right": right,
        "ok": not errors and calm == found and once and right and bool(killed),
    }


COMMANDS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "speedup": speedup,
    "overhead": overhead,
    "tiny": tiny,
    "kills": kills,
    "memory": memory,
    "stream": stream,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        one = commands.add_parser(name)
        one.add_argument("--method", default="kt")
        one.add_argument("--slices", type=int, default=40)
        one.add_argument("--files", type=int, default=1)
        one.add_argument("--turns", type=int, default=3)
        one.add_argument("--scans", type=int, default=100_000 if name == "tiny" else 100)
        one.add_argument("--workers", type=int, default=2)
        one.add_argument("--every", type=float, default=10.0)
        one.add_argument("--gb", type=float, default=2.0 if name == "stream" else 10.0)
        one.add_argument("--folder", help="where the files go for the time being; the system's by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="archive", dir=options.folder) as name:
        found = COMMANDS[options.command](options, Path(name))
    print(json.dumps({"command": options.command, **found}))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())

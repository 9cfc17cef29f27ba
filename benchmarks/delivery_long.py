"""Delivery of many instances, and to two destinations of which one is not well.

    python -m benchmarks.delivery_long [--many N] [--two N]

`many`: N instances through `recon-node export` to dcmtk's storescp, killed (kill -9) after a third and
started again; counted at the receiver, beside dcmsend's rate for the first 500, with the memory of the
process over time. `two`: N instances, one every 50 ms, for two destinations; how long each takes from `put`
to its success at the one that is well, while the other is well, dead, slow or silent. These take turns, in an order
that is turned round each time, and the first instances of each turn are not counted: connections are open then, and what else
the machine does meets all alike. Exit 1 where a bad neighbour adds more than 5 % to the median.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "delivery"), str(TESTS / "integration")]

import delivery_hostile as hostile
from delivery_hostile import HostileScp, RawServer
from delivery_parts import make_instance
from integration_servers import free_port, need, running

from recon_node.delivery import DeliveryWorker, Policy, Spool, open_destination, read_instance

_COMPARED = 500


def resident_mib(process: int) -> float:
    """Resident memory; 0 once the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return 0.0


def export(folder: Path, address: str, spool: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RECON_NODE__DELIVERY__SPOOL": str(spool),
        "RECON_NODE__DELIVERY__RESERVE_MB": "0",
    }
    words = [sys.executable, "-m", "recon_node", "export", str(folder), "--to", address]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)


def watched(process: subprocess.Popen[bytes], until_files: int, kept: Path) -> list[float]:
    """Memory over time until the process ends, or so many files were received."""
    samples = []
    while process.poll() is None:
        samples.append(resident_mib(process.pid))
        if until_files and len(list(kept.iterdir())) >= until_files:
            break
        time.sleep(0.5)
    return [sample for sample in samples if sample]


def many(count: int) -> int:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "in").mkdir()
        files = [make_instance(folder / "in" / f"{n:06d}.dcm", n) for n in range(count)]
        kept, other = folder / "kept", folder / "dcmsend"
        ports = []
        for place in (kept, other):
            place.mkdir()
            ports.append(free_port())
            command = [need("storescp"), "-od", str(place), str(ports[-1])]
            stack.enter_context(running(command, ports[-1], folder / f"{place.name}.log"))
        address = f"dicom://ANY@127.0.0.1:{ports[0]}"
        start = time.perf_counter()
        first = export(folder / "in", address, folder / "spool")
        watched(first, count // 3, kept)
        first.kill()
        first.wait()
        before = len(list(kept.iterdir()))
        middle = time.perf_counter()
        second = export(folder / "in", address, folder / "spool")
        memory = watched(second, 0, kept)
        end = time.perf_counter()
        arrived = Counter(read_instance(path).uid for path in kept.iterdir())
        wanted = {read_instance(path).uid for path in files}
        compared = files[:_COMPARED]
        words = [need("dcmsend"), "-aec", "ANY", "127.0.0.1", str(ports[1]), *map(str, compared)]
        began = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        rival = len(compared) / (time.perf_counter() - began)
        rate = (count - before) / (end - middle)
        third = max(1, len(memory) // 3)
        print(f"killed after {before} of {count} ({middle - start:.0f} s), then {rate:.1f} instances/s")
        print(f"dcmsend {rival:.1f} instances/s: {rate / rival:.2f} x")
        print(f"lost {len(wanted - set(arrived))}, exit code {second.returncode}")
        early, late = statistics.median(memory[:third]), statistics.median(memory[-third:])
        print(f"resident: {early:.0f} MiB in the first third, {late:.0f} MiB in the last")
        return int(bool(wanted - set(arrived)) or second.returncode != 0)


_WARM = 5
"""Instances of a turn that are not counted."""
_MOST = 0.05


@contextlib.contextmanager
def neighbour(kind: str) -> Iterator[str]:
    """The address of the other destination."""
    options = "?connect=2&associate=5&answer=5&network=5"
    if kind == "dead":
        yield f"dicom://X@127.0.0.1:{free_port()}{options}"
    elif kind == "silent":
        with RawServer(hostile.say_nothing) as server:
            yield server.address + options
    else:
        with HostileScp("slow" if kind == "slow" else "none", times=10**9, delay_s=1.0) as scp:
            yield scp.address + options


class Arrivals(logging.Handler):
    """When each success was told, by SOP instance UID."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "outcome", "") == "delivered" and getattr(record, "destination", "") == "well":
            self.at[record.getMessage().rpartition(" ")[2]] = record.created


def latencies(kind: str, files: list[Path], well: str, spool: Path) -> list[float]:
    arrivals = Arrivals()
    log = logging.getLogger("recon_node")
    log.addHandler(arrivals)
    put: dict[str, float] = {}
    try:
        with neighbour(kind) as other, Spool(spool) as queue:
            both = {"well": open_destination(well), "other": open_destination(other)}
            with DeliveryWorker(queue, both, policy=Policy(poll=0.01)) as worker:
                for file in files:
                    uid = read_instance(file).uid
                    put[uid] = time.time()
                    queue.put([file], ["well", "other"])
                    worker.wake()
                    time.sleep(max(0.0, put[uid] + 0.05 - time.time()))
                end = time.monotonic() + 60
                while len(arrivals.at) < len(files) and time.monotonic() < end:
                    time.sleep(0.01)
                worker.stop(timeout=1.0)
    finally:
        log.removeHandler(arrivals)
    took = [1000 * (arrivals.at[uid] - at) for uid, at in put.items() if uid in arrivals.at]
    return took[_WARM:]


def two(count: int, rounds: int = 4) -> int:
    kinds = ("well", "dead", "slow", "silent")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    logging.getLogger("recon_node").setLevel(logging.INFO)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger().addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "in").mkdir()
        (folder / "kept").mkdir()
        files = [make_instance(folder / "in" / f"{n}.dcm", n) for n in range(count)]
        port = free_port()
        command = [need("storescp"), "-od", str(folder / "kept"), str(port)]
        stack.enter_context(running(command, port, folder / "log"))
        for turn in range(rounds):
            for kind in kinds if turn % 2 else reversed(kinds):
                spool = folder / f"{kind}{turn}"
                found[kind] += latencies(kind, files, f"dicom://ANY@127.0.0.1:{port}", spool)
    base, worst = statistics.median(found["well"]), 0.0
    for kind, values in found.items():
        ninth = statistics.quantiles(values, n=10)[-1]
        median = statistics.median(values)
        share = median / base - 1
        worst = max(worst, share)
        print(
            f"the other is {kind:7s} {len(values):5d} of {rounds * (count - _WARM)} arrived, median {median:6.1f} ms "
            f"({share:+.1%}), nine of ten below {ninth:6.1f} ms"
        )
    return int(worst > _MOST)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--two", type=int, default=0)
    options = parser.parse_args()
    code = many(options.many) if options.many else 0
    return code or (two(options.two) if options.two else 0)


if __name__ == "__main__":
    sys.exit(main())

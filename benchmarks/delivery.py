"""Throughput of delivery, beside dcmtk's dcmsend to the same storescp, and to Orthanc.

    python -m benchmarks.delivery [--count N] [--rounds N]

Every way sends the same 192 x 192 instances; the ways take turns, and the best round of each counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "delivery"), str(TESTS / "integration")]

import numpy as np
from delivery_parts import make_instance
from integration_servers import free_port, need, running

from recon_node.delivery import DeliveryWorker, Policy, Spool, open_destination


def send(address: str, files: list[Path]) -> None:
    destination = open_destination(address)
    destination.send(files)
    destination.close()


def through_spool(address: str, files: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder)) as spool:
        worker = DeliveryWorker(spool, {"pacs": open_destination(address)}, policy=Policy(poll=0.01))
        with worker:
            spool.put(files, ["pacs"])
            worker.wake()
            if not worker.drain(timeout=300):
                raise RuntimeError("the spool did not empty")


def dcmsend(port: int, title: str, files: list[Path]) -> None:
    command = [need("dcmsend"), "-aec", title, "127.0.0.1", str(port), "+sd", str(files[0].parent)]
    subprocess.run(command, check=True, capture_output=True)


def race(ways: dict[str, Callable[[], None]], rounds: int, count: int) -> dict[str, float]:
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            best[name] = max(best[name], count / (time.perf_counter() - start))
    return best


def show(receiver: str, best: dict[str, float], reference: str) -> None:
    for name, rate in best.items():
        print(
            f"{receiver:10s} {name:22s} {rate:9.1f} instances/s {rate / best[reference]:7.2f} x {reference}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "mr").mkdir()
        pixels = np.random.default_rng(1).integers(0, 4000, (192, 192), dtype=np.uint16).tobytes()
        files = [
            make_instance(folder / "mr" / f"{n}.dcm", n, Rows=192, Columns=192, PixelData=pixels)
            for n in range(options.count)
        ]
        port, kept = free_port(), folder / "storescp"
        kept.mkdir()
        stack.enter_context(running([need("storescp"), "-od", str(kept), str(port)], port, folder / "log"))
        ways = ways_to(port, "ANY", files)
        show("storescp", race(ways, options.rounds, options.count), "dcmsend")
        if shutil.which("Orthanc"):
            port = free_port()
            start_orthanc(stack, folder, port)
            show("Orthanc", race(ways_to(port, "ORTHANC", files), options.rounds, options.count), "dcmsend")


def ways_to(port: int, title: str, files: list[Path]) -> dict[str, Callable[[], None]]:
    address = f"dicom://{title}@127.0.0.1:{port}"
    return {
        "dcmsend": lambda: dcmsend(port, title, files),
        "destination": lambda: send(address, files),
        "spool and worker": lambda: through_spool(address, files),
    }


def start_orthanc(stack: contextlib.ExitStack, folder: Path, port: int) -> None:
    config = {
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": free_port(),
        "StorageDirectory": str(folder / "orthanc"),
        "RemoteAccessAllowed": False,
        # A re-sent instance is stored anew, so that each round does the same work.
        "OverwriteInstances": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    command = [need("Orthanc"), str(folder / "orthanc.json")]
    stack.enter_context(running(command, port, folder / "orthanc.log"))


if __name__ == "__main__":
    main()

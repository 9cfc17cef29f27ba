"""Memory of what is large: many small scans, one large file, one long stream. Run by `benchmarks.archive`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from recon_node.core.acquisition import AcquisitionFlag
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.messages import Close, HeaderXml, message_bytes
from recon_node.offline.ledger import query
from recon_node.offline.replay import replay
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan

BOUNDS = {"tiny_gb": 1.0, "memory_gb": 2.0}


def settings_for(method: str) -> Settings:
    return Settings().replace("recon", method=method, device="cpu")


def stream_of(path: Path) -> tuple[bytes, list[Readouts]]:
    """Header and readouts of a file."""
    with open_source(path) as source:
        return source.headers[0].xml, [block for block in source if isinstance(block, Readouts)]


def write_stream(file: IO[bytes], xml: bytes, blocks: Iterable[Readouts]) -> int:
    """Bytes written."""
    sent = file.write(message_bytes(HeaderXml(xml=xml)))
    for block in blocks:
        sent += file.write(message_bytes(block))
    return sent + file.write(message_bytes(Close()))


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_a_process(work: Callable[..., None], *arguments: Any) -> Any:
    """What `work` puts into a queue, in a process whose peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue, *arguments))
    process.start()
    found = queue.get()
    process.join()
    return found


def _tiny(queue: Any, paths: list[Path], out: Path, workers: int) -> None:
    start = time.perf_counter()
    done = replay(
        paths, out, settings_for("zero-filled").replace("recon", check_trust=False), workers=workers
    )
    failed = sum(result.error is not None for result in done)
    queue.put({"peak_gb": peak_gb(), "seconds": time.perf_counter() - start, "failed": failed})


def tiny(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    base = folder / "base.h5"
    simulate_scan(base, acceleration=2, pattern="uniform", coils=2, slices=1, phases=1, matrix=32, seed=1)
    xml, blocks = stream_of(base)
    assert b"<protocolName>" in xml
    rest = b"".join(bytes(message_bytes(block)) for block in blocks) + bytes(message_bytes(Close()))
    paths = []
    for number in range(options.scans):
        paths.append(folder / f"{number // 1000:03d}" / f"{number:06d}.mrd")
        paths[-1].parent.mkdir(exist_ok=True)
        mine = xml.replace(b"<protocolName>", f"<protocolName>{number} ".encode(), 1)
        paths[-1].write_bytes(bytes(message_bytes(HeaderXml(xml=mine))) + rest)
    found = in_a_process(_tiny, paths, folder / "out", options.workers)
    rows = len(query(folder / "out", "status = 'done'"))
    ok = found["peak_gb"] < BOUNDS["tiny_gb"] and rows == options.scans and not found["failed"]
    return {"scans": options.scans, "rows": rows, **found, "ok": ok}


def _memory(queue: Any, path: Path, out: Path) -> None:
    start = time.perf_counter()
    (done,) = replay([path], out, settings_for("zero-filled").replace("recon", check_trust=False))
    queue.put(
        {
            "peak_gb": peak_gb(),
            "seconds": time.perf_counter() - start,
            "slices": len(done.series),
            "error": done.error,
        }
    )


@dataclass(frozen=True)
class Long:
    """A scan of so many slices, all of the same samples, that it is of the size wanted."""

    xml: bytes
    blocks: list[Readouts]
    slices: int

    @classmethod
    def of(cls, gb: float, folder: Path) -> Long:
        base = folder / "base.h5"
        size = {"coils": 24, "slices": 1, "phases": 25, "matrix": 192}
        simulate_scan(base, acceleration=4, pattern="uniform", seed=1, **size)
        xml, blocks = stream_of(base)
        slices = int(gb * 2**30 / sum(block.samples.nbytes for block in blocks)) + 1
        limits = rb"(<slice>\s*<minimum>0</minimum>\s*<maximum>)0(</maximum>)"
        xml, found = re.subn(limits, rb"\g<1>" + str(slices - 1).encode() + rb"\g<2>", xml)
        assert found == 1
        return cls(xml, blocks, slices)

    def __iter__(self) -> Iterator[Readouts]:
        for number in range(self.slices):
            for block in self.blocks:
                noise = block.head["flags"] & np.uint64(AcquisitionFlag.IS_NOISE_MEASUREMENT) != 0
                if number and noise.all():
                    continue
                head = block.head.copy()
                head["idx"]["slice"][~noise] = number
                head["position"][~noise] += np.float32(8 * number) * head["slice_dir"][~noise]
                yield Readouts(head=head, samples=block.samples)


def memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    path, scan = folder / "large.mrd", Long.of(options.gb, folder)
    with path.open("wb") as file:
        write_stream(file, scan.xml, scan)
    size = path.stat().st_size / 2**30
    found = in_a_process(_memory, path, folder / "out")
    ok = found["error"] is None and found["slices"] == scan.slices and found["peak_gb"] < BOUNDS["memory_gb"]
    return {"gb": size, "expected_slices": scan.slices, **found, "ok": ok}


def stream(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Nothing of the scan or its images ever lies on a disk."""
    scan = Long.of(options.gb, folder)
    command = [sys.executable, "-m", "recon_node", "stream", "--method", "zero-filled"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        answer = Counting(node.stdout)
        answer.start()
        with node.stdin as pipe:
            sent = write_stream(pipe, scan.xml, scan)
        answer.join()
        _, status, used = os.wait4(node.pid, 0)
        node.returncode = os.waitstatus_to_exitcode(status)
    peak = used.ru_maxrss / 2**20
    expected = scan.slices * 25 * 192 * 192 * 2
    ok = node.returncode == 0 and answer.bytes > expected and peak < BOUNDS["memory_gb"]
    return {
        "gb": sent / 2**30,
        "slices": scan.slices,
        "peak_gb": peak,
        "seconds": time.perf_counter() - start,
        "cpu_s": used.ru_utime + used.ru_stime,
        "answer_gb": answer.bytes / 2**30,
        "exit_code": node.returncode,
        "ok": ok,
    }


class Counting(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__()
        self._pipe, self.bytes = pipe, 0

    def run(self) -> None:
        while data := self._pipe.read(1 << 20):
            self.bytes += len(data)

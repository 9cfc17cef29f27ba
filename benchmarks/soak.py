"""Many scans through one node, some clients killed: does it leak, lose an image, or leave a thread behind?

Run: ``python -m benchmarks.soak [--scans 200] [--at-once 4] [--killed 0.1] [--seed 1] [--json]``

The node is ``recon-node serve`` in a process of its own; each client is a process too, paced by the
acquisition time stamps, and ended by SIGKILL at a random moment where chance says so. Every scan is of
another patient. What the node got of each scan is known from its captures, byte for byte: an image is
lost if all lines of its slice are in the capture and no DICOM file of it is on the disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pydicom

from benchmarks.served import Served
from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.errors import ReconNodeError, SourceError
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.captures import Captures
from recon_node.mrd.messages import HeaderXml, message_bytes
from recon_node.offline.send import send_scan
from recon_node.prep import Preparation
from recon_node.simulate import simulate_scan

SLICES, PHASES = 3, 4
_SCAN_S = 0.8
_WARM_UP = 99_999
_PATIENCE_S = 120.0
_LINGER_S = 1.5
_PATIENT = "SOAK{:05d}"


@dataclass(slots=True)
class Soak:
    """What came out."""

    scans: int
    killed: int = 0
    seconds: float = 0.0
    slices_received: int = 0
    lost_images: int = 0
    failed_clients: int = 0
    rss_mb: list[float] = field(default_factory=list)
    threads: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)
    exit_code: int | None = None

    @property
    def growth(self) -> float:
        """Memory in the last third of the scans above that in the middle third, as a fraction."""
        third = len(self.rss_mb) // 3
        middle, last = self.rss_mb[third : 2 * third], self.rss_mb[-third:]
        return statistics.median(last) / statistics.median(middle) - 1

    @property
    def troubles(self) -> list[str]:
        """What is not as it should be (memory aside, which needs many scans to be told)."""
        told = []
        if self.lost_images:
            told.append(f"{self.lost_images} images of completely received slices are missing")
        if self.failed_clients:
            told.append(f"{self.failed_clients} clients that were left alone did not get their images")
        if self.threads[1] > self.threads[0]:
            told.append(f"{self.threads[1] - self.threads[0]} threads are left")
        if self.files[1] > self.files[0]:
            told.append(f"{self.files[1] - self.files[0]} open files are left")
        if self.exit_code != 0:
            told.append(f"the node ended with {self.exit_code} after SIGTERM")
        return told


def soak(scans: int, *, at_once: int = 4, killed: float = 0.1, seed: int = 1) -> Soak:
    """Send `scans` scans, `at_once` at a time, and kill a fraction of the clients."""
    chance = random.Random(seed)
    doomed = set(chance.sample(range(scans), round(killed * scans)))
    result = Soak(scans=scans, killed=len(doomed))
    with tempfile.TemporaryDirectory(prefix="soak") as name:
        folder = Path(name)
        template = folder / "scan.h5"
        simulate_scan(
            template,
            acceleration=2,
            pattern="uniform",
            coils=4,
            slices=SLICES,
            phases=PHASES,
            matrix=48,
            seed=1,
        )
        xml, data = _stream(template)
        (folder / "header").write_text(xml)
        (folder / "data").write_bytes(data)
        node = Node(folder)
        try:
            _client(node.port, folder, _WARM_UP)  # everything that is loaded once is loaded now
            before = node.wait_idle()
            started = time.monotonic()
            clients = Clients(node, folder, doomed, chance)
            result.failed_clients = clients.run(scans, at_once, result.rss_mb)
            result.seconds = time.monotonic() - started
            after = node.wait_idle(before)
            result.threads, result.files = (before[0], after[0]), (before[1], after[1])
        finally:
            result.exit_code = node.stop()
        result.slices_received, result.lost_images = images_lost(folder)
    return result


def _stream(path: Path) -> tuple[str, bytes]:
    """Header and messages of a file whose scan takes `_SCAN_S`, so that a soak does not take for ever."""
    with open_source(path) as source:
        blocks = [block for block in source if isinstance(block, Readouts)]
        stamps = np.concatenate([block.head["acquisition_time_stamp"] for block in blocks]).astype(np.int64)
        first, factor = stamps.min(), _SCAN_S * 1000 / TIME_STAMP_UNIT_MS / np.ptp(stamps)
        parts = []
        for block in blocks:
            head = block.head.copy()
            head["acquisition_time_stamp"] = first + (head["acquisition_time_stamp"] - first) * factor
            parts.append(bytes(message_bytes(Readouts(head=head, samples=block.samples))))
        return source.headers[0].xml.decode(), b"".join(parts)


def _client(port: int, folder: Path, number: int) -> bool:
    """Send one scan of a patient of its own; whether all images came back."""
    xml = (folder / "header").read_text()
    xml = re.sub(r"<patientID>[^<]*", f"<patientID>{_PATIENT.format(number)}", xml)
    raw = folder / f"{number}.mrd"
    raw.write_bytes(bytes(message_bytes(HeaderXml(xml=xml.encode()))) + (folder / "data").read_bytes())
    try:
        summary = send_scan(raw, port=port, realtime=number != _WARM_UP, timeout=120.0)
    except ReconNodeError as error:
        print(f"scan {number}: {error}", file=sys.stderr)
        return False
    finally:
        raw.unlink()
    for text in summary.errors:
        print(f"scan {number}: {text}", file=sys.stderr)
    return summary.ok and summary.images == SLICES * PHASES


def _work(port: int, folder: Path, number: int) -> None:
    sys.exit(0 if _client(port, folder, number) else 1)


class Node(Served):
    """``recon-node serve`` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = ["serve", "--port", "0", "--health-port", "0", "--method", "view-sharing"]
        super().__init__(folder, ["-m", "recon_node", *command], {})
        self.port = int(self.told(r"listening on .*:(\d+),"))
        self._health = int(self.told(r"health: http://127.0.0.1:(\d+)/"))

    def wait_idle(self, wanted: tuple[int, int] | None = None) -> tuple[int, int]:
        """Threads and open files once no scan runs and, if it may be, not more than `wanted` are left."""
        url = f"http://127.0.0.1:{self._health}/metrics"
        end = time.monotonic() + _PATIENCE_S
        while b"recon_node_scans_running 0.0" not in _page(url):
            if time.monotonic() > end:
                raise SystemExit("a scan is stuck in the node")
            time.sleep(0.05)
        end = time.monotonic() + (_LINGER_S if wanted is None else 2 * _LINGER_S)
        while time.monotonic() < end:  # connections linger for their peers' last words
            time.sleep(0.1)
            if wanted is not None and all(n <= w for n, w in zip(self.usage(), wanted, strict=True)):
                break
        return self.usage()


def _page(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
    return content


class Clients:
    """Client processes, some of which are killed."""

    def __init__(self, node: Node, folder: Path, doomed: set[int], chance: random.Random) -> None:
        self._node = node
        self._folder = folder
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["pydicom", "recon_node.prep", "recon_node.simulate"])
        self._doomed = doomed
        self._chance = chance
        self._duration = 1.0
        self._running: dict[int, tuple[BaseProcess, float | None, float]] = {}

    def run(self, scans: int, at_once: int, rss_mb: list[float]) -> int:
        """Send them all; how many that were left alone failed."""
        failed, number = 0, 0
        while number < scans or self._running:
            while number < scans and len(self._running) < at_once:
                self._start(number)
                number += 1
            for done in self._ended():
                rss_mb.append(self._node.rss_mb())
                process, kill_at, started = self._running.pop(done)
                if kill_at is None:
                    failed += process.exitcode != 0
                    self._duration = time.monotonic() - started
                process.close()
            time.sleep(0.01)
        return failed

    def _start(self, number: int) -> None:
        process = self._processes.Process(target=_work, args=(self._node.port, self._folder, number))
        process.start()
        now = time.monotonic()
        kill_at = now + self._chance.uniform(0.0, self._duration) if number in self._doomed else None
        self._running[number] = (process, kill_at, now)

    def _ended(self) -> list[int]:
        ended = []
        for number, (process, kill_at, _) in self._running.items():
            if kill_at is not None and time.monotonic() > kill_at:
                process.kill()
                process.join(10)
            if not process.is_alive():
                process.join()
                ended.append(number)
        return ended


def images_lost(folder: Path) -> tuple[int, int]:
    """Slices that were received whole, and images of them that are not on the disk."""
    images = Counter(
        pydicom.dcmread(path, stop_before_pixels=True).PatientID for path in (folder / "dicom").rglob("*.dcm")
    )
    received = lost = 0
    for capture in Captures(folder / "recorded", max_bytes=0).all():
        patient, slices = _received(capture.raw or folder)
        received += slices
        lost += max(0, slices * PHASES - images[patient])
    return received, lost


def _received(path: Path) -> tuple[str | None, int]:
    """Whose scan is in a capture, and how many slices of it are whole."""
    slices = 0
    try:
        with open_source(path) as source:
            patient = source.headers[0].patient.patient_id
            preparation = Preparation(source.headers)
            try:
                for block in source:
                    slices += len(preparation.feed(block))
            except SourceError:
                return patient, slices
    except SourceError:
        return None, 0  # not even the header came
    return patient, slices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--killed", type=float, default=0.1, help="fraction of the clients (default: 0.1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = soak(options.scans, at_once=options.at_once, killed=options.killed, seed=options.seed)
    if options.json:
        print(json.dumps(asdict(result) | {"growth": result.growth, "troubles": result.troubles}))
    else:
        print(
            f"{result.scans} scans, {options.at_once} at once, {result.killed} clients killed, "
            f"{result.seconds:.0f} s"
        )
        print(f"slices received whole: {result.slices_received}, images lost: {result.lost_images}")
        print(
            f"memory: {result.rss_mb[0]:.0f} MB after the first scan, {result.rss_mb[-1]:.0f} MB at the end; "
            f"last third {100 * result.growth:+.1f} % of the middle third"
        )
        print(
            f"threads {result.threads[0]} -> {result.threads[1]}, files {result.files[0]} -> {result.files[1]}"
        )
        for trouble in result.troubles:
            print(f"TROUBLE: {trouble}")
    sys.exit(1 if result.troubles or result.growth > 0.1 else 0)


if __name__ == "__main__":
    main()

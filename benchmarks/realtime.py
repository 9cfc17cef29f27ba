"""What the node adds to a scan: its work beside the network, and the wait for the first DICOM file.

Run: ``python -m benchmarks.realtime [--method NAME ...] [--slices 4] [--phases 12] [--matrix 128] [--coils 8]
[--frames off|sliding] [--order segments|frames] [--tr-ms 3] [--json]``

A simulated scan is sent by ``recon-node send --realtime``, a process of its own, at the pace of its
acquisition time stamps. Work is the node's CPU time (a busy machine does not change it), less the CPU time
inside the reconstructor, as a fraction of the scan's duration. Latency is wall time from the arrival of a
slice's last line to its DICOM files on the disk, network included: median, 95th percentile, worst, and how
many slices took how long. With ``--frames sliding`` the same of the last line of a frame and its preliminary
image, and the CPU time of both the images and the looking on while lines arrive; ``--order frames`` sends
frame after frame, as real-time sequences do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frame_order import in_frame_order
from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.scan import Readouts
from recon_node.core.types import ImageSeries
from recon_node.files.open import open_source
from recon_node.methods.table import check_method
from recon_node.online.frames import Frames
from recon_node.online.serve import serving
from recon_node.pipeline.frames import FrameMaker
from recon_node.pipeline.row import Pipeline
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan

_SPREAD = {"median": "median", "95 %": "p95", "worst": "worst"}


@contextmanager
def timed(kind: type, name: str) -> Iterator[list[float]]:
    """CPU seconds of every call of a method of a class."""
    seconds: list[float] = []
    real = getattr(kind, name)

    def counted(self: Any, *arguments: Any) -> Any:
        start = time.thread_time()
        try:
            return real(self, *arguments)
        finally:
            seconds.append(time.thread_time() - start)

    setattr(kind, name, counted)
    try:
        yield seconds
    finally:
        setattr(kind, name, real)


class Timed:
    """A reconstructor that counts its CPU seconds."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.name = inner.name
        self.seconds = 0.0

    def reconstruct(self, *arguments: Any) -> ImageSeries:
        start = time.thread_time()
        try:
            return self._inner.reconstruct(*arguments)
        finally:
            self.seconds += time.thread_time() - start


def scan_seconds(raw: Path) -> float:
    """From the first acquisition to the last."""
    with open_source(raw) as source:
        blocks = [block for block in source if isinstance(block, Readouts)]
    stamps = np.concatenate([block.head["acquisition_time_stamp"] for block in blocks]).astype(np.int64)
    return float(np.ptp(stamps)) * TIME_STAMP_UNIT_MS / 1000


def measure(
    method: str,
    *,
    slices: int,
    phases: int,
    matrix: int,
    coils: int = 8,
    acceleration: int = 8,
    frames: str = "off",
    tr_ms: float | None = None,
) -> dict[str, Any]:
    """Send one scan in real time to a node with `method`; frame after frame where `tr_ms` is given."""
    with tempfile.TemporaryDirectory(prefix="realtime") as name:
        folder = Path(name)
        raw = folder / "scan.h5"
        shape = {"coils": coils, "slices": slices, "phases": phases, "matrix": matrix}
        simulate_scan(raw, acceleration=acceleration, pattern="random", seed=3, **shape)
        if tr_ms is not None:
            in_frame_order(raw, folder / "ordered.h5", tr_ms=tr_ms)
            raw = folder / "ordered.h5"
        settings = Settings().replace("recon", method=method, device="cpu", threads=1)
        settings = settings.replace(
            "server", port=0, out=str(folder / "dicom"), deferred=str(folder / "deferred"), frames=frames
        )
        latencies: list[float] = []
        shown: list[float] = []
        outcomes: Counter[str] = Counter()
        with (
            timed(FrameMaker, "make") as making,
            timed(Frames, "watch") as looking,
            serving(settings) as running,
        ):
            methods = Pipeline(settings).methods
            network = Timed(methods.chosen)
            object.__setattr__(methods, "chosen", network)
            told = running.node.metrics.on_slice

            def on_slice(seconds: Any, verdict: str, instances: int, latency_seconds: float) -> None:
                latencies.append(latency_seconds)
                told(seconds, verdict, instances, latency_seconds)

            def on_frame(outcome: str, latency_seconds: float | None) -> None:
                outcomes[outcome] += 1
                if latency_seconds is not None:
                    shown.append(latency_seconds)

            running.node.metrics.on_slice = on_slice
            running.node.metrics.on_frame = on_frame
            command = [sys.executable, "-m", "recon_node", "send", str(raw), "--realtime"]
            before = time.process_time()
            subprocess.run([*command, "--port", str(running.server.port)], check=True, capture_output=True)
            spent = time.process_time() - before
        duration = scan_seconds(raw)
    if len(latencies) != slices:
        raise SystemExit(f"{len(latencies)} of {slices} slices came")
    return {
        "method": method,
        "scan_s": duration,
        "network_cpu_s": network.seconds,
        "other_cpu_s": spent - network.seconds,
        "overhead": (spent - network.seconds) / duration,
        **spread("latency", latencies),
        "latencies_s": latencies,
        **({"frames": dict(outcomes), **spread("frame", shown), "frames_s": shown} if outcomes else {}),
        **spread("frame_cpu", making),
        **spread("line_cpu", looking),
    }


def spread(name: str, seconds: list[float]) -> dict[str, float]:
    """Median, 95th percentile and worst; nothing where nothing was measured."""
    if not seconds:
        return {}
    return {
        f"{name}_median_s": statistics.median(seconds),
        f"{name}_p95_s": float(np.quantile(seconds, 0.95)),
        f"{name}_worst_s": max(seconds),
    }


def histogram(latencies: list[float], bins: int = 8) -> str:
    """Lines of bars, a character a slice or frame."""
    counts, edges = np.histogram(latencies, bins)
    return "\n".join(
        f"{low:8.2f} to {high:6.2f} s {'#' * int(count)}"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )


def report(found: dict[str, Any]) -> None:
    """Print the figures of one method."""
    print(f"{found['method']}: a scan of {found['scan_s']:.1f} s, {len(found['latencies_s'])} slices")
    print(
        f"CPU: network {found['network_cpu_s']:.1f} s, everything else {found['other_cpu_s']:.2f} s = "
        f"{100 * found['overhead']:.1f} % of the scan"
    )
    told("last line of a slice to its DICOM on disk", "latency", found, found["latencies_s"])
    if "frames" in found:
        print("frames: " + ", ".join(f"{count} {outcome}" for outcome, count in found["frames"].items()))
        print(
            f"CPU: an image {found['frame_cpu_median_s']:.3f} s, worst {found['frame_cpu_worst_s']:.3f} s; looking "
            f"on {1000 * found['line_cpu_median_s']:.2f} ms for every message of lines"
        )
        told("last line of a frame to its preliminary image", "frame", found, found["frames_s"])


def told(what: str, name: str, found: dict[str, Any], seconds: list[float]) -> None:
    """Print one spread and its histogram."""
    if seconds:
        parts = ((words, found[f"{name}_{key}_s"]) for words, key in _SPREAD.items())
        print(f"{what}: " + ", ".join(f"{words} {value:.2f} s" for words, value in parts))
        print(histogram(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", type=check_method, nargs="+", default=["cardiomm"])
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--phases", type=int, default=12)
    parser.add_argument("--matrix", type=int, default=128)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--acceleration", type=int, default=8)
    parser.add_argument("--frames", choices=["off", "sliding"], default="off")
    parser.add_argument("--order", choices=["segments", "frames"], default="segments")
    parser.add_argument("--tr-ms", type=float, default=3.0, help="with --order frames")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for method in options.method:
        found = measure(
            method,
            slices=options.slices,
            phases=options.phases,
            matrix=options.matrix,
            coils=options.coils,
            acceleration=options.acceleration,
            frames=options.frames,
            tr_ms=options.tr_ms if options.order == "frames" else None,
        )
        if options.json:
            print(json.dumps(found))
        else:
            report(found)


if __name__ == "__main__":
    main()

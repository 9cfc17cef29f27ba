"""The runner on this machine's CPU, beside what the machine can do.

    OMP_NUM_THREADS=1 python -m benchmarks.runner [--paper] [--compile] [--threads] [--size N] [--frames N]

For the shipped weights, and with `--paper` for the published widths and depth, prints the CPU seconds a frame
through `CardioMMReconstructor` and the share of the same process's one-thread matrix-multiplication rate;
both are measured in turns, medians over the turns. `--compile` adds the gain of ``torch.compile``. `--threads`
compares two threads with one, and one with itself, wall time in processes of their own, while another process is
busy. The node's default is one thread a process, with slices shared out among processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, KSpace, Sampling, TextEmbedding
from recon_node.methods.cardiomm import CardioMMReconstructor
from recon_node.model import CardioMM, CardioMMConfig, LoadedWeights, load_weights

COILS = 10
SIDE = 1024
TURNS = 5
PAIRS = 3


def slice_of(size: int, frames: int, sampling_rate: float = 0.15) -> tuple[KSpace, CoilMaps]:
    """A slice of noise with line masks."""
    rng = np.random.default_rng(0)
    mask = np.repeat(rng.random((frames, size, 1)) < sampling_rate, size, axis=2)
    mask[:, size // 2 - 10 : size // 2 + 10] = True
    shape = (frames, COILS, size, size)
    data = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * mask[:, None]
    maps = rng.standard_normal((1, *shape[1:])) + 1j * rng.standard_normal((1, *shape[1:]))
    maps /= np.linalg.norm(maps, axis=1, keepdims=True)
    fov = (300.0, 300.0, 8.0)
    directions = {"read_dir": (1.0, 0.0, 0.0), "phase_dir": (0.0, 1.0, 0.0), "slice_dir": (0.0, 0.0, 1.0)}
    matrix = (size, size, 1)
    return KSpace(
        data=data.astype(np.complex64),
        mask=mask,
        header=ScanHeader(encoded_matrix=matrix, encoded_fov_mm=fov, recon_matrix=matrix, recon_fov_mm=fov),
        index=SliceIndex(),
        geometry=SliceGeometry(position_mm=(0.0, 0.0, 0.0), fov_mm=fov, **directions),
        sampling=Sampling(pattern="random", acceleration=8, effective_acceleration=5, acs=20),
    ), CoilMaps(data=maps.astype(np.complex64), support=np.ones((size, size), bool))


def text_of(weights: LoadedWeights) -> TextEmbedding:
    """Any vectors of the right length and provenance."""
    vector = np.random.default_rng(1).standard_normal(weights.config.text_features).astype(np.float32)
    sha256 = weights.encoder_sha256 or "any"
    return TextEmbedding(
        metadata=vector, undersampling=vector, encoder=weights.encoder, encoder_sha256=sha256
    )


def published() -> LoadedWeights:
    """Published widths and depth without the sensitivity network, random weights."""
    config = CardioMMConfig()
    return LoadedWeights(
        net=CardioMM(config).eval(),
        config=config,
        name="published size",
        sha256="",
        encoder="clip",
        encoder_sha256=None,
        card={},
    )


def cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def share(weights: LoadedWeights, size: int, frames: int) -> None:
    """Print seconds a frame and the share of the matrix-multiplication rate."""
    kspace, maps = slice_of(size, frames)
    runner, text = CardioMMReconstructor(weights, device="cpu"), text_of(weights)

    def run() -> object:
        return runner.reconstruct(kspace, maps, text)

    with FlopCounterMode(display=False) as counter:
        run()
    gflop = counter.get_total_flops() / 1e9
    a, b = torch.randn(2, SIDE, SIDE)
    shares, seconds, products = [], [], []
    for _ in range(TURNS):
        rates = [2 * SIDE**3 / 1e9 / cpu(lambda: a @ b) for _ in range(20)]
        spent = cpu(run)
        rates += [2 * SIDE**3 / 1e9 / cpu(lambda: a @ b) for _ in range(20)]
        products.append(statistics.median(rates))
        shares.append(gflop / spent / products[-1])
        seconds.append(spent / frames)
    print(
        f"{weights.name:16s} {size}x{size}: {gflop / frames:7.1f} GFLOP a frame, "
        f"{statistics.median(seconds):.2f} s a frame on one thread, {statistics.median(shares):.0%} of the "
        f"matrix-multiplication rate of {statistics.median(products):.0f} GFLOP/s ({min(shares):.0%} to "
        f"{max(shares):.0%})",
        flush=True,
    )


def compiled(weights: LoadedWeights, size: int, frames: int) -> None:
    """Print what compiling costs and gains."""
    kspace, maps = slice_of(size, frames)
    text = text_of(weights)
    runners = [
        CardioMMReconstructor(load_weights(weights.name), device="cpu", compile=c) for c in (False, True)
    ]
    first = cpu(lambda: runners[1].reconstruct(kspace, maps, text))
    plain, fast = (
        runners[0].reconstruct(kspace, maps, text).data,
        runners[1].reconstruct(kspace, maps, text).data,
    )
    times = [[cpu(lambda r=r: r.reconstruct(kspace, maps, text)) for r in runners] for _ in range(TURNS)]
    gain = statistics.median(one / other for one, other in times)
    difference = np.linalg.norm(fast - plain) / np.linalg.norm(plain)
    print(
        f"compiled: {gain:.2f} times as fast, first slice {first:.0f} s, images differ by {difference:.1e}",
        flush=True,
    )


BUSY = "import torch\ntorch.set_num_threads(1)\na = torch.randn(512, 512)\nwhile True: a @ a"
WORKER = (
    "import sys, time\nfrom benchmarks.runner import *\n"
    "w = load_weights('default')\nk, m = slice_of(int(sys.argv[1]), 6)\n"
    "r = CardioMMReconstructor(w, device='cpu', threads=int(sys.argv[2]))\nr.reconstruct(k, m, text_of(w))\n"
    "s = time.perf_counter()\nfor _ in range(3): r.reconstruct(k, m, text_of(w))\nprint(time.perf_counter() - s)"
)


def threads(size: int) -> None:
    """Print wall time with two threads over one, beside a busy process."""

    def wall(count: int) -> float:
        environment = {**os.environ, "OMP_NUM_THREADS": str(count), "OMP_WAIT_POLICY": "passive"}
        command = [sys.executable, "-c", WORKER, str(size), str(count)]
        return float(
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        )

    cores = len(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        try:
            same = [wall(1) / wall(1) for _ in range(PAIRS)]
            ratios = [wall(2) / wall(1) for _ in range(PAIRS)]
        finally:
            busy.kill()
    print(
        f"two threads beside a busy process, {cores} cores: {statistics.median(ratios):.2f} of the wall time of "
        f"one ({min(ratios):.2f} to {max(ratios):.2f}); one thread beside itself, which is the error of this measurement: "
        f"{statistics.median(same):.2f} ({min(same):.2f} to {max(same):.2f})"
    )


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--frames", type=int, default=4)
    for flag in ("--paper", "--compile", "--threads"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    share(load_weights("default"), options.size, options.frames)
    if options.paper:
        share(published(), options.size, 1)
    if options.compile:
        compiled(load_weights("default"), options.size, options.frames)
    if options.threads:
        threads(options.size)


if __name__ == "__main__":
    main()

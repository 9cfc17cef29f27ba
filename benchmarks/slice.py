"""Seconds a slice by one thread: SENSE, k-t and CardioMM, each with its trust check, and BART beside them.

`python -m benchmarks.slice [--bart] [--workers] [--coils N] [--phases N] [--matrix N] [--pattern P] [--rate R]`

One drawn heart, sent as a file, prepared once. Each method runs in a process of its own, so that the peak of
its memory is its own. CPU seconds of the quickest of three runs after one that loads; coil maps are part of
the reconstruction. PSNR is that of magnitudes, against the truth, mean over phases.

`--bart` adds `ecalib` and `pics` with total variation over time and space (as `evaluate --rivals bart`,
minutes), in the same noise units; its time includes starting and reading and writing files, and its PSNR is taken where its
maps are. `--workers` replays two such slices
with one worker and with two, nothing set by hand, and prints the ratio of wall times.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.lab.evaluation import bart

METHODS = ("sense", "kt", "cardiomm")
SEED = 3
RUNS = 3
"""Of which the quickest counts: trust is a difference of two times."""


def psnr(images: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean over phases, dB, after the best common factor."""
    found, wanted = np.abs(images).astype(np.float64), np.abs(truth).astype(np.float64)
    found *= np.vdot(found, wanted) / np.vdot(found, found)
    error = np.sqrt(np.mean((found - wanted) ** 2, axis=(1, 2)))
    return float(np.mean(20 * np.log10(wanted.max() / error)))


def truth_of(folder: Path) -> NDArray[np.complex64]:
    with h5py.File(folder / "truth.h5") as file:
        return np.asarray(file["images"][0])


def one_method(folder: Path, method: str) -> dict[str, float | str]:
    """Figures of one method, in this process."""
    from recon_node import Pipeline, Settings, open_scan

    (kspace,) = open_scan(folder / "scan.h5")
    seconds: dict[bool, list[float]] = {False: [], True: []}
    pipelines = {
        trust: Pipeline(Settings().replace("recon", method=method, device="cpu", check_trust=trust))
        for trust in seconds
    }
    for run in range(1 + RUNS):  # in turn, as the machine's speed varies
        for trust, pipeline in pipelines.items():
            start = time.process_time()
            result = pipeline.run(kspace)
            if run:
                seconds[trust].append(time.process_time() - start)
    alone, both = min(seconds[False]), min(seconds[True])
    return {
        "method": method,
        "reconstruction": alone,
        "trust": both - alone,
        "psnr": psnr(result.images.data, truth_of(folder)),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "verdict": result.verdict.verdict,
    }


def with_bart(folder: Path) -> dict[str, float | str]:
    """BART's ecalib and pics on the same samples."""
    from recon_node import open_scan

    (kspace,) = open_scan(folder / "scan.h5")
    assert kspace.calibration is not None
    names = [folder / name for name in ("calibration", "kspace", "maps", "images")]
    centre = np.zeros(kspace.data.shape[1:], np.complex64)
    block = tuple(
        slice(full // 2 - size // 2, full // 2 - size // 2 + size)
        for size, full in zip(kspace.calibration.shape[1:], centre.shape[1:], strict=True)
    )
    centre[(slice(None), *block)] = kspace.calibration
    bart.write(names[0], bart.coil_last(centre))
    frames = np.stack([bart.coil_last(frame) for frame in kspace.data], axis=-1)
    bart.write(names[1], frames.reshape(*frames.shape[:4], *(1,) * 6, frames.shape[-1]))
    lines = min(kspace.calibration.shape[1:])
    seconds = bart.run("ecalib", "-m1", f"-r{lines}", "-k6", names[0], names[2])
    seconds += bart.run("pics", *bart.BartKt().options(kspace.mask), *names[1:])
    images = bart.read(names[3]).squeeze().transpose(2, 1, 0)
    inside = np.abs(bart.read(names[2])).sum(axis=3).squeeze().T > 0
    return {
        "method": "BART",
        "reconstruction": seconds,
        "psnr": psnr(images * inside, truth_of(folder) * inside),
    }


def in_a_process(folder: Path, method: str) -> dict[str, Any]:
    """`one_method` with a process of its own and one thread."""
    command = [sys.executable, "-m", "benchmarks.slice", "--child", method, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True).stdout
    figures: dict[str, Any] = json.loads(found.splitlines()[-1])
    return figures


def two_workers(folder: Path) -> float:
    """Wall time of one worker over that of two, for copies of the scan as files of their own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    scans = [folder / f"scan{i}.h5" for i in range(4)]
    for scan in scans:
        if not scan.exists():
            scan.symlink_to(folder / "scan.h5")
    took = []
    for workers in (1, 2):
        out = folder / f"by{workers}"
        command = [sys.executable, "-m", "recon_node", "replay", *map(str, scans), "--out", str(out)]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--method", "kt", "--workers", str(workers)],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        took.append(time.perf_counter() - start)
    return took[0] / took[1]


def print_table(rows: list[dict[str, Any]]) -> None:
    print(
        "| | reconstruction s | trust s | both s | trust / reconstruction | PSNR dB | peak GiB | BART over it |"
    )
    print("|---" * 8 + "|")
    slow = next((row["reconstruction"] for row in rows if row["method"] == "BART"), None)
    for row in rows:
        alone, trust = row["reconstruction"], row.get("trust", 0.0)
        times = f"{slow / (alone + trust):.1f}" if slow else ""
        share = f"{trust / alone:.0%}" if trust else ""
        peak = f"{row['peak_gib']:.2f}" if "peak_gib" in row else ""
        print(
            f"| {row['method']} | {alone:.2f} | {trust:.2f} | {alone + trust:.2f} | {share} "
            f"| {row['psnr']:.2f} | {peak} | {times} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bart", action="store_true")
    parser.add_argument("--workers", action="store_true")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    for name, value in (("coils", 24), ("phases", 25), ("matrix", 192), ("rate", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--pattern", default="uniform")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(one_method(options.folder, options.child)))
        return
    from recon_node.simulate import simulate_scan

    with tempfile.TemporaryDirectory(prefix="slice") as name:
        folder = Path(name)
        simulate_scan(
            folder / "scan.h5",
            truth=folder / "truth.h5",
            acceleration=options.rate,
            pattern=options.pattern,
            coils=options.coils,
            slices=1,
            phases=options.phases,
            matrix=options.matrix,
            seed=SEED,
        )
        size = f"{options.matrix} x {options.matrix}, {options.coils} coils, {options.phases} frames"
        print(f"{size}, {options.pattern} {options.rate}x, CPU seconds a slice\n")
        rows = [in_a_process(folder, method) for method in options.methods]
        if options.bart:
            rows.append(with_bart(folder))
        print_table(rows)
        if options.workers:
            print(f"\nwall time of one worker over two: {two_workers(folder):.2f}")


if __name__ == "__main__":
    main()

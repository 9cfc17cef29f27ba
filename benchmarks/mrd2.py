"""MRD 2 streams: CPU seconds of the ``mrd-python`` package over ours, which also makes runs of readouts.

    python -m benchmarks.mrd2 [--repeats 5]

The streams are the package's own phantom, with few and many coils, and a simulated heart whose lines are noise,
calibration and imaging lines with different flags, all written by the package. Both decode the same bytes in turn, one
acquisition after the other as a node does, keeping none; the samples are compared bit for bit.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mrd
import numpy as np

from benchmarks.as_mrd2 import as_mrd2
from recon_node.core.scan import Readouts
from recon_node.mrd.v2.source import MrdV2Source
from recon_node.simulate import simulate_scan


def ours(data: bytes) -> Iterator[np.ndarray]:
    for block in MrdV2Source(io.BytesIO(data)):
        if isinstance(block, Readouts):
            yield from block.samples


def theirs(data: bytes) -> Iterator[np.ndarray]:
    with mrd.BinaryMrdReader(io.BytesIO(data)) as reader:
        reader.read_header()
        for item in reader.read_data():
            if isinstance(item, mrd.StreamItem.Acquisition):
                yield item.value.data


def cpu(work: Callable[[bytes], Iterator[np.ndarray]], data: bytes) -> float:
    start = time.process_time()
    for _ in work(data):
        pass
    return time.process_time() - start


def phantom(coils: int, matrix: int, repetitions: int) -> bytes:
    """The package's phantom."""
    size = ["-c", str(coils), "-m", str(matrix), "-r", str(repetitions)]
    command = [sys.executable, "-m", "mrd.tools.phantom", *size]
    return subprocess.run(command, check=True, capture_output=True).stdout


def heart() -> bytes:
    """A simulated heart."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "heart.h5"
        simulate_scan(raw, acceleration=4, pattern="random", coils=8, slices=2, phases=25, matrix=128, seed=1)
        return as_mrd2(raw)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cases = {
        "phantom, 1 coil of 64": phantom(1, 64, 120),
        "phantom, 8 coils of 128": phantom(8, 128, 60),
        "phantom, 32 coils of 256": phantom(32, 256, 4),
        "heart, 8 coils of 128": heart(),
    }
    for name, data in cases.items():
        same = [np.array_equal(a, b) for a, b in zip(ours(data), theirs(data), strict=True)]
        pairs = [(cpu(ours, data), cpu(theirs, data)) for _ in range(options.repeats)]
        mine, other = (float(np.median(column)) for column in zip(*pairs, strict=True))
        print(
            f"{name}: {len(data) / 1e6:.0f} MB, {len(same)} acquisitions, samples "
            f"{'equal' if all(same) else 'DIFFER'}; ours {mine:.3f} CPU s, mrd-python {other:.3f} CPU s: "
            f"{other / mine:.1f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()

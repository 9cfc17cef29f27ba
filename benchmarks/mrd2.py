"""MRD 2 streams: CPU seconds of the ``mrd-python`` package over ours, which also makes runs of readouts.

    python -m benchmarks.mrd2 [--repetitions 60] [--repeats 5]

The stream is the package's own phantom. Both decode the same bytes in turn; the samples are compared bit for bit.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
from collections.abc import Callable

import mrd
import numpy as np

from recon_node.core.scan import Readouts
from recon_node.mrd.v2.source import MrdV2Source


def ours(data: bytes) -> list[np.ndarray]:
    return [
        s for block in MrdV2Source(io.BytesIO(data)) if isinstance(block, Readouts) for s in block.samples
    ]


def theirs(data: bytes) -> list[np.ndarray]:
    with mrd.BinaryMrdReader(io.BytesIO(data)) as reader:
        reader.read_header()
        return [
            item.value.data for item in reader.read_data() if isinstance(item, mrd.StreamItem.Acquisition)
        ]


def cpu(work: Callable[[bytes], list[np.ndarray]], data: bytes) -> float:
    start = time.process_time()
    work(data)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "mrd.tools.phantom",
        "-c",
        "8",
        "-m",
        "128",
        "-r",
        str(options.repetitions),
    ]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    equal = all(np.array_equal(a, b) for a, b in zip(ours(data), theirs(data), strict=True))
    pairs = [(cpu(ours, data), cpu(theirs, data)) for _ in range(options.repeats)]
    mine, other = (float(np.median(column)) for column in zip(*pairs, strict=True))
    print(
        f"{len(data) / 1e6:.0f} MB, {len(ours(data))} acquisitions, samples {'equal' if equal else 'DIFFER'}"
    )
    print(f"ours {mine:.3f} CPU s, mrd-python {other:.3f} CPU s: {other / mine:.1f}x")


if __name__ == "__main__":
    main()

"""Run the `bart` command and measure its CPU seconds; shared by the benchmarks."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write(name: Path, array: NDArray[Any]) -> None:
    """Write `array` as BART's pair of files (column-major complex64)."""
    name.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    np.asarray(array, np.complex64).ravel("F").tofile(name.with_suffix(".cfl"))


def read(name: Path) -> NDArray[np.complex64]:
    dimensions = [int(n) for n in name.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(name.with_suffix(".cfl"), np.complex64).reshape(dimensions, order="F")


def run(*arguments: str | Path) -> float:
    """Run `bart ARGUMENTS` on one thread; CPU seconds (user and system) it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        ["bart", *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def version() -> str:
    return subprocess.run(["bart", "version"], check=True, capture_output=True, text=True).stdout.strip()


def coil_last(array: NDArray[Any]) -> NDArray[Any]:
    """`(coil, y, x)` as BART wants it: `(x, y, 1, coil)`."""
    return array.transpose(2, 1, 0)[:, :, None, :]

"""The `bart` command as a rival: the same samples and coil maps, total variation over time and space.

BART is another group's toolbox (Uecker et al., Proc ISMRM 23:2486, 2015) and no part of the node: methods
are compared with it where it is installed. Images come in the unit of the k-space (``pics -w 1``): without
it, BART divides by a quantile of its own, and weights mean something else for each scan.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError, ReconNodeError
from recon_node.core.types import CoilMaps, KSpace

ALONG_TIME, IN_PLANE = 1 << 10, 0b11
"""BART's bit masks of the dimensions that total variation looks along."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BartKt:
    """k-t total variation by ``bart pics``, weights in units of the noise standard deviation.

    They are the best of those tried on two real clips that no comparison shows (Sunnybrook SCD2 and bivme),
    apart for scans whose frames all sample the same points, as the node's k-t has them. At BART's own penalty
    of its ADMM (0.5) so many iterations are far from the minimum: 1 to 2 dB below it.
    """

    label: ClassVar[str] = "BART k-t TV"
    """As tables print it."""

    temporal: float = 0.3
    spatial: float = 0.05
    static_temporal: float = 0.2
    static_spatial: float = 0.15
    penalty: float = 0.02
    """Of ADMM's constraints (``-u``): how quickly it converges, not to what."""
    iterations: int = 60
    static_iterations: int = 150
    """`iterations` where all frames sample the same points: unfolding converges more slowly."""

    def options(self, mask: NDArray[np.bool_]) -> tuple[str, ...]:
        """Of ``bart pics``, for a mask `(phase, ky, kx)`."""
        still = bool((mask == mask[:1]).all())
        temporal = self.static_temporal if still else self.temporal
        spatial = self.static_spatial if still else self.spatial
        iterations = self.static_iterations if still else self.iterations
        return (
            "-w1",
            "-m",
            f"-u{self.penalty:g}",
            f"-i{iterations}",
            f"-RT:{ALONG_TIME}:0:{temporal:g}",
            f"-RT:{IN_PLANE}:0:{spatial:g}",
        )

    def images(self, kspace: KSpace, maps: CoilMaps) -> NDArray[np.complex64]:
        """All frames together, through the first map set.

        Returns
        -------
        ndarray
            `(phase, y, x)` complex64 in the unit of the k-space.

        Raises
        ------
        ConfigError
            There is no command `bart`.
        ReconNodeError
            It failed.
        """
        return pics(kspace, maps, *self.options(kspace.mask))


def pics(kspace: KSpace, maps: CoilMaps, *options: str) -> NDArray[np.complex64]:
    """``bart pics OPTIONS`` of all frames of a slice: `(phase, y, x)` complex64; errors as for `BartKt`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "kspace", frames_last(kspace.data))
        write(folder / "maps", frames_last(maps.data[:1]))
        write(folder / "mask", frames_last(kspace.mask[:, None]))
        run("pics", *options, "-p", folder / "mask", folder / "kspace", folder / "maps", folder / "images")
        images = read(folder / "images")
    ky, kx = kspace.data.shape[2:]
    return np.ascontiguousarray(images.reshape((kx, ky, -1), order="F").transpose(2, 1, 0))


def frames_last(array: NDArray[Any]) -> NDArray[Any]:
    """`(phase, coil, y, x)` as BART wants it: readout, phase encoding, 1, coil, ..., time (dimension 10)."""
    return array.transpose(3, 2, 1, 0)[:, :, None, :, None, None, None, None, None, None, :]


def coil_last(array: NDArray[Any]) -> NDArray[Any]:
    """`(coil, y, x)` as BART wants it: `(x, y, 1, coil)`."""
    return array.transpose(2, 1, 0)[:, :, None, :]


def write(name: Path, array: NDArray[Any]) -> None:
    """Write `array` as BART's pair of files (column-major complex64)."""
    name.with_suffix(".hdr").write_text(
        "# Dimensions\n" + " ".join(map(str, array.shape)) + "\n", encoding="utf-8"
    )
    np.asarray(array, np.complex64).ravel("F").tofile(name.with_suffix(".cfl"))


def read(name: Path) -> NDArray[np.complex64]:
    """What BART wrote, in its own order of dimensions."""
    dimensions = [
        int(n) for n in name.with_suffix(".hdr").read_text(encoding="utf-8").splitlines()[1].split()
    ]
    return np.fromfile(name.with_suffix(".cfl"), np.complex64).reshape(dimensions, order="F")


def run(*arguments: str | Path) -> float:
    """Run `bart ARGUMENTS` on one thread; CPU seconds (user and system) it took; errors as for `BartKt`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(  # noqa: S603 - our own words
        [_command(), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no word why").splitlines()[-1]
        raise ReconNodeError(f"bart {arguments[0]} ended with {done.returncode}: {said}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def version() -> str:
    """As the command tells it; errors as for `BartKt`."""
    done = subprocess.run([_command(), "version"], check=True, capture_output=True, text=True)  # noqa: S603
    return done.stdout.strip()


def _command() -> str:
    found = shutil.which("bart")
    if found is None:
        raise ConfigError(
            "rival bart: there is no command `bart` on the PATH; install BART "
            "(https://mrirecon.github.io/bart), or leave the rival out"
        )
    return found

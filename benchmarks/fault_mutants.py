"""Raw data files changed at random: HDF5 of ISMRMRD and of public data sets, streams of both protocols.

Each goes through ``recon-node replay`` in a process of its own. It has to end by itself, within its time and memory:
with images, or with one line that says what is wrong.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import h5py
import ismrmrd
import numpy as np

from benchmarks.as_mrd2 import as_mrd2
from benchmarks.fault_parts import KINDS, Verdict
from benchmarks.forked import Ended, Forked
from benchmarks.stream_cuts import small_scan
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source

MOST_S = 30.0
_AT_ONCE = 2
_PAIR = np.dtype([("real", "<f4"), ("imag", "<f4")])


def ismrmrd_hdf5(scan: Path, path: Path) -> Path:
    """The scan as the ismrmrd package writes it."""
    with open_source(scan) as source, ismrmrd.Dataset(str(path), "dataset") as file:
        file.write_xml_header(source.headers[0].xml)
        for block in source:
            assert isinstance(block, Readouts)
            for head, samples in zip(block.head, block.samples, strict=True):
                line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples))
                line.idx.kspace_encode_step_1 = int(head["idx"]["kspace_encode_step_1"])
                line.idx.slice, line.center_sample = int(head["idx"]["slice"]), int(head["center_sample"])
                line.read_dir[:], line.phase_dir[:] = head["read_dir"], head["phase_dir"]
                line.slice_dir[:], line.sample_time_us = head["slice_dir"], 5.0
                file.append_acquisition(line)
    return path


def fastmri(scan: Path, path: Path) -> Path:
    with open_source(scan) as source, h5py.File(path, "w") as file:
        file["kspace"] = _noise(2, 2, 12, 12)
        file["ismrmrd_header"] = source.headers[0].xml
        file.attrs["acquisition"] = "AXT2"
    return path


def cmrxrecon(scan: Path, path: Path) -> Path:
    kspace = _noise(2, 2, 2, 12, 12)
    pairs = np.empty(kspace.shape, dtype=_PAIR)
    pairs["real"], pairs["imag"] = kspace.real, kspace.imag
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("kspace_full", data=pairs, chunks=(1, 1, 2, 12, 12), compression="gzip")
    return path


def cmrx4dflow(scan: Path, path: Path) -> Path:
    kspace = _noise(2, 2, 2, 2, 8, 8)
    pairs = np.empty(kspace.shape, dtype=_PAIR)
    pairs["real"], pairs["imag"] = kspace.real, kspace.imag
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("kdata_full", data=pairs, chunks=(1, 1, 2, 2, 8, 8), compression="gzip")
    return path


def _noise(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    values: np.ndarray = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    return values


def ismrmrd_stream(scan: Path, path: Path) -> Path:
    path.write_bytes(scan.read_bytes())
    return path


def mrd2_stream(scan: Path, path: Path) -> Path:
    path.write_bytes(as_mrd2(scan))
    return path


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out, put in or doubled; half of the times near the start or end."""
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        near = rng.randrange(min(len(data), 3000))
        at = rng.choice((near, len(data) - 1 - near, rng.randrange(len(data)), rng.randrange(len(data))))
        data = _changed(data, at, rng) or b"\0"
    return data


def _changed(data: bytes, at: int, rng: random.Random) -> bytes:
    length = rng.choice((1, 2, 4, 8, 40))
    before, found, after = data[:at], data[at : at + length], data[at + length :]
    number = rng.choice((0, 1, 65535, 1 << 20, (1 << 31) - 1)).to_bytes(4, "little")
    return rng.choice(
        (
            before + bytes([found[0] ^ 1 << rng.randrange(8)]) + found[1:] + after,
            before + after,
            before + rng.randbytes(length) + found + after,
            before + rng.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * length + after,
            before + number + data[at + 4 :],
            before + data[at : at + 400] + found + after,
            before if rng.random() < 0.3 else data,
        )
    )


@functools.lru_cache(maxsize=1)
def _helpers() -> SimpleQueue[Forked]:
    helpers: SimpleQueue[Forked] = SimpleQueue()
    stack = contextlib.ExitStack()
    for _ in range(_AT_ONCE):
        helpers.put(stack.enter_context(Forked()))
    atexit.register(stack.close)
    return helpers


def in_a_fork(words: list[str]) -> Ended:
    """One command of the node, as soon as one of the helpers is free."""
    helper = _helpers().get()
    try:
        return helper.run(words, limit_s=MOST_S)
    finally:
        _helpers().put(helper)


def replayed(path: Path, config: Path) -> list[str]:
    out = path.with_name(f"out-{path.stem}")
    return ["replay", str(path), "--out", str(out), "--config", str(config), "-q"]


def mutants(
    name: str,
    write: Callable[[Path, Path], Path],
    file_name: str,
    count: int,
    words: Callable[[Path, Path], list[str]] = replayed,
) -> None:
    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        scan, config = small_scan(folder)
        data = write(scan, folder / file_name).read_bytes()
        rng = random.Random(name)
        number = 8 if short else count

        def tried(number: int, content: bytes) -> Ended:
            path = folder / f"{number}" / file_name
            path.parent.mkdir()
            path.write_bytes(content)
            return in_a_fork(words(path, config))

        contents = [data, *(mutated(data, rng) for _ in range(number - 1))]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for at, ended in enumerate(pool.map(tried, range(number), contents)):
                yield judged(ended, whole=at == 0)

    KINDS.append((f"mutated file: {name}", experiments))


def judged(ended: Ended, *, whole: bool = False) -> Verdict:
    return Verdict(
        lost=int(whole and ended.code != 0),
        stuck=int(ended.hung or not ended.clear),
        dead=int(ended.uncaught),
        peak_mb=ended.peak_mb,
    )


mutants("HDF5 of ISMRMRD", ismrmrd_hdf5, "scan.h5", 900)
mutants("HDF5 of fastMRI", fastmri, "scan.h5", 350)
mutants("HDF5 of CMRxRecon", cmrxrecon, "scan.mat", 350)
mutants("HDF5 of CMRx4DFlow", cmrx4dflow, "kdata.mat", 250)
mutants("ISMRMRD stream", ismrmrd_stream, "scan.mrd", 700)
mutants("MRD 2 stream", mrd2_stream, "scan.mrd", 700)

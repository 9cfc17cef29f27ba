"""Reading raw data: this package beside the ismrmrd package and a single h5py read.

Writes a file of random samples into a temporary folder, reads it in every way in turn, several rounds,
and prints CPU seconds (user and system of this process), the ratio to this package's way, and the peak
memory of one pass relative to the samples. The runs of a stream lie in the file's memory map, where its pages
are present; "into k-space" copies every line to its place in an array, for both alike.

    python -m benchmarks.reading [--lines 2000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import ismrmrd
import numpy as np

from recon_node.core.scan import Readouts
from recon_node.files.open import open_source

XML = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions>
<H1resonanceFrequency_Hz>63870000</H1resonanceFrequency_Hz></experimentalConditions><encoding><encodedSpace>
<matrixSize><x>384</x><y>192</y><z>1</z></matrixSize><fieldOfView_mm><x>700</x><y>350</y><z>8</z>
</fieldOfView_mm></encodedSpace><reconSpace><matrixSize><x>192</x><y>192</y><z>1</z></matrixSize>
<fieldOfView_mm><x>350</x><y>350</y><z>8</z></fieldOfView_mm></reconSpace><encodingLimits/>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""
SHAPE = (16, 384)
LINES = 192
KSPACE = np.zeros((LINES, *SHAPE), np.complex64)


def write(folder: Path, lines: int) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    hdf5, stream = folder / "scan.h5", folder / "scan.mrd"
    header = ismrmrd.xsd.CreateFromDocument(XML)
    with ismrmrd.Dataset(str(hdf5)) as dataset, ismrmrd.ProtocolSerializer(str(stream)) as out:
        dataset.write_xml_header(XML.encode())
        out.serialize(header)
        for line in range(lines):
            data = rng.standard_normal((*SHAPE, 2), dtype=np.float32).view(np.complex64)[..., 0]
            acquisition = ismrmrd.Acquisition.from_array(data)
            acquisition.idx.kspace_encode_step_1 = line % LINES
            dataset.append_acquisition(acquisition)
            out.serialize(acquisition)
    return hdf5, stream


def whole(path: Path) -> int:
    """Every sample in arrays, as the preparation takes them."""
    with open_source(path) as source:
        return sum(len(block) for block in source if isinstance(block, Readouts))


def acquisition_loop(path: Path) -> int:
    with ismrmrd.Dataset(str(path), mode="r") as dataset:
        acquisitions = [dataset.read_acquisition(i) for i in range(dataset.number_of_acquisitions())]
    return len(acquisitions)


def one_read(path: Path) -> int:
    """The whole table at once; its samples are still one object a row, not yet one array."""
    with h5py.File(path) as file:
        return len(file["dataset/data"][:])


def one_read_stacked(path: Path) -> int:
    with h5py.File(path) as file:
        table = file["dataset/data"][:]
    return len(np.stack(table["data"]).view(np.complex64).reshape(len(table), *SHAPE))


def deserializer(path: Path) -> int:
    with ismrmrd.ProtocolDeserializer(str(path)) as stream:
        return sum(isinstance(item, ismrmrd.Acquisition) for item in stream.deserialize())


def whole_into(path: Path) -> int:
    """Every line at its place in a slice's k-space, which is used again slice after slice."""
    with open_source(path) as source:
        for block in source:
            if isinstance(block, Readouts):
                rows = block.head["idx"]["kspace_encode_step_1"]
                for first in range(0, len(block), LINES):
                    part = slice(first, first + LINES)
                    KSPACE[rows[part]] = block.samples[part]
    return LINES


def deserializer_into(path: Path) -> int:
    with ismrmrd.ProtocolDeserializer(str(path)) as stream:
        for item in stream.deserialize():
            if isinstance(item, ismrmrd.Acquisition):
                KSPACE[item.idx.kspace_encode_step_1] = item.data
    return LINES


def cpu_seconds(task: Callable[[Path], int], path: Path) -> float:
    start = time.process_time()
    task(path)
    return time.process_time() - start


def high_water_mark() -> int:
    """Peak memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def peak_bytes(path: Path) -> int:
    """Peak memory of a process that reads the file, above that of one that only imports."""
    peaks = []
    for body in ("0", f"whole(Path({str(path)!r}))"):
        code = f"from benchmarks.reading import *; {body}; print(high_water_mark())"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(out.stdout))
    return peaks[1] - peaks[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        hdf5, stream = write(Path(name), options.lines)
        size = options.lines * int(np.prod(SHAPE)) * 8
        tasks: list[tuple[str, Callable[[Path], int], Path]] = [
            ("HDF5: this package", whole, hdf5),
            ("HDF5: h5py, one read of the table", one_read, hdf5),
            ("HDF5: h5py, one read and one array", one_read_stacked, hdf5),
            ("HDF5: read_acquisition(i) loop", acquisition_loop, hdf5),
            ("stream: this package", whole, stream),
            ("stream: ismrmrd.ProtocolDeserializer", deserializer, stream),
            ("stream: this package, into k-space", whole_into, stream),
            ("stream: Deserializer, into k-space", deserializer_into, stream),
        ]
        times: dict[str, list[float]] = {label: [] for label, _, _ in tasks}
        for turn in range(options.rounds):
            for label, task, path in tasks:
                if task is not acquisition_loop or turn < 2:
                    times[label].append(cpu_seconds(task, path))
        peaks = {path: peak_bytes(path) for path in (hdf5, stream)}
    print(f"{options.lines} readouts of {SHAPE[0]} channels x {SHAPE[1]} samples, {size / 1e6:.0f} MB")
    for label, _, path in tasks:
        ours = "HDF5: this package" if path == hdf5 else "stream: this package"
        base = min(times[ours + ", into k-space" if label.endswith("k-space") else ours])
        print(f"{label:38s} {min(times[label]):8.3f} s CPU {min(times[label]) / base:8.2f}x")
    for path, peak in peaks.items():
        print(
            f"peak memory of a pass, {path.suffix[1:]}: {peak / 1e6:.0f} MB, {peak / size:.2f} of the samples"
        )


if __name__ == "__main__":
    main()

"""Preparation of a whole cine beside its network reconstruction, and the memory it takes.

Readouts of random samples (24 coils, twofold oversampling, 4x random lines with 20 ACS lines, 25 phases)
are whitened, trimmed, sorted and classified slice by slice; the CPU seconds of all slices stand beside
those of CardioMM on the same machine, measured on a few frames and scaled to all.

    python -m benchmarks.preparation [--slices 10] [--frames 3]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recon_node.coils import espirit
from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.errors import ModelError
from recon_node.core.scan import Limit, Readouts, ScanHeader
from recon_node.core.types import KSpace, TextEmbedding
from recon_node.methods.cardiomm import CardioMMReconstructor
from recon_node.model import load_weights
from recon_node.prep import Preparation

SIZE, FULL, PHASES, COILS = 192, 384, 25, 24
BLOCK = 64


def header(slices: int) -> ScanHeader:
    limits = {"phase": PHASES, "slice": slices, "average": 1}
    return ScanHeader(
        encoded_matrix=(FULL, SIZE, 1),
        encoded_fov_mm=(700.0, 350.0, 8.0),
        recon_matrix=(SIZE, SIZE, 1),
        recon_fov_mm=(350.0, 350.0, 8.0),
        limits={name: Limit(minimum=0, maximum=size - 1, center=0) for name, size in limits.items()},
    )


def readouts(rng: np.random.Generator, slices: int) -> Iterator[Readouts]:
    """A noise scan, then slice after slice; the samples are drawn once and used again."""
    noise = np.zeros(BLOCK, dtype=ACQUISITION_HEADER)
    noise["flags"] = int(AcquisitionFlag.IS_NOISE_MEASUREMENT)
    noise["number_of_samples"], noise["active_channels"], noise["sample_time_us"] = FULL, COILS, 5
    samples = rng.standard_normal((BLOCK, COILS, 2 * FULL), dtype=np.float32).view(np.complex64)
    yield Readouts(head=noise, samples=samples)
    mask = rng.random((PHASES, SIZE)) < 0.25
    mask[:, SIZE // 2 - 10 : SIZE // 2 + 10] = True
    phase, line = np.nonzero(mask)
    head = np.zeros(len(phase), dtype=ACQUISITION_HEADER)
    head["number_of_samples"], head["active_channels"], head["sample_time_us"] = FULL, COILS, 5
    head["center_sample"] = FULL // 2
    head["idx"]["phase"], head["idx"]["kspace_encode_step_1"] = phase, line
    head["flags"][-1] = int(AcquisitionFlag.LAST_IN_SLICE)
    for number in range(slices):
        head["idx"]["slice"] = number
        for first in range(0, len(head), BLOCK):
            part = head[first : first + BLOCK].copy()
            yield Readouts(head=part, samples=samples[: len(part)])


def memory(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def prepare(slices: int) -> tuple[float, int, int, KSpace]:
    """CPU seconds, peak memory above the start, bytes of one slice, the last slice."""
    preparation = Preparation((header(slices),))
    start, seconds, found = memory("VmRSS"), 0.0, 0
    last: KSpace | None = None
    for block in readouts(np.random.default_rng(0), slices):
        begin = time.process_time()
        for kspace in preparation.feed(block):
            found, last = found + 1, kspace
        seconds += time.process_time() - begin
    if last is None or found != slices:
        raise SystemExit(f"{found} of {slices} slices left the preparation")
    return seconds, memory("VmHWM") - start, last.data.nbytes, last


def network(kspace: KSpace, frames: int) -> float:
    """CPU seconds of CardioMM for all frames of a slice, from a few of them."""
    loaded = load_weights("default")
    few = dataclasses.replace(
        kspace,
        data=kspace.data[:frames],
        mask=kspace.mask[:frames],
        trigger_times_ms=None,
        acquisition_times_s=None,
    )
    if kspace.calibration is None:
        raise SystemExit("no calibration lines")
    maps = espirit(kspace.calibration, (SIZE, SIZE))
    features = loaded.config.text_features
    vector = np.random.default_rng(0).standard_normal(features).astype(np.float32)
    text = TextEmbedding(
        metadata=vector,
        undersampling=vector,
        encoder=loaded.encoder,
        encoder_sha256=loaded.encoder_sha256 or "",
    )
    runner = CardioMMReconstructor(loaded, device="cpu", threads=1)
    runner.reconstruct(few, maps, text)
    begin = time.process_time()
    runner.reconstruct(few, maps, text)
    return (time.process_time() - begin) * len(kspace.data) / frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--frames", type=int, default=3)
    options = parser.parse_args()
    seconds, peak, size, kspace = prepare(options.slices)
    print(f"preparation of {options.slices} slices x {PHASES} phases x {COILS} coils: {seconds:.2f} s CPU")
    print(f"peak memory: {peak / 1e6:.0f} MB, {peak / size:.2f} of one slice ({size / 1e6:.0f} MB)")
    print("in flight at the peak: the slice that is being filled, and the one that left before it")
    try:
        model = network(kspace, options.frames) * options.slices
    except ModelError as error:
        print(f"network not measured: {error}")
        return
    print(f"network reconstruction: {model:.1f} s CPU; preparation takes 1/{model / seconds:.0f} of it")


if __name__ == "__main__":
    main()

"""What coil compression costs on hearts: virtual coils beside all of them, the same scans and methods.

`python -m benchmarks.compression --hearts FOLDER [--scans N] [--coils N]`

Real hearts, cut to the part around the heart, scanned with many coils and undersampled; every method
reconstructs from all coils and from as many virtual ones as the node takes by default. Printed is the PSNR that
is lost, dB, mean and worst over the scans, and the CPU time of the slice with and without.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from recon_node.core.types import KSpace
from recon_node.lab.cines import read_cines
from recon_node.lab.evaluation.hearts import HeartCase, HeartStudy, around_heart, few, heart_cases
from recon_node.lab.evaluation.metrics import series_metrics
from recon_node.methods.kt import KtSparse
from recon_node.methods.sense import Sense
from recon_node.pipeline.stages import calibrate
from recon_node.prep import compress_coils

CONDITIONS = (("uniform", 4), ("random", 8))
METHODS = {"SENSE": Sense(device="cpu"), "k-t sparse": KtSparse(device="cpu")}


def quality(case: HeartCase, kspace: KSpace, method: str) -> tuple[float, float, float]:
    """PSNR around the heart and of the whole image, and CPU seconds with the coil maps'."""
    start = time.process_time()
    images = METHODS[method].reconstruct(kspace, calibrate(kspace)).data
    seconds = time.process_time() - start
    part = (slice(None), *case.window)
    within = series_metrics(images[part], case.truth[part], normalise=False).psnr
    return within, series_metrics(images, case.truth, normalise=False).psnr, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hearts", type=Path, required=True, help="folder of cines")
    parser.add_argument("--scans", type=int, default=3)
    parser.add_argument("--coils", type=int, default=30)
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cines = few(read_cines(options.hearts, tell=lambda line: None), options.scans)
    study = HeartStudy(
        cines=tuple(around_heart(cine, 128, options.frames) for cine in cines),
        conditions=CONDITIONS,
        coils=options.coils,
    )
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    kept = []
    for case in heart_cases(study):
        fewer = compress_coils(case.kspace)
        kept.append(fewer.data.shape[1])
        for method in METHODS:
            whole, part = quality(case, case.kspace, method), quality(case, fewer, method)
            loss = (whole[0] - part[0], whole[1] - part[1], part[2] / whole[2])
            found.setdefault((case.condition, method), []).append(loss)
            print(f"# {case.scan} {case.condition} {method}: {fewer.data.shape[1]} coils, {loss}", flush=True)
    print(f"{options.coils} coils, {min(kept)} to {max(kept)} virtual ones, {len(cines)} hearts\n")
    print("| condition | method | heart, mean | worst | whole, mean | worst | CPU time |")
    print("|---|---|---|---|---|---|---|")
    for (condition, method), some in found.items():
        mean, worst = np.mean(some, axis=0), np.max(some, axis=0)
        figures = " | ".join(f"{value:.2f}" for value in (mean[0], worst[0], mean[1], worst[1]))
        print(f"| {condition} | {method} | {figures} | x {mean[2]:.2f} |")


if __name__ == "__main__":
    main()

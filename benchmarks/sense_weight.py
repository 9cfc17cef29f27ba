"""How far SENSE's own weight is from the best Tikhonov weight, on drawn and on real hearts.

`python -m benchmarks.sense_weight [--hearts FOLDER] [--scans N]`

Each scan under each condition is solved with every weight of a fine grid; printed is what the weight that the
node chose loses against the best of them, dB, mean and worst over the scans, in the whole image and around the
heart (each with a best weight of its own), and the least that one weight for both must lose in one of them.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.lab.cines import read_cines
from recon_node.lab.evaluation.hearts import few
from recon_node.lab.evaluation.heldout import SALT, kspace_of
from recon_node.lab.evaluation.metrics import series_metrics
from recon_node.pipeline.stages import calibrate
from recon_node.simulate import draw_example, draw_mask
from recon_node.simulate.cine import scan_of_cine, scan_window
from recon_node.simulate.example import FullScan
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.tikhonov import tikhonov
from recon_node.solvers.weight import solutions, tikhonov_weight

WEIGHTS = np.geomspace(3e-4, 0.5, 18)
CONDITIONS = (
    ("uniform", 4),
    ("uniform", 8),
    ("random", 8),
    ("random", 16),
    ("radial", 8),
    ("radial", 16),
)
FRAMES = 2
COILS = (8, 12, 16, 24)


def scans(folder: Path | None, count: int) -> Iterator[tuple[str, FullScan, list[int]]]:
    """Fully sampled scans with their kind and the numbers that their masks are drawn from."""
    for number in range(count):
        entropy = [*SALT, 3, number]
        rng = np.random.default_rng(entropy)
        coils = COILS[number % len(COILS)]
        yield (
            "drawn",
            draw_example(rng, matrix=(128, 128), phases=FRAMES, coils=coils, modality="cine"),
            entropy,
        )
    if folder is None:
        return
    for cine in few(read_cines(folder, tell=lambda line: None), count):
        entropy = [*SALT, 3, crc32(cine.name.encode())]
        step = max(1, len(cine.images) // FRAMES)
        short = dataclasses.replace(
            cine,
            images=cine.images[::step][:FRAMES],
            trigger_times_ms=None,
            phase_axis=cine.encoded_axis,
        )
        yield "real", scan_of_cine(np.random.default_rng(entropy), short), entropy


def losses(scan: FullScan, entropy: list[int], pattern: str, rate: float) -> NDArray[np.float64]:
    """What the chosen weight loses, dB: in the whole image, around the heart; then what one weight must lose."""
    shape = (FRAMES, *scan.kspace.shape[-2:])
    mask = draw_mask(pattern, rate, shape=shape, acs=20, rng=np.random.default_rng([*entropy, 1]))
    kspace = kspace_of(scan, mask, acs=20)
    maps = calibrate(kspace)
    window: tuple[Any, ...] = (slice(None), *scan_window(scan))
    operator = SenseOperator(maps.data, mask, torch.device("cpu"))
    target = operator.matched(kspace.data)

    def quality(solved: torch.Tensor) -> tuple[float, float]:
        images = operator.to_grid(solved)[:, 0]
        return (
            series_metrics(images, scan.images, normalise=False).psnr,
            series_metrics(images[window], scan.images[window], normalise=False).psnr,
        )

    def solve(weight: float) -> torch.Tensor:
        return tikhonov(operator, target, weight, iterations=60)

    if operator.lines:
        every = [solve(float(weight)) for weight in WEIGHTS]
    else:  # the same conjugate gradients, all weights at once
        frames = [SenseOperator(maps.data, mask[i : i + 1], operator.device) for i in range(FRAMES)]
        found = [solutions(one, target[i : i + 1], WEIGHTS) for i, one in enumerate(frames)]
        every = [torch.cat(parts) for parts in zip(*found, strict=True)]
    tried = np.array([quality(one) for one in every])
    chosen = np.array(quality(solve(tikhonov_weight(kspace.data, mask, maps.data))))
    lost = tried.max(axis=0) - tried
    return np.append(np.maximum(tried.max(axis=0) - chosen, 0), lost.max(axis=1).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hearts", type=Path, help="folder of cines")
    parser.add_argument("--scans", type=int, default=4, help="of each kind")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for kind, scan, entropy in scans(options.hearts, options.scans):
        for pattern, rate in CONDITIONS:
            one = losses(scan, entropy, pattern, rate)
            found.setdefault((kind, f"{pattern} {rate}x"), []).append(one)
    print("| hearts | condition | whole, mean | worst | heart, mean | worst | any weight, mean | worst |")
    print("|---" * 8 + "|")
    for (kind, condition), some in found.items():
        mean, worst = np.mean(some, axis=0), np.max(some, axis=0)
        figures = " | ".join(f"{value:.2f}" for pair in zip(mean, worst, strict=True) for value in pair)
        print(f"| {len(some)} {kind} | {condition} | {figures} |")


if __name__ == "__main__":
    main()

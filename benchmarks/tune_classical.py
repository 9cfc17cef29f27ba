"""Tune the classical reconstructors on simulated hearts and print what was chosen.

`python -m benchmarks.tune_classical [--hearts N] [--phases N] [--matrix N]`

Every method sees the same undersampled k-space and the same ESPIRiT maps. The figure is the mean over
frames of the peak signal-to-noise ratio of magnitude images; a setting is chosen by its mean over all
hearts and sampling patterns. The seeds are not those of any training or evaluation run.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.coils import calibration_region, espirit
from recon_node.core.scan import SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, KSpace, Sampling
from recon_node.methods.kt import KtSparse
from recon_node.methods.l1_wavelet import L1Wavelet
from recon_node.methods.sense import Sense
from recon_node.methods.view_sharing import ViewSharing
from recon_node.methods.zero_filled import ZeroFilled
from recon_node.simulate import draw_example, draw_mask
from recon_node.solvers.kt import KtConfig

FIRST_SEED = 900_000
CASES = (("random", 4), ("random", 8), ("random", 16), ("uniform", 8), ("uniform", 24), ("radial", 16))
GRIDS: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "zero-filled": (ZeroFilled, [{}]),
    "view-sharing": (ViewSharing, [{}]),
    "sense": (
        Sense,
        [{"regularisation": r, "iterations": i} for r in (0.0003, 0.001, 0.003, 0.01) for i in (15, 30, 60)],
    ),
    "l1-wavelet": (
        L1Wavelet,
        [{"regularisation": r, "iterations": i} for r in (0.03, 0.06, 0.12, 0.25) for i in (60, 150, 300)],
    ),
    "kt": (
        KtSparse,
        [
            {"config": KtConfig(temporal=t, spatial=s, air=a)}
            for t in (0.25, 0.3, 0.5)
            for s in (0.01, 0.03, 0.05)
            for a in (0, 0.2)
        ],
    ),
    "kt, one frame": (
        KtSparse,
        [{"config": KtConfig(single_spatial=s)} for s in (0.03, 0.05, 0.08, 0.12)],
    ),
    "kt, same lines": (
        KtSparse,
        [
            {"config": KtConfig(static_temporal=t, static_spatial=s, unfolding_iterations=i, air=a)}
            for t in (0.06, 0.12, 0.25)
            for s in (0.01, 0.02, 0.04)
            for i in (30, 60, 120)
            for a in (0, 0.2)
        ],
    ),
}


def psnr(images: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean over frames, dB."""
    difference = np.abs(images) - np.abs(truth)
    error = np.sqrt(np.mean(difference**2, axis=(1, 2)))
    return float(np.mean(20 * np.log10(np.abs(truth).max(axis=(1, 2)) / error)))


def problems(
    hearts: int, phases: int, matrix: int
) -> Iterator[tuple[str, KSpace, CoilMaps, NDArray[np.complex64]]]:
    """Case name, undersampled k-space, maps and truth."""
    for seed in range(FIRST_SEED, FIRST_SEED + hearts):
        rng = np.random.default_rng(seed)
        example = draw_example(rng, matrix=(matrix, matrix), phases=phases, modality="cine")
        for pattern, rate in CASES:
            mask = draw_mask(pattern, rate, shape=(phases, matrix, matrix), acs=20, rng=rng)
            data = example.kspace * mask[:, None]
            maps = espirit(calibration_region(data, mask), (matrix, matrix))
            yield f"{pattern} {rate}", as_kspace(data, mask, example.header), maps, example.images


def as_kspace(data: NDArray[np.complex64], mask: NDArray[np.bool_], header: Any) -> KSpace:
    return KSpace(
        data=data,
        mask=mask,
        header=header,
        index=SliceIndex(),
        geometry=SliceGeometry(
            position_mm=(0, 0, 0),
            read_dir=(1, 0, 0),
            phase_dir=(0, 1, 0),
            slice_dir=(0, 0, 1),
            fov_mm=header.recon_fov_mm,
            known=False,
        ),
        sampling=Sampling(
            pattern="unknown", acceleration=1, effective_acceleration=float(1 / mask.mean()), acs=20
        ),
        whitened=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hearts", type=int, default=3)
    parser.add_argument("--phases", type=int, default=25)
    parser.add_argument("--matrix", type=int, default=128)
    parser.add_argument("--methods", nargs="*", default=list(GRIDS))
    options = parser.parse_args()
    results: dict[tuple[str, str], dict[str, list[float]]] = {}
    for case, kspace, maps, truth in problems(options.hearts, options.phases, options.matrix):
        for method in options.methods:
            make, settings = GRIDS[method]
            frames = slice(1 if method.endswith("one frame") else None)
            scan = dataclasses.replace(kspace, data=kspace.data[frames], mask=kspace.mask[frames])
            for setting in settings:
                found = psnr(make(**setting).reconstruct(scan, maps).data, truth[frames])
                row = results.setdefault((method, repr(setting)), {})
                row.setdefault(case, []).append(found)
    names = [f"{pattern} {rate}" for pattern, rate in CASES]
    print(f"PSNR in dB, mean of {options.hearts} hearts\n| method | setting | {' | '.join(names)} | mean |")
    print("|---" * (len(names) + 3) + "|")
    best: dict[str, tuple[float, str]] = {}
    for (method, setting), row in results.items():
        figures = [float(np.mean(row[name])) for name in names]
        mean = float(np.mean(figures))
        print(f"| {method} | {setting} | {' | '.join(f'{f:.2f}' for f in figures)} | {mean:.2f} |")
        best[method] = max(best.get(method, (-np.inf, "")), (mean, setting))
    for method, (mean, setting) in best.items():
        print(f"chosen for {method}: {setting} ({mean:.2f} dB)")


if __name__ == "__main__":
    main()

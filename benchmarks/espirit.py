"""ESPIRiT beside BART's ecalib and sigpy's EspiritCalib: CPU seconds, projection residual, map error.

`OMP_NUM_THREADS=1 python -m benchmarks.espirit [--size N] [--coils 8 16 32] [--repeat N] [--hard]`

All three get the same k-space, calibrate on its 24 x 24 centre with 6 x 6 kernels and cut the
singular values at the same level (0.02 of the largest; BART's -t counts their squares). Runs are
interleaved and one thread each; BART's time includes starting it and reading and writing files. The SENSE
error is that of one CG-SENSE with each one's maps. ``--hard``: few calibration lines, low signal, 4 and 64
coils, a field of view that wraps, and how slices scale.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from benchmarks.tune_classical import as_kspace
from recon_node.coils import espirit, espirit_slices
from recon_node.coils.eigenmaps import Operator, dominant, operator_samples
from recon_node.coils.espirit import GRID, virtual_coil
from recon_node.coils.kernels import signal_kernels
from recon_node.core.fft import centred_fft
from recon_node.core.scan import ScanHeader
from recon_node.core.types import CoilMaps
from recon_node.lab.evaluation import bart
from recon_node.methods.sense import Sense

THRESHOLD = 0.02
ACS = 24


def object_and_maps(size: int, coils: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """A body with texture, a ring of coils of unit norm."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angle = 2 * np.pi * (np.arange(coils)[:, None, None] + 0.1 * rng.standard_normal((coils, 1, 1))) / coils
    cy, cx = y - 1.3 * np.sin(angle), x - 1.3 * np.cos(angle)
    distance = cy**2 + cx**2
    phase = np.arctan2(cy, cx) + 0.5 * distance + rng.uniform(0, 2 * np.pi, (coils, 1, 1))
    maps = np.exp(1j * phase) / (distance + 0.3)
    maps /= np.linalg.norm(maps, axis=0)
    body = (x / 0.85) ** 2 + (y / 0.62) ** 2 < 1
    image = body * np.exp(1j * (0.5 * x + 0.3 * y * y))
    for centre, radii, level in (
        (-0.4, (0.25, 0.4), 0.15),
        (0.42, (0.22, 0.38), 0.2),
        (0.1, (0.18, 0.2), 1.5),
    ):
        image[((x - centre) / radii[0]) ** 2 + (y / radii[1]) ** 2 < 1] *= level
    image *= 1 + 0.2 * rng.standard_normal(y.shape)
    return image, maps, body


def measured(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def with_bart(kspace: NDArray[Any], acs: int, sets: int = 1) -> tuple[float, NDArray[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        bart.write(Path(folder, "k"), bart.coil_last(kspace))
        names = [Path(folder, name) for name in ("k", "s", "e")]
        seconds = bart.run("ecalib", f"-m{sets}", f"-r{acs}", "-k6", f"-t{THRESHOLD**2}", *names)
        maps = bart.read(names[1])
        return seconds, maps.reshape(*maps.shape[:2], -1, sets, order="F").transpose(3, 2, 1, 0)


def with_sigpy(kspace: NDArray[Any], acs: int) -> NDArray[Any]:
    from sigpy.mri.app import EspiritCalib

    app = EspiritCalib(kspace, calib_width=acs, thresh=THRESHOLD, kernel_width=6, crop=0.8, show_pbar=False)
    return app.run()


def quality(
    found: NDArray[Any], maps: NDArray[Any], images: NDArray[Any], where: NDArray[np.bool_]
) -> tuple[float, float]:
    """(projection residual, error to the true maps), relative norms over the pixels `where`."""
    found, maps, images = found[:, where], maps[:, where], images[:, where]
    found = found / np.maximum(np.linalg.norm(found, axis=0), 1e-9)
    left = images - found * np.sum(found.conj() * images, axis=0)
    turned = maps * np.exp(1j * np.angle(np.sum(maps.conj() * found, axis=0)))
    return (
        float(np.linalg.norm(left) / np.linalg.norm(images)),
        float(np.linalg.norm(found - turned) / np.linalg.norm(maps)),
    )


def sense_error(
    found: NDArray[Any], kspace: NDArray[Any], image: NDArray[Any], where: NDArray[np.bool_]
) -> float:
    """Relative error of the magnitudes of a CG-SENSE image from every third line, made with these maps."""
    size = kspace.shape[-1]
    mask = np.zeros((1, *kspace.shape[1:]), dtype=bool)
    mask[:, size // 2 % 3 :: 3] = True
    mask[:, size // 2 - 12 : size // 2 + 12] = True
    maps = CoilMaps(data=found[None].astype(np.complex64), support=np.abs(found).sum(axis=0) > 0)
    made = Sense(iterations=30, device="cpu").reconstruct(
        as_kspace((kspace * mask)[None], mask, header(size)), maps
    )
    wrong = (np.abs(made.data[0]) - np.abs(image))[where]
    return float(np.linalg.norm(wrong) / np.linalg.norm(image[where]))


def header(size: int) -> ScanHeader:
    return ScanHeader(
        encoded_matrix=(size, size, 1),
        encoded_fov_mm=(300.0, 300.0, 8.0),
        recon_matrix=(size, size, 1),
        recon_fov_mm=(300.0, 300.0, 8.0),
    )


def compare(size: int, coils: int, acs: int, snr: float, repeat: int, *, sigpy: bool = True) -> None:
    rng = np.random.default_rng(coils)
    image, maps, body = object_and_maps(size, coils, rng)
    images = snr * maps * image
    noise = rng.standard_normal((2, *images.shape)) / np.sqrt(2)
    kspace = (centred_fft(images) + noise[0] + 1j * noise[1]).astype(np.complex64)
    centre = slice(size // 2 - acs // 2, size // 2 + acs // 2)
    calibration = kspace[:, centre, centre]
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", "fft", "bart", "sigpy")}
    found: dict[str, Any] = {}
    for turn in range(repeat):
        took, result = measured(lambda: espirit(calibration, (size, size), threshold=THRESHOLD))
        seconds["ours"].append(took)
        found["ours"] = result.data[0]
        seconds["fft"].append(measured(lambda: scipy.fft.fft2(kspace))[0])
        if turn < 3:
            took, sets = with_bart(kspace, acs)
            found["bart"] = sets[0]
            seconds["bart"].append(took)
        if sigpy and not turn:
            took, found["sigpy"] = measured(lambda: with_sigpy(kspace, acs))
            seconds["sigpy"].append(took)
    where = body.copy()
    for result in found.values():
        where &= np.abs(result).sum(axis=0) > 0
    median = {name: float(np.median(values)) for name, values in seconds.items() if values}
    figures = {name: quality(result, maps, images, where) for name, result in found.items()}
    blurred = {name: sense_error(unit(result), kspace, snr * image, where) for name, result in found.items()}
    ratios = [f"{median[name] / median['ours']:.0f}x" if name in median else "" for name in ("bart", "sigpy")]
    print(
        f"| {coils} | {acs} | {snr:g} | {ratios[0]} | {ratios[1]} | {median['ours'] / median['fft']:.1f}x"
        f" | {' / '.join(f'{figure[0]:.5f}' for figure in figures.values())}"
        f" | {' / '.join(f'{figure[1]:.5f}' for figure in figures.values())}"
        f" | {' / '.join(f'{value:.4f}' for value in blurred.values())} | {peak_mb(calibration, size):.0f} |",
        flush=True,
    )


def unit(maps: NDArray[Any]) -> NDArray[Any]:
    return maps / np.maximum(np.linalg.norm(maps, axis=0), 1e-9)


def peak_mb(calibration: NDArray[Any], size: int) -> float:
    tracemalloc.start()
    espirit(calibration, (size, size), threshold=THRESHOLD)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def compare_folded(size: int, coils: int) -> None:
    """A field of view of 0.6 of the image along y: share of the coil images that the maps cannot explain."""
    rng = np.random.default_rng(1)
    image, maps, body = object_and_maps(size, coils, rng)
    keep = round(0.6 * size) // 2 * 2
    images = np.zeros((coils, keep, size), complex)
    layers = np.zeros((keep, size), int)
    for row in range(size):
        images[:, row % keep] += 40 * (maps * image)[:, row]
        layers[row % keep] += body[row]
    noise = rng.standard_normal((2, *images.shape)) / np.sqrt(2)
    kspace = (centred_fft(images) + noise[0] + 1j * noise[1]).astype(np.complex64)
    calibration = kspace[:, keep // 2 - 12 : keep // 2 + 12, size // 2 - 12 : size // 2 + 12]
    found = {
        "ours, one set": espirit(calibration, (keep, size), threshold=THRESHOLD).data,
        "ours, two sets": espirit(calibration, (keep, size), threshold=THRESHOLD, maps=2).data,
        "BART, two sets": with_bart(kspace, ACS, sets=2)[1],
    }
    print("| folded field of view | not explained, one layer | two layers |\n|---|---|---|")
    for name, basis in found.items():
        figures = [f"{unexplained(basis, images, layers == n):.4f}" for n in (1, 2)]
        print(f"| {name} | {figures[0]} | {figures[1]} |", flush=True)


def unexplained(basis: NDArray[Any], images: NDArray[Any], where: NDArray[np.bool_]) -> float:
    vectors, signal = basis.transpose(2, 3, 1, 0)[where], images.transpose(1, 2, 0)[where][..., None]
    left = signal - vectors @ (np.linalg.pinv(vectors, rcond=1e-3) @ signal)
    return float(np.linalg.norm(left) / np.linalg.norm(signal))


def compare_slices(size: int, coils: int) -> None:
    """Seconds by number of slices and workers, and what a batch over slices would save."""
    rng = np.random.default_rng(2)
    image, maps, _ = object_and_maps(size, coils, rng)
    noise = rng.standard_normal((2, coils, size, size)) / np.sqrt(2)
    kspace = (centred_fft(40 * maps * image) + noise[0] + 1j * noise[1]).astype(np.complex64)
    centre = slice(size // 2 - ACS // 2, size // 2 + ACS // 2)
    block = kspace[:, centre, centre]
    espirit(block, (size, size))
    cores = len(os.sched_getaffinity(0))
    print(f"| slices | workers | ms CPU a slice | ms wall a slice | ({cores} cores)\n|---|---|---|---|")
    for slices, workers in ((4, 1), (24, 1), (24, 2)):
        runs = [
            timed(lambda s=slices, w=workers: espirit_slices([block] * s, (size, size), workers=w))
            for _ in range(3)
        ]
        cpu, wall = (1e3 * min(run[i] for run in runs) / slices for i in (0, 1))
        print(f"| {slices} | {workers} | {cpu:.1f} | {wall:.1f} |", flush=True)
    virtual = virtual_coil(block.astype(complex))
    operator = Operator(operator_samples(signal_kernels(block.astype(complex), 6, THRESHOLD)))
    grid = operator.on_grid(np.arange(GRID) / GRID, np.arange(GRID) / GRID)
    start = np.broadcast_to(virtual[:, None], (len(grid), coils, 1))
    single = min(timed(lambda: [dominant(grid, start) for _ in range(8)])[0] for _ in range(3))
    stack, starts = np.concatenate([grid] * 8), np.concatenate([start] * 8)
    batch = min(timed(lambda: dominant(stack, starts))[0] for _ in range(3))
    print(f"eigenvectors of 8 slices: {1e3 * single:.1f} ms one by one, {1e3 * batch:.1f} ms as one batch")


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """(CPU, wall) seconds of this process."""
    start, begin = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - start, time.perf_counter() - begin


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--coils", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--snr", type=float, default=40.0)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--hard", action="store_true")
    options = parser.parse_args()
    print(f"{options.size} x {options.size}, 6 x 6 kernels, one thread, medians of CPU seconds")
    print(
        "| coils | ACS | SNR | faster than BART | than sigpy | times coil FFTs | residual ours/BART/sigpy"
        " | map error ours/BART/sigpy | SENSE error ours/BART/sigpy | peak MB |"
    )
    print("|---" * 10 + "|")
    if not options.hard:
        for coils in options.coils:
            compare(options.size, coils, ACS, options.snr, options.repeat)
        return
    for coils, acs, snr in ((4, 24, 40.0), (8, 12, 40.0), (8, 24, 5.0)):
        compare(options.size, coils, acs, snr, options.repeat)
    compare(options.size, 64, ACS, options.snr, 1, sigpy=False)
    compare_folded(options.size, 8)
    compare_slices(options.size, 16)


if __name__ == "__main__":
    main()

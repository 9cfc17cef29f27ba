"""ESPIRiT beside BART's ecalib and sigpy's EspiritCalib: CPU seconds, projection residual, map error.

`OMP_NUM_THREADS=1 python -m benchmarks.espirit [--size N] [--coils 8 16 32] [--repeat N]`

All three get the same k-space, calibrate on its 24 x 24 centre with 6 x 6 kernels and cut the
singular values at the same level (0.02 of the largest; BART's -t counts their squares). Runs are
interleaved and one thread each; BART's time includes starting it and reading and writing files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import bart
from recon_node.coils import espirit
from recon_node.core.fft import centred_fft

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


def with_bart(kspace: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        bart.write(Path(folder, "k"), bart.coil_last(kspace))
        names = [Path(folder, name) for name in ("k", "s", "e")]
        seconds = bart.run("ecalib", "-m1", f"-r{ACS}", "-k6", f"-t{THRESHOLD**2}", *names)
        return seconds, bart.coil_first(bart.read(names[1]))


def with_sigpy(kspace: NDArray[Any]) -> NDArray[Any]:
    from sigpy.mri.app import EspiritCalib

    app = EspiritCalib(kspace, calib_width=ACS, thresh=THRESHOLD, kernel_width=6, crop=0.9, show_pbar=False)
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


def compare(size: int, coils: int, snr: float, repeat: int) -> None:
    rng = np.random.default_rng(coils)
    image, maps, body = object_and_maps(size, coils, rng)
    images = snr * maps * image
    noise = rng.standard_normal((2, *images.shape)) / np.sqrt(2)
    kspace = (centred_fft(images) + noise[0] + 1j * noise[1]).astype(np.complex64)
    centre = slice(size // 2 - ACS // 2, size // 2 + ACS // 2)
    calibration = kspace[:, centre, centre]
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", "bart", "sigpy", "fft")}
    found: dict[str, Any] = {}
    for _ in range(repeat):
        took, result = measured(lambda: espirit(calibration, (size, size), threshold=THRESHOLD))
        seconds["ours"].append(took)
        found["ours"] = result.data[0]
        seconds["fft"].append(measured(lambda: np.fft.fft2(kspace))[0])
        took, found["bart"] = with_bart(kspace)
        seconds["bart"].append(took)
    took, found["sigpy"] = measured(lambda: with_sigpy(kspace))
    seconds["sigpy"].append(took)
    tracemalloc.start()
    espirit(calibration, (size, size), threshold=THRESHOLD)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    where = body.copy()
    for result in found.values():
        where &= np.abs(result).sum(axis=0) > 0
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    figures = {name: quality(result, maps, images, where) for name, result in found.items()}
    ratios = [
        median["bart"] / median["ours"],
        median["sigpy"] / median["ours"],
        median["ours"] / median["fft"],
    ]
    residuals = " / ".join(f"{figures[name][0]:.5f}" for name in ("ours", "bart", "sigpy"))
    errors = " / ".join(f"{figures[name][1]:.5f}" for name in ("ours", "bart", "sigpy"))
    print(
        f"| {coils} | {snr:g} | {ratios[0]:.0f}x | {ratios[1]:.0f}x | {ratios[2]:.1f}x | {residuals}"
        f" | {errors} | {peak:.0f} |",
        flush=True,
    )


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--coils", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--snr", type=float, default=40.0)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.size} x {options.size}, {ACS} x {ACS} calibration, one thread, medians of CPU seconds")
    print(
        "| coils | SNR | faster than BART | than sigpy | times coil FFTs | residual ours/BART/sigpy"
        " | map error ours/BART/sigpy | peak MB |"
    )
    print("|---" * 8 + "|")
    for coils in options.coils:
        compare(options.size, coils, options.snr, options.repeat)


if __name__ == "__main__":
    main()

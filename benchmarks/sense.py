"""CG-SENSE beside BART's pics and sigpy's SenseRecon: CPU seconds and PSNR at equal iterations.

`OMP_NUM_THREADS=1 python -m benchmarks.sense [--size N] [--coils N] [--rate N] [--iterations N]`

One frame, random lines with 20 central ones, the same maps and the same Tikhonov weight for all three.
One thread each, runs interleaved; BART's time includes starting it and reading and writing files.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.espirit import measured, object_and_maps
from benchmarks.tune_classical import as_kspace, psnr
from recon_node.core.fft import centred_fft
from recon_node.core.scan import ScanHeader
from recon_node.core.types import CoilMaps
from recon_node.lab.evaluation import bart
from recon_node.methods.sense import Sense
from recon_node.simulate import draw_mask

WEIGHT = 0.01


def with_bart(
    kspace: NDArray[Any], maps: NDArray[Any], mask: NDArray[np.bool_], iterations: int
) -> tuple[float, NDArray[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder, name) for name in ("p", "k", "s", "x")]
        bart.write(names[0], bart.coil_last(mask[None]))
        bart.write(names[1], bart.coil_last(kspace))
        bart.write(names[2], bart.coil_last(maps))
        options = ("-S", "-w1", "-l2", f"-r{WEIGHT}", f"-i{iterations}")
        seconds = bart.run("pics", *options, "-p", *names)
        return seconds, bart.read(names[3]).reshape(kspace.shape[:0:-1]).T


def with_sigpy(
    kspace: NDArray[Any], maps: NDArray[Any], mask: NDArray[np.bool_], iterations: int
) -> NDArray[Any]:
    from sigpy.mri.app import SenseRecon

    weights = mask.astype(np.float32)
    app = SenseRecon(kspace, maps, lamda=WEIGHT, weights=weights, max_iter=iterations, tol=0, show_pbar=False)
    return app.run()


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--coils", type=int, default=16)
    parser.add_argument("--rate", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    size = options.size
    image, maps, body = object_and_maps(size, options.coils, rng)
    maps = (maps * body).astype(np.complex64)
    truth = (40 * image).astype(np.complex64)
    noise = rng.standard_normal((2, *maps.shape)) / np.sqrt(2)
    mask = draw_mask("random", options.rate, shape=(1, size, size), acs=20, rng=rng)
    kspace = ((centred_fft(maps * truth) + noise[0] + 1j * noise[1]) * mask).astype(np.complex64)
    header = ScanHeader(
        encoded_matrix=(size, size, 1),
        encoded_fov_mm=(300.0, 300.0, 8.0),
        recon_matrix=(size, size, 1),
        recon_fov_mm=(300.0, 300.0, 8.0),
    )
    whole = as_kspace(kspace[None], mask, header)
    coil_maps = CoilMaps(data=maps[None], support=body)
    ours = Sense(iterations=options.iterations, regularisation=WEIGHT, device="cpu")
    seconds: dict[str, list[float]] = {"ours": [], "bart": [], "sigpy": []}
    images: dict[str, Any] = {}
    for _ in range(options.repeat + 1):
        took, made = measured(lambda: ours.reconstruct(whole, coil_maps))
        seconds["ours"].append(took)
        images["ours"] = made.data[0]
        took, images["bart"] = with_bart(kspace, maps, mask[0], options.iterations)
        seconds["bart"].append(took)
        took, images["sigpy"] = measured(lambda: with_sigpy(kspace, maps, mask[0], options.iterations))
        seconds["sigpy"].append(took)
    median = {name: float(np.median(values[1:])) for name, values in seconds.items()}
    print(f"{size} x {size}, {options.coils} coils, random {options.rate}x, {options.iterations} iterations")
    print("| method | CPU seconds over ours | PSNR dB |\n|---|---|---|")
    for name, value in median.items():
        print(f"| {name} | {value / median['ours']:.1f} | {psnr(images[name][None], truth[None]):.2f} |")


if __name__ == "__main__":
    main()

"""Seconds a slice on each device at hand, and whether a GPU gives what the CPU gives.

`python -m benchmarks.gpu [--coils N] [--phases N] [--matrix N] [--repeats N] [--devices cpu cuda]`

ESPIRiT, SENSE, k-t, the network with its shipped weights, and a network of the published size (random
weights: its speed does not depend on them) on one drawn heart. Wall time, best of several after one that warms up;
a GPU is waited for. Without CUDA the CPU's column is printed alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.network import inputs
from recon_node import open_scan
from recon_node.core.types import KSpace
from recon_node.methods.cardiomm import CardioMMReconstructor
from recon_node.methods.kt import KtSparse
from recon_node.methods.sense import Sense
from recon_node.model import CardioMM, CardioMMConfig
from recon_node.model.weights import load_weights
from recon_node.pipeline.stages import calibrate
from recon_node.prompts import build_prompts, embed, load_encoder
from recon_node.simulate import simulate_scan

Work = Callable[[], NDArray[Any]]


def drawn(*, coils: int, phases: int, matrix: int) -> KSpace:
    """One slice of a drawn heart, every eighth line."""
    with tempfile.TemporaryDirectory(prefix="gpu") as name:
        raw = Path(name) / "scan.h5"
        shape = {"coils": coils, "phases": phases, "matrix": matrix, "slices": 1}
        simulate_scan(raw, acceleration=8, pattern="uniform", seed=3, **shape)
        (kspace,) = open_scan(raw)
    return kspace


def works(kspace: KSpace, device: str, published: CardioMMConfig) -> dict[str, Work]:
    """What is timed, by name; making it moves networks to the device."""
    maps = calibrate(kspace)
    sense, kt = Sense(device=device), KtSparse(device=device)
    weights = load_weights("default")
    text = embed(build_prompts(kspace.header, kspace.sampling), load_encoder(weights.encoder))
    network = CardioMMReconstructor(weights, device=device)
    torch.manual_seed(0)
    large = CardioMM(published).to(device).to(memory_format=torch.channels_last).eval()
    clip = [one.to(device) for one in inputs(published, len(kspace.data), kspace.data.shape[-1])]

    def paper() -> NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(large(*clip).cpu().numpy())

    return {
        "ESPIRiT": lambda: calibrate(kspace, device=device).data,
        "SENSE": lambda: sense.reconstruct(kspace, maps).data,
        "k-t": lambda: kt.reconstruct(kspace, maps).data,
        "network, shipped": lambda: network.reconstruct(kspace, maps, text).data,
        "network, published size": paper,
    }


def seconds(work: Work, device: str, repeats: int) -> float:
    """Wall time, best of `repeats`."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def measure(
    kspace: KSpace, devices: list[str], published: CardioMMConfig, repeats: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """By work and device: seconds, and the relative distance from the first device's result."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    first: dict[str, NDArray[Any]] = {}
    for device in devices:
        for name, work in works(kspace, device, published).items():
            made = np.abs(work())
            wanted = first.setdefault(name, made)
            apart = float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))
            found.setdefault(name, {})[device] = (seconds(work, device, repeats), apart)
    return found


def report(found: dict[str, dict[str, tuple[float, float]]], devices: list[str]) -> None:
    """Print the table."""
    print(f"| | {' | '.join(f'{device}, s | from {devices[0]}' for device in devices)} |")
    print("|---" * (2 * len(devices) + 1) + "|")
    for name, row in found.items():
        print(f"| {name} | {' | '.join(f'{row[d][0]:.3f} | {row[d][1]:.1e}' for d in devices)} |")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("coils", 24), ("phases", 25), ("matrix", 192), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    usual = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser.add_argument("--devices", nargs="+", default=usual)
    parser.add_argument("--cascades", type=int, default=CardioMMConfig().cascades)
    options = parser.parse_args(arguments)
    kspace = drawn(coils=options.coils, phases=options.phases, matrix=options.matrix)
    size = f"{options.matrix} x {options.matrix}, {kspace.data.shape[1]} coils, {options.phases} frames"
    print(f"{size}, uniform 8x; torch {torch.__version__}, {torch.get_num_threads()} thread(s)\n")
    published = CardioMMConfig(cascades=options.cascades)
    report(measure(kspace, options.devices, published, options.repeats), options.devices)


if __name__ == "__main__":
    main()

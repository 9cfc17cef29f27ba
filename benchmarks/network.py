"""How fast the network runs here, beside what this machine can do.

    OMP_NUM_THREADS=1 python -m benchmarks.network [--paper] [--frames N] [--size N]

Prints, for several configurations and both precisions, seconds a frame forward and backward and the share
of the same process's matrix-multiplication rate; then the gain of each shortcut, side by side in one run.
CPU time of this process, best of several. `--paper` adds the published widths and depth (slow).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from recon_node.model import CardioMM, CardioMMConfig, UNetConfig
from recon_node.model.blocks import Slope
from recon_node.model.consistency import Physics
from recon_node.model.unet import NormalisedUNet

ONE = {"encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1, 1), "skip_blocks": (0, 0, 0)}
COILS = 8


def small(
    stem: int, levels: tuple[int, int, int], prompts: tuple[int, int, int], **blocks: object
) -> UNetConfig:
    """A UNet for CPUs."""
    return UNetConfig(stem=stem, levels=levels, prompts=prompts, bank_sizes=(32, 16, 8), **blocks)


def cine(unet: UNetConfig, cascades: int = 5) -> CardioMMConfig:
    """Five cascades that see three frames and the time average."""
    return CardioMMConfig(
        cascades=cascades, unet=unet, frames=3, temporal_mean=True, residual=True, text_features=384
    )


CONFIGS = {
    "16/24/32/40, full blocks": cine(small(16, (24, 32, 40), (8, 12, 16))),
    "16/24/32/40, one block": cine(small(16, (24, 32, 40), (8, 12, 16), bottleneck_blocks=1, **ONE)),
    "16/32/48/64, one block": cine(small(16, (32, 48, 64), (16, 16, 16), bottleneck_blocks=1, **ONE)),
    "24/36/48/60, one block": cine(small(24, (36, 48, 60), (8, 16, 24), bottleneck_blocks=1, **ONE)),
    "32/48/64/96, one block": cine(small(32, (48, 64, 96), (16, 16, 32), bottleneck_blocks=1, **ONE)),
}


def cpu_time(work: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of one call, best of several."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def matmul_rate(dtype: torch.dtype, side: int = 1024) -> float:
    """GFLOP/s of a square matrix product."""
    a, b = torch.randn(2, side, side).to(dtype)
    return 2 * side**3 / cpu_time(lambda: a @ b, 10) / 1e9


def inputs(config: CardioMMConfig, frames: int, size: int) -> list[torch.Tensor]:
    """A clip with line masks."""
    mask = (torch.rand(1, frames, 1, size) < 0.3).expand(1, frames, size, size)
    kspace = torch.randn(1, frames, COILS, size, size, dtype=torch.complex64) * mask.unsqueeze(2)
    maps = torch.randn(1, COILS, size, size, dtype=torch.complex64)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    texts = torch.randn(2, 1, config.text_features)
    return [kspace, mask, *texts, maps]


def measure(name: str, config: CardioMMConfig, frames: int, size: int, rates: dict[str, float]) -> None:
    """Print the rows of one configuration."""
    net = CardioMM(config).to(memory_format=torch.channels_last)
    data = inputs(config, frames, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*data)
    gflop = counter.get_total_flops() / 1e9
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    for kind, rate in rates.items():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "bfloat16"):
            with torch.inference_mode():
                forward = cpu_time(lambda: net(*data))
            both = cpu_time(lambda: net(*data).abs().mean().backward(), 2)
        share = gflop / forward / rate
        print(
            f"{name:28s} {kind:9s} {millions:6.2f} {gflop / frames:8.2f} {forward / frames:9.3f} "
            f"{both / frames:12.3f} {share:8.0%}",
            flush=True,
        )


def shortcuts(size: int) -> None:
    """Print what each shortcut gains."""
    config = CONFIGS["16/24/32/40, one block"]
    _, mask, *_, maps = inputs(config, 4, size)
    images = torch.randn(1, 4, size, size, dtype=torch.complex64)
    lines, grid = Physics(maps, mask), Physics(maps, torch.rand(mask.shape) < 0.3)
    gain = cpu_time(lambda: grid.gram(images), 5) / cpu_time(lambda: lines.gram(images), 5)
    print(f"normal operator, one-dimensional transform for line masks: {gain:.1f} times as fast")
    slope = Slope()
    x = torch.randn(4, 16, size, size).contiguous(memory_format=torch.channels_last).requires_grad_()
    ours = cpu_time(lambda: slope(x).sum().backward(), 5)
    library = cpu_time(lambda: functional.prelu(x, slope.weight).sum().backward(), 5)
    print(f"slope, forward and backward: {library / ours:.1f} times as fast as the library's")
    channels = torch.randn(4, 8, size, size)
    ours = cpu_time(lambda: NormalisedUNet.statistics(channels), 5)
    library = cpu_time(lambda: channels.std(dim=(1, 2, 3)), 5)
    print(f"standard deviation: {library / ours:.1f} times as fast as the library's")


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--paper", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    rates = {"float32": matmul_rate(torch.float32), "bfloat16": matmul_rate(torch.bfloat16)}
    print(f"{torch.get_num_threads()} thread(s), {COILS} coils, {options.frames} frames of {options.size}²")
    print("matrix products:", ", ".join(f"{kind} {rate:.0f} GFLOP/s" for kind, rate in rates.items()))
    print(
        f"{'configuration':28s} {'precision':9s} {'M par':>6s} {'GF/frame':>8s} {'s/frame':>9s} "
        f"{'with backw.':>12s} {'of matmul':>8s}"
    )
    for name, config in CONFIGS.items():
        measure(name, config, options.frames, options.size, rates)
    if options.paper:
        measure("published, ten cascades", CardioMMConfig(), 1, options.size, {"float32": rates["float32"]})
    shortcuts(options.size)


if __name__ == "__main__":
    main()

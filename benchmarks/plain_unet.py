"""A plain image-domain UNet, trained on the same data with the same loss for as long as the network it rivals.

`python -m benchmarks.plain_unet --config recon_node/lab/training/recipes/heart.toml --minutes 26 --out runs/unet`

Zero-filled images, coils combined, of a frame and its neighbours go in, a correction of the frame comes out: no data
consistency, no texts, no prompts. It has at least as many parameters as the network that the settings describe. The
weights are `OUT/unet.safetensors`, for `benchmarks.study --unet`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from recon_node.lab.evaluation.heldout import Case
from recon_node.lab.training.config import TrainConfig, load_train_config
from recon_node.lab.training.data import Example
from recon_node.lab.training.loop import Run
from recon_node.methods.cardiomm import is_periodic
from recon_node.model import CardioMM
from recon_node.model.consistency import Physics


class Double(nn.Sequential):
    """Two 3x3 convolutions with instance normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers.append(nn.Conv2d(width, outputs, 3, padding=1, bias=False))
            layers += [nn.InstanceNorm2d(outputs, affine=True), nn.LeakyReLU(0.2)]
        super().__init__(*layers)


class PlainUNet(nn.Module):
    """UNet on zero-filled images; called like `CardioMM`, of whose arguments it needs k-space, mask and maps."""

    def __init__(self, frames: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.frames, self.widths = frames, widths
        self.first = Double(2 * frames, widths[0])
        self.down = nn.ModuleList(Double(a, b) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Double(a + b, a) for a, b in reversed(list(pairwise(widths))))
        self.last = nn.Conv2d(widths[0], 2, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, kspace: Tensor, mask: Tensor, *_: Tensor, maps: Tensor, periodic: bool = True, **__: object
    ) -> Tensor:
        """`(item, frame, coil, row, column)` k-space to `(item, frame, row, column)` images."""
        images = Physics(maps, mask).adjoint(kspace * mask.unsqueeze(2))
        scale = images.abs().square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        shown = torch.view_as_real(_neighbours(images / scale, self.frames, periodic=periodic))
        flat = shown.movedim(-1, 3).flatten(2, 3).flatten(0, 1)
        made = self.corrected(flat).unflatten(0, images.shape[:2]).float()
        return images + scale * torch.complex(made[:, :, 0], made[:, :, 1])

    def corrected(self, x: Tensor) -> Tensor:
        """`(n, 2 * frames, row, column)` to `(n, 2, row, column)`, for any size."""
        rows, columns = x.shape[-2:]
        deep = 2 ** len(self.down)
        x = functional.pad(x, (0, -columns % deep, 0, -rows % deep))
        skips = [self.first(x)]
        for block in self.down:
            skips.append(block(functional.avg_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block in self.up:
            larger = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([skips.pop(), larger], dim=1))
        return self.last(x)[..., :rows, :columns]


def _neighbours(images: Tensor, count: int, *, periodic: bool) -> Tensor:
    """`(item, frame, ...)` to `(item, frame, neighbour, ...)`."""
    total, reach = images.shape[1], count // 2
    index = torch.arange(total)[:, None] + torch.arange(-reach, reach + 1)
    return images[:, index % total if periodic else index.clamp(0, total - 1)]


def rival_of(config: TrainConfig) -> PlainUNet:
    """The narrowest UNet of the same levels with at least as many parameters as the network of the settings."""
    wanted = parameters(CardioMM(config.model))
    widths = config.model.unet.widths
    for eighths in range(8, 1000):
        net = PlainUNet(config.model.frames, tuple(width * eighths // 8 for width in widths))
        if parameters(net) >= wanted:
            return net
    raise AssertionError("no UNet is large enough")


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


class UNetRun(Run):
    """The training loop of the node with another network, which starts from zero-filled images."""

    def network(self) -> nn.Module:
        return rival_of(self.config)

    def start_of(self, example: Example) -> Tensor:
        return Physics(example.maps[None], example.mask[None]).adjoint(example.kspace[None])[0]

    def export(self) -> None:
        facts = {"frames": self.net.frames, "widths": self.net.widths, "steps": self.step}
        state = {name: value.contiguous() for name, value in self.average.state.items()}
        save_file(state, self.folder / "unet.safetensors", {"unet": json.dumps(facts)})


def load(file: Path) -> PlainUNet:
    with safe_open(file, "pt") as stored:
        facts = json.loads(stored.metadata()["unet"])
        state = {name: stored.get_tensor(name) for name in stored.keys()}
    net = PlainUNet(facts["frames"], tuple(facts["widths"]))
    net.load_state_dict(state)
    return net.eval()


@torch.inference_mode()
def reconstruct(net: PlainUNet, case: Case) -> NDArray[np.complex64]:
    """Images `(phase, y, x)` of a held-out scan."""
    kspace, mask, maps = (
        torch.tensor(array).mT.contiguous()[None]
        for array in (case.kspace.data, case.kspace.mask, case.maps.data[0])
    )
    images = net(kspace, mask, maps=maps, periodic=is_periodic(case.kspace))
    return np.ascontiguousarray(images[0].mT.numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="in place of the settings'")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="as of recon-node train")
    parser.add_argument("--out", type=Path, default=Path("runs/unet"))
    options = parser.parse_args()
    config = load_train_config(options.config, options.changes)
    minutes = options.minutes or config.run.minutes
    run = UNetRun(
        dataclasses.replace(
            config, run=dataclasses.replace(config.run, out=str(options.out), minutes=minutes)
        )
    )
    print(f"{parameters(run.net)} parameters, widths {run.net.widths}")
    run.train(lambda now: now.validation and print(now.step, f"{now.loss:.4f}", now.validation, flush=True))
    print(f"weights: {options.out / 'unet.safetensors'}")


if __name__ == "__main__":
    main()

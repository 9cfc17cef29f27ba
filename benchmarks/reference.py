"""The published network a second time: slow, float64, straight from the description of its operations.

Nothing here is shared with `recon_node.model`: it reads a checkpoint's own keys, works on coil k-space as the
description says (no shortcut through normal operators, no batch), one item, one cascade, one coil at a time.
Tests and ``benchmarks.golden`` hold the network to it on cases for which no recorded numbers are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f

State = Mapping[str, Tensor]
AXES = (-2, -1)


def fourier(x: np.ndarray, *, inverse: bool = False) -> np.ndarray:
    transform = np.fft.ifft2 if inverse else np.fft.fft2
    return np.fft.fftshift(transform(np.fft.ifftshift(x, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def calibration(kspace: np.ndarray, mask: np.ndarray, acs: int, rule: str) -> np.ndarray:
    """`(coil, row, column)` with all but the calibration region set to zero."""
    rows, columns = mask.shape
    if acs == 0:
        acs = automatic(mask[0])
    kept = np.zeros_like(kspace)
    left = int(np.floor((columns - acs + 1) / 2))
    if rule == "columns":
        kept[..., left : left + acs] = kspace[..., left : left + acs]
        return kept
    top = int(np.floor((rows - acs + 1) / 2))
    square = np.zeros(mask.shape, bool)
    square[top : top + acs, left : left + acs] = True
    return kspace * (square & mask)


def automatic(row: np.ndarray) -> int:
    """Sampled columns about the centre of a mask row, the same number on both sides."""
    centre, width = len(row) // 2, len(row)
    left = right = 0
    if not row[:centre].all():
        while row[centre - 1 - left]:
            left += 1
    if not row[centre:].all():
        while centre + right < width and row[centre + right]:
            right += 1
    return max(2 * min(left, right), 1)


class Reference:
    """Runs a checkpoint's state dict, tensors of any precision in double."""

    def __init__(self, state: State) -> None:
        prefix = "metausunetlight."
        self.state = {key.removeprefix(prefix): value.double() for key, value in state.items()}
        numbers = [int(m[1]) for key in self.state if (m := re.match(r"cascades\.(\d+)\.", key))]
        self.cascades = max(numbers) + 1
        last = f"cascades.{self.cascades - 1}.model.unet.dec_level1.ca.body.1.weight"
        self.shared = self.state[last]

    def __call__(
        self,
        kspace: np.ndarray,
        mask: np.ndarray,
        meta: np.ndarray,
        us: np.ndarray,
        acs: int = 20,
        rule: str = "columns",
        maps: np.ndarray | None = None,
    ) -> np.ndarray:
        """One item: `(coil, row, column)`, `(row, column)`, `(feature,)` twice, to `(row, column)`."""
        texts = self.head("lm_head_meta", meta), self.head("lm_head_us", us)
        measured = np.asarray(kspace, np.complex128) * mask
        if maps is None:
            maps = self.learned(calibration(measured, mask, acs, rule), texts)
        current = measured
        for cascade in range(self.cascades):
            image = np.sum(np.conj(maps) * fourier(current, inverse=True), axis=0)
            made = self.wrapped(f"cascades.{cascade}.model.unet.", image, texts)
            model = fourier(maps * made)
            weight = abs(float(self.state[f"cascades.{cascade}.dc_weight"].reshape(())))
            current = np.where(mask, (measured + weight * model) / (1 + weight), model)
        return np.sqrt(np.sum(np.abs(fourier(current, inverse=True)) ** 2, axis=0))

    def head(self, name: str, features: np.ndarray) -> Tensor:
        weight, bias = self.state[f"{name}.fc1.weight"], self.state[f"{name}.fc1.bias"]
        projected = weight @ torch.from_numpy(np.asarray(features, np.float64)) + bias
        return projected / projected.abs().clamp_min(1e-12)

    def learned(self, kspace: np.ndarray, texts: tuple[Tensor, Tensor]) -> np.ndarray:
        coils = fourier(kspace, inverse=True)
        made = np.stack([self.wrapped("sens_net.norm_unet.unet.", coil, texts) for coil in coils])
        return made / np.sqrt(np.sum(np.abs(made) ** 2, axis=0))

    def wrapped(self, place: str, image: np.ndarray, texts: tuple[Tensor, Tensor]) -> np.ndarray:
        parts = np.stack([image.real, image.imag])
        mean, deviation = parts.mean(), parts.std(ddof=1)
        rows, columns = (-size % 8 for size in image.shape)
        before = rows // 2, columns // 2
        margins = ((0, 0), (before[0], rows - before[0]), (before[1], columns - before[1]))
        padded = np.pad((parts - mean) / deviation, margins)
        out = self.unet(place, torch.from_numpy(padded)[None], *texts)[0].numpy()
        inner = out[:, before[0] : before[0] + image.shape[0], before[1] : before[1] + image.shape[1]]
        made = inner * deviation + mean
        return made[0] + 1j * made[1]

    def unet(self, place: str, x: Tensor, meta: Tensor, us: Tensor) -> Tensor:
        state = {k.removeprefix(place): v for k, v in self.state.items() if k.startswith(place)}
        x = f.conv2d(x, state["feat_extract.weight"], padding=1)
        skips = {}
        for level in (1, 2, 3):
            x = skips[level] = self.blocks(state, f"enc_level{level}.encoder.", x)
            down = f"enc_level{level}.down."
            x = f.conv2d(x, state[down + "weight"], state[down + "bias"], stride=2, padding=1)
        x = self.blocks(state, "bottleneck.", x)
        for level in (3, 2, 1):
            prompt = self.prompt(state, f"prompt_level{level}.", us, x.shape[-2:])
            x = self.blocks(state, f"dec_level{level}.fuse.", torch.cat([x, prompt], dim=1))
            x = f.conv2d(x, state[f"dec_level{level}.reduce.weight"])
            x = f.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = f.conv2d(x, state[f"dec_level{level}.up.1.weight"])
            x = x + self.blocks(state, f"skip_attn{level}.skip_attn.", skips[level])
            x = self.block(state, f"dec_level{level}.ca.", x)
            x = self.conditioned(state, f"metacond_level{level}.", x, meta)
        return f.conv2d(x, state["conv_last.weight"], padding=2)

    def blocks(self, state: State, place: str, x: Tensor) -> Tensor:
        number = 0
        while f"{place}{number}.body.0.weight" in state:
            x = self.block(state, f"{place}{number}.", x)
            number += 1
        return x

    def block(self, state: State, place: str, x: Tensor) -> Tensor:
        own = place.startswith("metacond_level") or place == "enc_level1.encoder.0."
        slope = state[place + "body.1.weight"] if own else self.shared
        y = f.conv2d(x, state[place + "body.0.weight"], padding=1)
        y = torch.where(y > 0, y, slope * y)
        y = f.conv2d(y, state[place + "body.2.weight"], padding=1)
        gate = torch.relu(f.conv2d(y.mean(dim=(2, 3), keepdim=True), state[place + "CA.conv_du.0.weight"]))
        return x + y * torch.sigmoid(f.conv2d(gate, state[place + "CA.conv_du.2.weight"]))

    def prompt(self, state: State, place: str, us: Tensor, shape: torch.Size) -> Tensor:
        scores = state[place + "linear_layer2.weight"] @ us + state[place + "linear_layer2.bias"]
        shares = torch.exp(scores) / torch.exp(scores).sum()
        mixed = sum(
            share * bank for share, bank in zip(shares, state[place + "prompt_param"][0], strict=True)
        )
        resized = f.interpolate(mixed[None], size=tuple(shape), mode="bilinear", align_corners=False)
        return f.conv2d(resized, state[place + "dec_conv3x3.weight"], padding=1)

    def conditioned(self, state: State, place: str, x: Tensor, meta: Tensor) -> Tensor:
        gate = torch.sigmoid(state[place + "fc.weight"] @ meta + state[place + "fc.bias"])[
            None, :, None, None
        ]
        y = (x * state[place + "gamma"] + state[place + "beta"]) * gate
        return x + self.block(state, place + "block.", y)

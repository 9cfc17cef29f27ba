"""Coil maps learned from the calibration lines, and the rules that find those lines."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from recon_node.core.errors import DataError
from recon_node.model.blocks import Slope
from recon_node.model.config import CardioMMConfig, UNetConfig
from recon_node.model.consistency import centred_ifft
from recon_node.model.unet import NormalisedUNet

AcsRule = Literal["columns", "square"]


def acs_width(mask_row: Tensor) -> int:
    """Number of central sampled columns, counted from the mask.

    With ``c = n // 2``: the run of sampled columns left of c (from ``c - 1``) and right (from ``c``); twice
    the shorter one, at least 1. A side without any unsampled column counts 0, as in the published network.

    Parameters
    ----------
    mask_row : Tensor
        `(column,)` bool.
    """
    centre = mask_row.shape[0] // 2
    runs = []
    for side in (mask_row[:centre].flip(0), mask_row[centre:]):
        gaps = torch.nonzero(~side)
        runs.append(int(gaps[0]) if len(gaps) else 0)
    return max(2 * min(runs), 1)


def acs_region(shape: tuple[int, int], width: int, rule: AcsRule) -> tuple[slice, slice]:
    """Rows and columns of the calibration region: `width` central columns, or a square of that side.

    Raises
    ------
    DataError
        Where the region does not fit the k-space.
    """

    def central(size: int) -> slice:
        start = (size - width + 1) // 2
        return slice(start, start + width)

    sides = shape[1:] if rule == "columns" else shape
    if not 1 <= width <= min(sides):
        raise DataError(f"a calibration region of {width} does not fit a k-space of {shape[0]} x {shape[1]}")
    rows = slice(0, shape[0]) if rule == "columns" else central(shape[0])
    return rows, central(shape[1])


class SensitivityNet(nn.Module):
    """Coil maps from the calibration lines alone: a small UNet per coil, then unit root-sum-of-squares.

    Every coil image is one sample and sees its own item's texts, for any batch.
    """

    def __init__(self, widths: UNetConfig, config: CardioMMConfig, slope: Slope | None) -> None:
        super().__init__()
        self.model = NormalisedUNet(widths, config, 1, slope, residual=False)

    def forward(self, calibration: Tensor, meta: Tensor, us: Tensor) -> Tensor:
        """Maps from the calibration lines.

        Parameters
        ----------
        calibration : Tensor
            `(item, coil, y, x)` complex k-space, zero outside the calibration region.
        meta, us : Tensor
            `(item, text_size)` after the text heads.

        Returns
        -------
        Tensor
            `(item, coil, y, x)` complex, unit root-sum-of-squares at every pixel.
        """
        images = centred_ifft(calibration)
        maps: Tensor = self.model(images.flatten(0, 1).unsqueeze(1), meta, us).reshape(images.shape)
        return maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()

"""k-t sparse SENSE as a method (`recon_node.solvers.kt`)."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.methods.iterative import Iterative
from recon_node.methods.record import classical
from recon_node.solvers.kt import KtConfig, kt_parts


class KtSparse(Iterative):
    """SENSE over all frames with temporal and spatial total variation.

    Parameters
    ----------
    config : KtConfig
        Weights and iterations.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """

    name = "kt"

    def __init__(self, config: KtConfig | None = None, *, device: str = "auto") -> None:
        self.config = KtConfig() if config is None else config
        self.device = device
        self.seen: NDArray[np.complex64] | None = None

    def like(self, images: ImageSeries) -> Self:
        """The same, told where air is by the images of a slice."""
        one = copy.copy(self)
        one.seen = images.data
        return one

    def _images(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> tuple[NDArray[np.complex64], dict[str, Any]]:
        images = kt_parts(kspace.data, kspace.mask, maps.data, self.config, device, unit=unit, seen=self.seen)
        return images, {**dataclasses.asdict(self.config), "noise_unit": unit}


METHOD = classical(
    "kt",
    "SENSE over all frames, sparse in space and time.",
    lambda device: KtSparse(device=device),
    label="k-t sparse",
)

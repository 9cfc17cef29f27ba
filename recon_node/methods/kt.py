"""k-t sparse SENSE as a method (`recon_node.solvers.kt`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, KSpace
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

    def _images(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> tuple[NDArray[np.complex64], dict[str, Any]]:
        images = kt_parts(kspace.data, kspace.mask, maps.data, self.config, device, unit=unit)
        return images, {**dataclasses.asdict(self.config), "noise_unit": unit}


METHOD = classical(
    "kt",
    "SENSE over all frames, sparse in space and time.",
    lambda device: KtSparse(device=device),
    label="k-t sparse",
)

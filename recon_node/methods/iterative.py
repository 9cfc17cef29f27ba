"""What the iterative classical reconstructors share: from k-space to an image series on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.methods.series import check, noise_unit, series
from recon_node.solvers.device import on_device


class Iterative(ABC):
    """Solves for all frames of a slice at once, on CPU or CUDA."""

    name: ClassVar[str]
    device: str
    """``auto``, ``cpu`` or ``cuda``."""

    def reconstruct(self, kspace: KSpace, maps: CoilMaps, text: TextEmbedding | None = None) -> ImageSeries:
        """Images `(phase, y, x)` on the grid of `kspace`; map sets are solved jointly.

        Raises
        ------
        DataError
            See `recon_node.methods.series.check`.
        DeviceError
            If CUDA is asked for and absent, fails, or is out of memory.
        """
        check(kspace, maps)
        unit = noise_unit(kspace)
        images = on_device(self.device, lambda device: self._images(kspace, maps, unit, device))
        return series(kspace, images, self.name, self._settings(unit))

    @abstractmethod
    def _images(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> NDArray[np.complex64]:
        """`(phase, map, y, x)`; `unit` is the standard deviation of the complex noise in `kspace`."""

    @abstractmethod
    def _settings(self, unit: float) -> dict[str, Any]:
        """What decides the images, for their provenance."""

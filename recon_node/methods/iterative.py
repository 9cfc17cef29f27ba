"""What the iterative classical reconstructors share: from k-space to an image series on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.protocols import Reconstructor
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.methods.series import check, noise_unit, series
from recon_node.solvers.device import on_device


class Iterative(ABC):
    """Solves for all frames of a slice at once, on CPU or CUDA."""

    name: ClassVar[str]
    columns: ClassVar[int | None] = None
    """As many image columns, evenly spaced, say as much of the method as all do, where whole lines were
    sampled: of one that solves each column by itself. None where columns depend on each other."""
    narrow: ClassVar[bool] = True
    """Whether it makes images of a few neighbouring columns of a slice as of the whole, which the trust check
    then asks for (`recon_node.trust.window`)."""
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
        images, settings = on_device(self.device, lambda device: self._images(kspace, maps, unit, device))
        return series(kspace, images, self.name, settings)

    def like(self, images: ImageSeries) -> Self:
        """The same, with whatever it chose for a slice settled: for parts of that slice.

        Parameters
        ----------
        images : ImageSeries
            What it made of the slice.
        """
        del images
        return self

    @abstractmethod
    def _images(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> tuple[NDArray[np.complex64], dict[str, Any]]:
        """`(phase, map, y, x)`, and what decided them, for their provenance.

        `unit` is the standard deviation of the complex noise in `kspace`.
        """


@runtime_checkable
class _Settling(Protocol):
    """A method that chooses something for each slice; see `Iterative.like`."""

    def like(self, images: ImageSeries) -> Reconstructor: ...


def settled(method: Reconstructor, images: ImageSeries) -> Reconstructor:
    """The method for parts of a slice of which it made `images`: see `Iterative.like`."""
    return method.like(images) if isinstance(method, _Settling) else method

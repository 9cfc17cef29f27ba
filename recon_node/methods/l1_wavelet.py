r"""L1-wavelet SENSE: :math:`\min_x \tfrac12\|A x - y\|^2 + \lambda\|W x\|_1`, each frame on its own.

Lustig et al., Magn Reson Med 58:1182 (2007). `W` is `recon_node.solvers.wavelet`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, KSpace
from recon_node.methods.iterative import Iterative
from recon_node.methods.record import classical
from recon_node.methods.series import check_options
from recon_node.solvers.fista import fista
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.wavelet import WaveletShrinkage


class L1Wavelet(Iterative):
    """SENSE with sparsity in an orthonormal wavelet basis (Daubechies, four vanishing moments).

    Parameters
    ----------
    regularisation : float
        Weight of the wavelet coefficients' magnitudes, in units of the noise standard deviation.
    iterations : int
        FISTA iterations.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """

    name = "l1-wavelet"

    def __init__(self, *, regularisation: float = 0.06, iterations: int = 150, device: str = "auto") -> None:
        check_options("l1-wavelet", iterations=iterations, regularisation=regularisation)
        self.regularisation = regularisation
        self.iterations = iterations
        self.device = device

    @torch.inference_mode()
    def _images(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> tuple[NDArray[np.complex64], dict[str, Any]]:
        operator = SenseOperator(maps.data, kspace.mask, device)
        images = fista(
            operator.normal,
            operator.matched(kspace.data),
            WaveletShrinkage(self.regularisation * unit),
            iterations=self.iterations,
        )
        settings = {
            "regularisation": self.regularisation,
            "iterations": self.iterations,
            "noise_unit": unit,
        }
        return operator.to_grid(images), settings


METHOD = classical(
    "l1-wavelet",
    "SENSE, sparse in wavelets, frame by frame.",
    lambda device: L1Wavelet(device=device),
    label="L1-wavelet",
)

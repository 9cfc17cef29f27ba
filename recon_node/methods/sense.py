r"""SENSE with Tikhonov regularisation: the regularised normal equations of every frame.

Pruessmann et al., Magn Reson Med 46:638 (2001): :math:`(A^H A + \lambda I) x = A^H y`, solved exactly
where whole lines are sampled, else by conjugate gradients (`recon_node.solvers.tikhonov`).
"""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.methods.iterative import Iterative
from recon_node.methods.record import classical
from recon_node.methods.series import check_options
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.tikhonov import tikhonov
from recon_node.solvers.weight import tikhonov_weight


class Sense(Iterative):
    """SENSE with Tikhonov regularisation; the fallback where a network is not to be believed.

    Parameters
    ----------
    iterations : int
        Most iterations of conjugate gradients, where they are needed.
    regularisation : float, optional
        Weight of ``||x||^2`` beside ``||A x - y||^2``. Both are in the same units, so it does not
        depend on the scale of the data. None takes it from signal and noise
        (`recon_node.solvers.weight`).
    tolerance : float
        A frame is done when its residual falls below this fraction of ``A^H y``.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """

    name = "sense"
    columns = 48

    def __init__(
        self,
        *,
        iterations: int = 60,
        regularisation: float | None = None,
        tolerance: float = 0.0,
        device: str = "auto",
    ) -> None:
        given = {} if regularisation is None else {"regularisation": regularisation}
        check_options("sense", iterations=iterations, tolerance=tolerance, **given)
        self.iterations = iterations
        self.regularisation = regularisation
        self.tolerance = tolerance
        self.device = device

    def like(self, images: ImageSeries) -> Self:
        """The same with the weight that it took for a slice."""
        if images.made_by.method != self.name:
            return self
        one = copy.copy(self)
        one.regularisation = float(images.made_by.settings["regularisation"])
        return one

    @torch.inference_mode()
    def _images(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> tuple[NDArray[np.complex64], dict[str, Any]]:
        weight = self.regularisation
        if weight is None:
            found = tikhonov_weight(kspace.data, kspace.mask, maps.data, unit=unit)
            weight = float(f"{found:.6g}")  # as its provenance tells it
        operator = SenseOperator(maps.data, kspace.mask, device)
        images = tikhonov(
            operator,
            operator.matched(kspace.data),
            weight,
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
        settings = {
            "iterations": self.iterations,
            "regularisation": weight,
            "tolerance": self.tolerance,
        }
        return operator.to_grid(images), settings


METHOD = classical(
    "sense",
    "Parallel imaging, frame by frame; the usual stand-in.",
    lambda device: Sense(device=device),
    label="CG-SENSE",
)

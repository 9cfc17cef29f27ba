r"""k-t methods: reconstructors that use all frames of a cine together.

`KtSparse` solves

.. math:: \min_x \tfrac12\|A x - y\|^2 + \lambda_t\|D_t x\|_1 + \lambda_s\|D_{xy} x\|_1

over all frames at once: parallel imaging with temporal and spatial total variation (k-t SPARSE-SENSE,
Otazo et al., Magn Reson Med 64:767, 2010, with the total variation of Feng et al., Magn Reson Med
72:707, 2014, eq. 1, cyclic in time). `ViewSharing` only borrows samples from neighbouring frames.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.fft import centred_ifft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.model.device import on_device
from recon_node.model.hybrid import SenseOperator
from recon_node.model.proximal import fista
from recon_node.model.series import check, check_options, noise_unit, series
from recon_node.model.variation import TotalVariation


class KtSparse:
    """SENSE over all frames with temporal and spatial total variation, started from shared views.

    Parameters
    ----------
    temporal : float
        Weight of changes between neighbouring frames, in units of the noise standard deviation.
    spatial : float
        Weight of changes between neighbouring pixels, same units.
    iterations : int
        FISTA iterations.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    """

    name = "kt"

    def __init__(
        self, *, temporal: float = 0.5, spatial: float = 0.03, iterations: int = 40, device: str = "auto"
    ) -> None:
        check_options("kt", iterations=iterations, temporal=temporal, spatial=spatial)
        self.temporal = temporal
        self.spatial = spatial
        self.iterations = iterations
        self.device = device

    def reconstruct(self, kspace: KSpace, maps: CoilMaps, text: TextEmbedding | None = None) -> ImageSeries:
        """Images `(phase, y, x)` on the grid of `kspace`; a single frame gets spatial sparsity only.

        Raises
        ------
        DataError
            See `recon_node.model.series.check`.
        DeviceError
            If CUDA is asked for and absent, fails, or is out of memory.
        """
        check(kspace, maps)
        unit = noise_unit(kspace)
        images = on_device(self.device, lambda device: self._solve(kspace, maps, unit, device))
        settings = {
            "temporal": self.temporal,
            "spatial": self.spatial,
            "iterations": self.iterations,
            "noise_unit": unit,
        }
        return series(kspace, images, self.name, settings)

    @torch.inference_mode()
    def _solve(
        self, kspace: KSpace, maps: CoilMaps, unit: float, device: torch.device
    ) -> NDArray[np.complex64]:
        operator = SenseOperator(maps.data, kspace.mask, device)
        shared = _coil_images(share_views(kspace.data, kspace.mask))
        images = fista(
            operator.normal,
            operator.adjoint(operator.samples(kspace.data)),
            TotalVariation(self.temporal * unit, self.spatial * unit),
            iterations=self.iterations,
            start=operator.from_grid(np.einsum("mcyx,pcyx->pmyx", maps.data.conj(), shared)),
        )
        return operator.to_grid(images)


class ViewSharing:
    """Missing samples taken from the nearest frames in time, then coils combined; nothing is learned."""

    name = "view-sharing"

    def reconstruct(self, kspace: KSpace, maps: CoilMaps, text: TextEmbedding | None = None) -> ImageSeries:
        """Images `(phase, y, x)` on the grid of `kspace`; `text` is ignored.

        Raises
        ------
        DataError
            See `recon_node.model.series.check`.
        """
        check(kspace, maps)
        images = np.zeros((kspace.data.shape[0], *kspace.data.shape[2:]), np.complex64)
        for phase, coil_images in enumerate(_coil_images(share_views(kspace.data, kspace.mask))):
            images[phase] = np.einsum("mcyx,cyx->yx", maps.data.conj(), coil_images)
        return series(kspace, images, self.name, {})


def share_views(data: NDArray[np.complex64], mask: NDArray[np.bool_]) -> NDArray[np.complex64]:
    """Fill every sample that is missing in a frame from the frames nearest in (cyclic) time.

    Where the frame before and the frame after are equally near, their mean is taken. Samples that no
    frame has stay zero.

    Parameters
    ----------
    data : ndarray
        `(phase, coil, ky, kx)` complex64, zero where not sampled.
    mask : ndarray
        `(phase, ky, kx)` bool.

    Returns
    -------
    ndarray
        `(phase, coil, ky, kx)` complex64.
    """
    phases = data.shape[0]
    filled = data.copy()
    have = mask.copy()
    for distance in range(1, phases // 2 + 1):
        for phase in range(phases):
            before, after = (phase - distance) % phases, (phase + distance) % phases
            weight = mask[before].astype(np.float32) + mask[after]
            rows, columns = np.nonzero((weight > 0) & ~have[phase])
            total = data[before][:, rows, columns] + data[after][:, rows, columns]
            filled[phase][:, rows, columns] = total / weight[rows, columns]
            have[phase][rows, columns] = True
    return filled


def _coil_images(kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
    images: NDArray[np.complex64] = np.stack([centred_ifft(frame) for frame in kspace])
    return images

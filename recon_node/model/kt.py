r"""k-t methods: reconstructors that use all frames of a cine together.

`KtSparse` solves

.. math:: \min_x \tfrac12\|A x - y\|^2 + \lambda_t\|D_t x\|_1 + \lambda_s\|D_{xy} x\|_1
    + \tfrac12 \sum_r w_r |x_r|^2

over all frames at once: parallel imaging with temporal and spatial total variation (k-t SPARSE-SENSE,
Otazo et al., Magn Reson Med 64:767, 2010, with the total variation of Feng et al., Magn Reson Med
72:707, 2014, eq. 1, cyclic in time) and a weak pull towards zero in the air around the body.
`ViewSharing` only borrows samples from neighbouring frames.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.core.fft import centred_ifft
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.model.air import air_pull
from recon_node.model.config import KtConfig
from recon_node.model.hybrid import SenseOperator
from recon_node.model.iterative import Iterative
from recon_node.model.proximal import fista
from recon_node.model.sense import conjugate_gradients
from recon_node.model.series import check, series
from recon_node.model.unfolding import normal_matrix, unfold, unfolds
from recon_node.model.variation import TotalVariation

START_ITERATIONS = 15
"""Conjugate-gradient iterations of the first guess."""
MEAN_REGULARISATION = 0.001
FRAME_REGULARISATION = 0.01
"""Tikhonov weights of the first guess: of the time average, and of each frame's distance to it."""


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
    ) -> NDArray[np.complex64]:
        return kt_images(kspace.data, kspace.mask, maps.data, self.config, device, unit=unit)

    def _settings(self, unit: float) -> dict[str, Any]:
        return {**dataclasses.asdict(self.config), "noise_unit": unit}


@torch.inference_mode()
def kt_images(
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    maps: NDArray[np.complex64],
    config: KtConfig,
    device: torch.device,
    *,
    unit: float = 1.0,
) -> NDArray[np.complex64]:
    """The k-t sparse reconstruction of plain arrays.

    Parameters
    ----------
    data : ndarray
        `(phase, coil, ky, kx)` complex64.
    mask : ndarray
        `(phase, ky, kx)` bool.
    maps : ndarray
        `(map, coil, y, x)` complex64.
    config : KtConfig
        Weights and iterations.
    device : torch.device
        Where to compute.
    unit : float
        Standard deviation of the complex noise in `data`.

    Returns
    -------
    ndarray
        `(phase, y, x)` complex64.
    """
    operator = SenseOperator(maps, mask, device)
    target = operator.matched(data)
    static = bool((mask == mask[:1]).all())
    temporal, spatial = config.temporal, config.spatial
    if len(mask) == 1:
        temporal, spatial = 0.0, config.single_spatial
    elif static:
        temporal, spatial = config.static_temporal, config.static_spatial

    def variation(divisor: float) -> TotalVariation:
        return TotalVariation(temporal * unit / divisor, spatial * unit / divisor)

    start = _around_the_mean(operator, target, data, mask, maps)
    if unfolds(maps, mask):
        matrix = normal_matrix(operator, maps, mask)
        images = unfold(
            matrix, target, variation, air=config.air, iterations=config.unfolding_iterations, start=start
        )
        return operator.to_grid(images)
    pull = air_pull(start, config.air) if config.air > 0 else start.real.new_zeros(())
    scale = 1 + config.air  # so that the largest eigenvalue stays at most 1
    images = fista(
        lambda x: (operator.normal(x) + pull * x) / scale,
        target / scale,
        variation(scale),
        iterations=config.static_iterations if static else config.iterations,
        start=start,
    )
    return operator.to_grid(images)


def kt_estimate(kspace: Tensor, mask: Tensor, maps: Tensor, config: KtConfig) -> Tensor:
    """`kt_images` of a batch of clips, without gradients: the first estimate of an unrolled network.

    Parameters
    ----------
    kspace : Tensor
        `(item, frame, coil, row, column)` complex64 in units of the noise standard deviation; rows along
        the readout.
    mask : Tensor
        `(item, frame, row, column)` bool.
    maps : Tensor
        `(item, coil, row, column)`.
    config : KtConfig
        Weights and iterations.

    Returns
    -------
    Tensor
        `(item, frame, row, column)` complex64.
    """
    images = []
    for clip in zip(kspace, mask, maps[:, None], strict=True):
        data, sampled, coils = (np.ascontiguousarray(t.detach().mT.cpu().numpy()) for t in clip)
        images.append(kt_images(data, sampled, coils, config, kspace.device))
    return torch.from_numpy(np.stack(images)).mT.contiguous().to(kspace.device)


def _around_the_mean(
    operator: SenseOperator,
    target: Tensor,
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    maps: NDArray[np.complex64],
) -> Tensor:
    """CG-SENSE of every frame, drawn towards CG-SENSE of the time average instead of towards zero."""
    count = mask.sum(axis=0)
    total = np.zeros(data.shape[1:], np.complex64)
    for samples, sampled in zip(data, mask, strict=True):
        total += samples * sampled
    average = total / np.maximum(count, 1).astype(np.float32)
    still = SenseOperator(maps, (count > 0)[None], operator.device)
    mean = conjugate_gradients(
        lambda x: still.normal(x) + MEAN_REGULARISATION * x,
        still.matched(average[None]),
        iterations=START_ITERATIONS,
    )
    return conjugate_gradients(
        lambda x: operator.normal(x) + FRAME_REGULARISATION * x,
        target + FRAME_REGULARISATION * mean,
        iterations=START_ITERATIONS,
        start=mean.expand_as(target),
    )


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

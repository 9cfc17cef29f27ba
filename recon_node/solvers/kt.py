r"""k-t sparse SENSE: all frames of a cine together, sparse in their changes over time and space.

.. math:: \min_x \tfrac12\|A x - y\|^2 + \lambda_t\|D_t x\|_1 + \lambda_s\|D_{xy} x\|_1
    + \tfrac12 \sum_r w_r |x_r|^2

Parallel imaging with temporal and spatial total variation (k-t SPARSE-SENSE, Otazo et al., Magn Reson
Med 64:767, 2010, with the total variation of Feng et al., Magn Reson Med 72:707, 2014, eq. 1, cyclic in
time) and a weak pull towards zero in the air around the body.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recon_node.schema import Checked, checked
from recon_node.solvers.air import air_pull
from recon_node.solvers.exact import LineSystems
from recon_node.solvers.fista import fista
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.tikhonov import tikhonov
from recon_node.solvers.total_variation import TotalVariation
from recon_node.solvers.unfolding import unfold, unfolds

START_ITERATIONS = 15
"""Conjugate-gradient iterations of the first guess."""
MEAN_REGULARISATION = 0.001
FRAME_REGULARISATION = 0.01
"""Tikhonov weights of the first guess: of the time average, and of each frame's distance to it."""


Iterations = Annotated[int, Field(ge=1, le=100_000)]
Weight = Annotated[float, Field(ge=0, le=1e9)]


@checked(section="kt", label="network configuration")
class KtConfig(Checked):
    """Settings of k-t sparse SENSE, as a method and as a network's first estimate."""

    temporal: Weight = 0.3
    """Weight of changes between neighbouring frames, in units of the noise standard deviation."""
    spatial: Weight = 0.03
    """Weight of changes between neighbouring pixels, same units."""
    single_spatial: Weight = 0.05
    """`spatial` for a frame that has no others to learn from."""
    iterations: Iterations = 70
    """FISTA iterations where the sampled lines differ from frame to frame."""
    static_temporal: Weight = 0.12
    """`temporal` where all frames sample the same lines: parallel imaging alone must then unfold them."""
    static_spatial: Weight = 0.02
    """`spatial` there."""
    static_iterations: Iterations = 200
    """`iterations` there, where they are no whole lines; unfolding converges more slowly."""
    unfolding_iterations: Iterations = 60
    """ADMM iterations where all frames sample the same whole lines (`recon_node.solvers.unfolding`)."""
    air: Weight = 0.2
    """Pull towards zero where there is air, in units of the largest eigenvalue of ``A^H A``; 0 for none."""


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

    systems = LineSystems(operator) if operator.lines else None
    start = _around_the_mean(operator, target, data, mask, maps, systems)
    if systems is not None and len(systems.sets) == 1 and unfolds(systems):
        images = unfold(
            systems, target, variation, air=config.air, iterations=config.unfolding_iterations, start=start
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
    systems: LineSystems | None,
) -> Tensor:
    """SENSE of every frame, drawn towards SENSE of the time average instead of towards zero."""
    count = mask.sum(axis=0)
    total = np.zeros(data.shape[1:], np.complex64)
    for samples, sampled in zip(data, mask, strict=True):
        total += samples * sampled
    average = total / np.maximum(count, 1).astype(np.float32)
    still = SenseOperator(maps, (count > 0)[None], operator.device)
    mean = tikhonov(still, still.matched(average[None]), MEAN_REGULARISATION, iterations=START_ITERATIONS)
    return tikhonov(
        operator, target, FRAME_REGULARISATION, prior=mean, iterations=START_ITERATIONS, systems=systems
    )

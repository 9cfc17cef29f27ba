r"""k-t sparse SENSE: all frames of a cine together, in two passes.

The first asks for changes over time and space that are sparse:

.. math:: \min_x \tfrac12\|A x - y\|^2 + \lambda_t\|D_t x\|_1 + \lambda_s\|D_{xy} x\|_1
    + \tfrac12 \sum_r w_r |x_r|^2

Parallel imaging with temporal and spatial total variation (k-t SPARSE-SENSE, Otazo et al., Magn Reson
Med 64:767, 2010, with the total variation of Feng et al., Magn Reson Med 72:707, 2014, eq. 1, cyclic in
time) and a weak pull towards zero in the air around the body. The second takes the first one's phase, local
covariances over time and edges for its prior (`recon_node.solvers.learned`), and half-way learns them anew:
hearts move smoothly where total variation would have them move in steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from recon_node.core.mapsets import joined
from recon_node.schema import Checked, checked
from recon_node.solvers.air import air_pull
from recon_node.solvers.device import one_thread
from recon_node.solvers.exact import Inverses, LineSystems
from recon_node.solvers.fista import fista
from recon_node.solvers.learned import edge_weights, learned_prior
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.planes import from_planes, in_planes, to_planes
from recon_node.solvers.tikhonov import tikhonov
from recon_node.solvers.total_variation import TotalVariation
from recon_node.solvers.unfolding import PENALTY, REFINING_PENALTY, inverses_with_air, unfold, unfolds

Prior: TypeAlias = Callable[[float], Callable[[Tensor], Tensor]]
"""Given a number, the proximal operator of a prior divided by it, on series in planes."""

START_ITERATIONS = 15
"""Conjugate-gradient iterations of the first guess."""
AIR_KNOWN = 4
"""Iterations of unfolding that knowing where air is spares: else it is looked for on the way."""
LEAST_NOISE = 5e-3
"""Standard deviation of noise that is reckoned with at least, as a share of the root mean square of the first
guess: coil maps are no better known, and single precision knows no weights that are far smaller."""
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
    iterations: Iterations = 28
    """FISTA iterations where the sampled lines differ from frame to frame."""
    static_temporal: Weight = 0.12
    """`temporal` where all frames sample the same lines: parallel imaging alone must then unfold them."""
    static_spatial: Weight = 0.02
    """`spatial` there."""
    static_iterations: Iterations = 120
    """`iterations` there, where they are no whole lines; unfolding converges more slowly."""
    unfolding_iterations: Iterations = 16
    """ADMM iterations where all frames sample the same whole lines (`recon_node.solvers.unfolding`), after
    one that starts from the time average."""
    refinements: Annotated[int, Field(ge=0, le=100_000)] = 40
    """Iterations of the second pass, in two halves, each with what the estimate so far has taught; 0 leaves
    it out."""
    floor: Weight = 0.2
    """Standard deviation that the second pass grants whatever the first has not found, in units of the noise
    standard deviation."""
    imaginary: Weight = 0.5
    """Of the power that the first estimate has beside its smooth phase, how much counts as the object's: the
    estimate's errors have any phase."""
    edge: Weight = 0.05
    """`spatial` of the second pass where the first has no edge."""
    edge_scale: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    """Difference of neighbouring pixels at which half of `edge` is left, same units."""
    static_refinements: Annotated[int, Field(ge=0, le=100_000)] = 80
    """`refinements` where all frames sample the same points, which are no whole lines."""
    unfolding_refinements: Annotated[int, Field(ge=0, le=100_000)] = 24
    """`refinements` where all frames sample the same whole lines."""
    static_edge: Weight = 0.1
    """`edge` there: most of the error is in the time average, which nothing along time helps to unfold."""
    static_imaginary: Weight = 1.0
    """`imaginary` there: an estimate that is not unfolded yet has a phase that is not the object's."""
    air: Weight = 0.2
    """Pull towards zero where there is air, in units of the largest eigenvalue of ``A^H A``; 0 for none."""


def kt_images(
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    maps: NDArray[np.complex64],
    config: KtConfig,
    device: torch.device,
    *,
    unit: float = 1.0,
    seen: NDArray[np.complex64] | None = None,
    matched: Tensor | None = None,
) -> NDArray[np.complex64]:
    """`kt_parts`, its map sets joined: `(phase, y, x)` complex64."""
    return joined(kt_parts(data, mask, maps, config, device, unit=unit, seen=seen, matched=matched))


@one_thread()
@torch.inference_mode()
def kt_parts(
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    maps: NDArray[np.complex64],
    config: KtConfig,
    device: torch.device,
    *,
    unit: float = 1.0,
    seen: NDArray[np.complex64] | None = None,
    matched: Tensor | None = None,
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
    seen : ndarray, optional
        `(phase, y, x)` complex64, images of a scan that `data` is a part of, in its unit. Where all frames
        share whole lines, they say where air is, and one set of inverses does for both passes: it is else
        looked for in what is being made, with inverses made anew each time.
    matched : Tensor, optional
        What `SenseOperator.matched` gives for these data, masks and maps, where it was made before.

    Returns
    -------
    ndarray
        `(phase, map, y, x)` complex64.
    """
    problem = _Problem(data, mask, maps, config, device, seen, matched)
    temporal, spatial = _weights(mask, config)
    start = problem.start()
    unit = max(unit, LEAST_NOISE * float(start.abs().square().mean().sqrt()))
    images = problem.solve(
        lambda divisor: TotalVariation(temporal * unit / divisor, spatial * unit / divisor), start
    )
    still = bool((mask == mask[:1]).all())
    edge, imaginary = (
        (config.static_edge, config.static_imaginary) if still else (config.edge, config.imaginary)
    )
    refinements = problem.iterations(
        config.refinements, config.static_refinements, config.unfolding_refinements
    )
    for iterations in (refinements // 2, refinements - refinements // 2) if len(mask) > 1 else ():
        if iterations > 0:
            edges = edge_weights(images, edge * unit, config.edge_scale * unit)
            prior = learned_prior(
                images, floor=config.floor * unit, edges=edges, noise=unit, imaginary=imaginary
            )
            images = problem.solve(prior, images, iterations=iterations)
    return problem.operator.to_grid(images)


def _weights(mask: NDArray[np.bool_], config: KtConfig) -> tuple[float, float]:
    """Weights of total variation over time and over space for a mask `(frame, ky, kx)`."""
    if len(mask) == 1:
        return 0.0, config.single_spatial
    if bool((mask == mask[:1]).all()):
        return config.static_temporal, config.static_spatial
    return config.temporal, config.spatial


class _Problem:
    """``1/2 |A x - y|^2`` and a pull towards zero in air, to be solved with one prior after another."""

    def __init__(
        self,
        data: NDArray[np.complex64],
        mask: NDArray[np.bool_],
        maps: NDArray[np.complex64],
        config: KtConfig,
        device: torch.device,
        seen: NDArray[np.complex64] | None,
        matched: Tensor | None,
    ) -> None:
        self.operator = SenseOperator(maps, mask, device)
        self._target = self.operator.matched(data) if matched is None else matched
        self._systems = LineSystems.of(self.operator) if self.operator.lines else None
        still = self._systems is not None and len(self._systems.sets) == 1
        self._exact = self._systems if still and unfolds(self._systems) else None
        self._data, self._mask, self._maps, self._config = data, mask, maps, config
        self._told: Inverses | None = None
        self._refining: Inverses | None = None
        if self._exact is not None and seen is not None:
            shown = self.operator.from_grid(seen[:, None])
            self._told = inverses_with_air(self._exact, shown, air=config.air, penalty=PENALTY)

    def start(self) -> Tensor:
        """SENSE around the time average; of it alone where the first iteration does the rest."""
        if self._exact is not None:
            mean = self._target.mean(dim=0, keepdim=True)
            if self._told is not None:
                return from_planes(self._told(to_planes(mean.expand_as(self._target))))[:1]
            return self._exact.of_one().solve(mean, MEAN_REGULARISATION)
        return _around_the_mean(
            self.operator, self._target, self._data, self._mask, self._maps, self._systems
        )

    def solve(self, prior: Prior, start: Tensor, *, iterations: int | None = None) -> Tensor:
        """Minimise from `start`; with `iterations`, `start` is an estimate already, and shows the air.

        Where inverses are needed, the first such estimate shows it for later ones, too.
        """
        config, operator = self._config, self.operator
        refine = iterations is not None
        count = iterations or self.iterations(
            config.iterations, config.static_iterations, config.unfolding_iterations
        )
        if self._exact is not None:
            inverses, penalty = self._told, PENALTY
            if inverses is None and refine:
                inverses, penalty = self._inverses_of(self._exact, start), REFINING_PENALTY
            return unfold(
                self._exact,
                self._target,
                prior,
                air=config.air,
                iterations=count if refine else self._first_iterations(count),
                start=start,
                penalty=penalty,
                inverses=inverses,
            )
        pull = air_pull(start, config.air) if config.air > 0 else start.real.new_zeros(())
        scale = 1 + config.air  # so that the largest eigenvalue stays at most 1
        return fista(
            lambda x: (operator.normal(x) + pull * x) / scale,
            self._target / scale,
            in_planes(prior(scale)),
            iterations=count,
            start=start,
        )

    def _first_iterations(self, count: int) -> int:
        """One more from the time average; fewer where air is known from the start."""
        return max(1, count - AIR_KNOWN) if self._told is not None else count + 1

    def _inverses_of(self, exact: LineSystems, estimate: Tensor) -> Inverses:
        """For refining: of the first estimate, and kept."""
        if self._refining is None:
            self._refining = inverses_with_air(
                exact, estimate, air=self._config.air, penalty=REFINING_PENALTY
            )
        return self._refining

    def iterations(self, moving: int, static: int, unfolding: int) -> int:
        """Which of three numbers holds: masks that differ, equal ones, equal ones of whole lines."""
        if self._exact is not None:
            return unfolding
        return static if bool((self._mask == self._mask[:1]).all()) else moving


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
        with torch.autocast(kspace.device.type, enabled=False):  # half precision is for UNets alone
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

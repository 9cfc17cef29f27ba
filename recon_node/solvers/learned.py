r"""What an estimate of a cine teaches of the next one: its phase, how tissue varies in time, where edges are.

Tissue of one place does the same at the same time, so the covariance over frames, of a neighbourhood in the
estimate, is a far better prior than any sparsity: a normal distribution around the time average with it
shrinks what the neighbourhood never does (a principal component analysis of a place; Pedersen et al., Magn
Reson Med 62:706, 2009, for whole images). Part of it is taken as stationary, which is the power at each
temporal frequency (k-t SENSE: Tsao et al., Magn Reson Med 50:1031, 2003; iterated from the image itself: Jung
et al., Magn Reson Med 61:103, 2009).

Images are smooth in phase, apart from their sign: turned by their own smooth phase, nearly all is real (as in
phase-constrained SENSE: Willig-Onwuachi et al., J Magn Reson 176:187, 2005), and what is not has a covariance
of its own, small unless the estimate shows otherwise, as where fat meets water, or of flow. Lines then tell
of those opposite the centre as well.

Total variation over space is weakened where the estimate has an edge (Candes et al., J Fourier Anal Appl
14:877, 2008).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from recon_node.solvers.planes import to_planes
from recon_node.solvers.total_variation import TotalVariation, smooth

SMOOTH = 2.8
"""Standard deviation, pixels, of the average whose phase counts as smooth."""
BLOCKS = ((48, 4), (96, 8))
"""Most frames, and the side in pixels of blocks that share one covariance; with more frames `LARGEST_BLOCK`:
the matrices of a series take memory by its frames squared."""
LARGEST_BLOCK = 16
STATIONARY = 0.15
"""Share of the covariance that is taken as stationary."""
_PART_BYTES = 1 << 24
"""Matrices that are inverted together."""
_VALUES = 1 << 17
"""Of all frames of some rows of blocks that are worked on together on a CPU."""
_FOUR = torch.complex128
"""As wide as four float32 numbers: the sides of blocks are multiples of four, and are moved so."""


def smooth_phase(images: Tensor, deviation: float = SMOOTH) -> Tensor:
    """Phase of a Gaussian average over the last two axes, opposite edges being neighbours.

    Parameters
    ----------
    images : Tensor
        `(..., x, y)` complex.
    deviation : float
        Standard deviation, pixels.

    Returns
    -------
    Tensor
        Like `images`, of magnitude 1; 1 where there is nothing.
    """
    kept = [
        torch.exp(-2 * (torch.pi * deviation * torch.fft.fftfreq(n, device=images.device)).square())
        for n in images.shape[-2:]
    ]
    low = torch.fft.ifft2(torch.fft.fft2(images) * (kept[0][:, None] * kept[1]))
    return torch.polar(torch.ones_like(low.real), low.angle())


def edge_weights(images: Tensor, weight: float, scale: float) -> tuple[Tensor, Tensor]:
    """Weights of total variation along x and y, weaker where all frames together have an edge.

    Parameters
    ----------
    images : Tensor
        `(frame, map, x, y)` complex.
    weight : float
        Weight where `images` are flat.
    scale : float
        Difference of neighbouring pixels at which half of it is left.

    Returns
    -------
    tuple of Tensor
        `(x, y)` each.
    """
    along = []
    for axis in (-2, -1):
        step = (images.roll(-1, axis) - images).abs().square().mean(dim=(0, 1))
        along.append(weight * scale / (smooth(step, rounds=1).sqrt() + scale))
    return along[0], along[1]


def learned_prior(
    images: Tensor, *, floor: float, edges: tuple[Tensor, Tensor], noise: float, imaginary: float
) -> Callable[[float], Callable[[Tensor], Tensor]]:
    """Shrinkage by local covariances over time, then total variation over space, as one proximal step.

    Parameters
    ----------
    images : Tensor
        `(frame, map, x, y)` complex, the estimate to learn from; opposite edges are neighbours.
    floor : float
        Standard deviation that everything is granted, unit of the images.
    edges : tuple of Tensor
        Weights of total variation, see `edge_weights`.
    noise : float
        Standard deviation of the complex noise in the samples, above 0.
    imaginary : float
        Of the power that `images` have beside their smooth phase, how much counts as the object's.

    Returns
    -------
    callable
        Given a number, the proximal operator of the prior divided by it, on series in planes
        (`recon_node.solvers.planes`).
    """
    turn = smooth_phase(images)
    upright = images * turn.conj()
    blocks = _Blocks(images)
    moving = blocks.covariance(upright.real - upright.real.mean(dim=0))
    beside = imaginary * blocks.covariance(upright.imag)
    granted = max(floor, 1e-12) ** 2 / 2

    def proximal(divisor: float) -> Callable[[Tensor], Tensor]:
        off = noise**2 / 2 / divisor
        real, imag = _kept(moving, granted, off, without_mean=True), _kept(beside, granted, off)
        real += off / (granted + off) / len(images)  # the time average has no mean to shrink to
        shrink = _Shrinkage(turn, blocks, real, imag)
        variation = TotalVariation(0.0, (edges[0] / divisor, edges[1] / divisor))
        return lambda x: variation(shrink(x))

    return proximal


def _kept(covariance: Tensor, granted: float, off: float, *, without_mean: bool = False) -> Tensor:
    """``(C + g)(C + g + off)^-1`` for covariances `C` `(..., frame, frame)`, `without_mean` over frames.

    Rounding of a `C` far above `g + off` is made up for: its mean is taken out once more, and eigenvalues
    below 0 count as 0.
    """
    flat = covariance.flatten(0, -3)
    several = max(1, _PART_BYTES // (8 * flat.shape[1] ** 2))
    one = torch.eye(flat.shape[1], dtype=torch.float64, device=flat.device)
    out = torch.empty_like(flat)
    for some, into in zip(torch.split(flat, several), torch.split(out, several), strict=True):
        exact = (some.double() + some.mT) / 2
        if without_mean:
            exact -= exact.mean(dim=-1, keepdim=True)
            exact -= exact.mean(dim=-2, keepdim=True)
        factor, failed = torch.linalg.cholesky_ex(exact + (granted + off) * one)
        into.copy_(one - off * torch.cholesky_inverse(factor))
        for place in failed.nonzero().flatten().tolist():
            into[place] = _kept_of_positive(exact[place], granted, off)
    return out.view_as(covariance)


def _kept_of_positive(covariance: Tensor, granted: float, off: float) -> Tensor:
    """As `_kept`, of the nearest matrix without eigenvalues below 0; not finite where that is not."""
    if not bool(torch.isfinite(covariance).all()):
        return torch.full_like(covariance, torch.nan)
    values, vectors = torch.linalg.eigh(covariance)
    power = values.clamp(min=0) + granted
    return torch.as_tensor((vectors * (power / (power + off))) @ vectors.mT)


class _Shrinkage:
    """Each block of series in planes, upright in phase, times a matrix over its frames.

    What comes back is overwritten by the next call.

    Parameters
    ----------
    turn : Tensor
        `(frame, map, x, y)` complex of magnitude 1: the phase that is upright.
    blocks : _Blocks
    real, imag : Tensor
        `(map, down, across, frame, frame)`: of what is along that phase, and of what is beside it.
    """

    def __init__(self, turn: Tensor, blocks: _Blocks, real: Tensor, imag: Tensor) -> None:
        self._turn = to_planes(turn)
        self._blocks, self._keeps = blocks, (real, imag)
        side, down = blocks.side, real.shape[1]
        values = len(turn) * side * turn.shape[-1]
        self._room = torch.empty(0)
        self._step = down if turn.device.type != "cpu" else max(1, _VALUES // values)

    def __call__(self, planes: Tensor) -> Tensor:
        if self._room.shape != planes.shape:
            self._room = torch.empty_like(planes)
        out = self._room
        side, (sets, down) = self._blocks.side, self._keeps[0].shape[:2]
        for number in range(sets):
            for first in range(0, down, self._step):  # in the cache from one turn to the other
                rows = slice(first * side, (first + self._step) * side)
                some, (cos, sin) = planes[:, :, number, rows], self._turn[:, :, number, rows]
                upright = (some[0] * cos + some[1] * sin, some[1] * cos - some[0] * sin)
                real, imag = (
                    self._blocks.weighted(keep[number, first : first + self._step], part)
                    for keep, part in zip(self._keeps, upright, strict=True)
                )
                torch.sub(real * cos, imag * sin, out=out[0, :, number, rows])
                torch.add(real * sin, imag * cos, out=out[1, :, number, rows])
        return out


class _Blocks:
    """Square blocks of pixels of series like `images`, `(frame, map, x, y)`; all frames of one together."""

    def __init__(self, images: Tensor) -> None:
        frames = len(images)
        self.side = next((side for most, side in BLOCKS if frames <= most), LARGEST_BLOCK)

    def weighted(self, matrices: Tensor, part: Tensor) -> Tensor:
        """`(frame, x, y)` real, each block times its own of the matrices `(down, across, frame, frame)`."""
        down, across, frames = matrices.shape[:3]
        made = matrices @ self._of(part)
        fours = made.view(down, across, frames, self.side, self.side).view(_FOUR).permute(2, 0, 3, 1, 4)
        whole = fours.contiguous().view(made.dtype).view(frames, down * self.side, across * self.side)
        return whole[:, : part.shape[1], : part.shape[2]]

    def covariance(self, series: Tensor) -> Tensor:
        """Mean product of frames, `(map, down, across, frame, frame)`, of real `(frame, map, x, y)`.

        Over the block and, with the weights of a Gaussian of one block, those around it.
        """
        found = []
        for part in series.unbind(1):
            some = self._of(part)
            found.append(some @ some.mT / self.side**2)
        local = smooth(torch.stack(found), axes=(1, 2))
        return torch.lerp(local, _stationary(local), STATIONARY)

    def _of(self, part: Tensor) -> Tensor:
        """`(frame, x, y)` to `(down, across, frame, pixel)`, zeros where it ends within a block."""
        frames, *size = part.shape
        down, across = (-(-n // self.side) for n in size)
        wanted = (0, across * self.side - size[1], 0, down * self.side - size[0])
        if any(wanted):
            part = functional.pad(part, wanted)
        apart = part.contiguous().view(frames, down, self.side, across, self.side)
        fours = apart.view(_FOUR).permute(1, 3, 0, 2, 4).contiguous()
        return fours.view(part.dtype).view(down, across, frames, -1)


def _stationary(covariance: Tensor) -> Tensor:
    """The mean over all pairs of frames that lie equally far apart, once round the series."""
    frames = covariance.shape[-1]
    place = torch.arange(frames, device=covariance.device)
    later = (place[:, None] + place) % frames
    by_lag = covariance.gather(-1, later.expand_as(covariance)).mean(dim=-2)
    return by_lag[..., (place - place[:, None]) % frames]

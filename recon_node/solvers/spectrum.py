r"""What a first estimate of a cine teaches of the next one: how tissue varies in time, and where edges are.

In most pixels of a heart only the slow temporal frequencies hold signal, and hardly any hold it outside the
heart. The power of a first estimate at every pixel and temporal frequency, averaged over neighbours, serves
as the variance of a normal distribution around the time average (as training images do in k-t SENSE:
Tsao et al., Magn Reson Med 50:1031, 2003; iterated from the image itself in k-t FOCUSS: Jung et al., Magn
Reson Med 61:103, 2009). Total variation over space is weakened where the first estimate has an edge
(Candes et al., J Fourier Anal Appl 14:877, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recon_node.solvers.total_variation import TotalVariation, smooth

_PIXELS = 4096
"""Whose whole series are worked on together on a CPU."""


def temporal_power(images: Tensor) -> Tensor:
    """Power at every temporal frequency, averaged over 5 x 5 neighbours (Gaussian, one pixel).

    Parameters
    ----------
    images : Tensor
        `(frame, map, x, y)` complex; opposite edges are neighbours.

    Returns
    -------
    Tensor
        `(frequency, map, x, y)` real, of the unitary transform over frames.
    """
    return smooth(torch.fft.fft(images, dim=0, norm="ortho").abs().square())


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


def spectral_prior(
    images: Tensor, *, floor: float, edges: tuple[Tensor, Tensor], noise: float
) -> Callable[[float], Callable[[Tensor], Tensor]]:
    """Shrinkage by temporal power, then total variation over space, as one proximal step.

    Parameters
    ----------
    images : Tensor
        `(frame, map, x, y)` complex, the first estimate.
    floor : float
        Standard deviation that every temporal frequency is granted, unit of the images.
    edges : tuple of Tensor
        Weights of total variation, see `edge_weights`.
    noise : float
        Standard deviation of the complex noise in the samples.

    Returns
    -------
    callable
        Given a number, the proximal operator of the prior divided by it, on series in planes
        (`recon_node.solvers.planes`).
    """
    variance = temporal_power(images) + max(floor, 1e-12) ** 2

    def proximal(divisor: float) -> Callable[[Tensor], Tensor]:
        kept = variance / (variance + noise**2 / divisor)
        kept[0] = 1  # the time average has no mean to shrink to
        shrink = _Shrinkage(kept)
        variation = TotalVariation(0.0, (edges[0] / divisor, edges[1] / divisor))
        return lambda x: variation(shrink(x))

    return proximal


class _Shrinkage:
    """Every temporal frequency of series in planes times a number of its own in every pixel.

    What comes back is overwritten by the next call.

    Parameters
    ----------
    kept : Tensor
        `(frequency, map, x, y)` real.
    """

    def __init__(self, kept: Tensor) -> None:
        self._kept = kept.flatten(1)
        self._turn = _fourier(len(kept)).to(kept)
        self._back = self._turn.T.contiguous()
        self._room = torch.empty(0)

    def __call__(self, planes: Tensor) -> Tensor:
        frames, pixels = self._kept.shape
        flat = planes.reshape(2 * frames, pixels)
        if self._room.shape != flat.shape:
            self._room = torch.empty_like(flat)
        step = pixels if planes.device.type != "cpu" else _PIXELS
        for first in range(0, pixels, step):  # in the cache from one transform to the other
            some = slice(first, first + step)
            spectrum = self._turn @ flat[:, some]
            spectrum.view(2, frames, -1).mul_(self._kept[:, some])
            torch.mm(self._back, spectrum, out=self._room[:, some])
        return self._room.view_as(planes)


def _fourier(frames: int) -> Tensor:
    """`(2 frame, 2 frame)` float64: the unitary Fourier transform of real parts, then imaginary ones.

    A series of tens of frames is transformed by a matrix sooner than by a fast transform along the slowest
    axis.
    """
    turns = 2 * math.pi / frames * torch.outer(*(torch.arange(frames, dtype=torch.float64),) * 2)
    real, imag = turns.cos() / frames**0.5, turns.sin() / frames**0.5
    return torch.cat([torch.cat([real, imag], dim=1), torch.cat([-imag, real], dim=1)])

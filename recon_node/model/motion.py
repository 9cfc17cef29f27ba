r"""Motion between frames, and neighbours moved onto the frame they are shown for.

A beating heart and a breathing chest show the same tissue in every frame, at another place. Displacements
are found by iterated least squares on local windows (Lucas and Kanade, Proc IJCAI 674, 1981), from coarse to
fine (Bouguet, Intel, 2000), in the magnitudes of a first estimate; frames are moved with bicubic
interpolation.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

ROUNDS = (3, 2)
"""Updates of the displacement at a quarter and at half the resolution; one more, with what images of full
resolution say, is made on the grid of half the resolution. More of them change nothing that a reconstruction
would show."""
WINDOW = 2.0
"""Standard deviation of the Gaussian window, pixels of the resolution at hand."""
SMOOTHING = 1.4
"""Standard deviation by which displacements are smoothed after each update."""
FLAT = 0.02
"""Gradients below this fraction of the largest magnitude say nothing about motion."""
LONGEST_STEP = 1.0
"""Largest update, pixels of the resolution at hand."""
TOLERANCE = 3.0
"""Difference, in noise standard deviations, by which a moved neighbour loses its say in `fused`."""
_BLUR_BEFORE_HALVING = 0.8


def offsets(count: int) -> list[int]:
    """The frame itself first, then its neighbours, nearest first: 0, -1, 1, -2, 2 for `count` 5."""
    reach = count // 2
    return sorted(range(-reach, reach + 1), key=abs)


def neighbour_indices(frames: slice, total: int, count: int, *, periodic: bool) -> Tensor:
    """Which frames stand beside each other, `(frame, count)` in the order of `offsets`.

    A series that is not periodic repeats its first and last frame.
    """
    index = torch.arange(frames.start, frames.stop)[:, None] + torch.tensor(offsets(count))
    return index % total if periodic else index.clamp(0, total - 1)


@torch.no_grad()
def find_motion(images: Tensor, count: int, *, periodic: bool) -> Tensor:
    """Displacements from each frame to its neighbours.

    Parameters
    ----------
    images : Tensor
        `(frame, row, column)` complex; only magnitudes count.
    count : int
        Odd number of frames, the frame itself among them.
    periodic : bool
        Whether the last frame is followed by the first.

    Returns
    -------
    Tensor
        `(frame, count, 2, row, column)` float32, pixels along rows and columns: what frame `t` shows at `r`
        lies in its neighbour at ``r + displacement``. The first of `count` is zero.
    """
    size = images.abs().float()
    size = size / size.amax().clamp_min(1e-12)
    index = neighbour_indices(slice(0, len(size)), len(size), count, periodic=periodic)
    motion = size.new_zeros(len(size), count, 2, *size.shape[1:])
    levels = _pyramid(size.unsqueeze(1))
    for frame, others in enumerate(index):
        motion[frame, 1:] = _displacement([(level[frame], level[others[1:]]) for level in levels])
    return motion


def moved(images: Tensor, displacement: Tensor) -> Tensor:
    """Images read at displaced positions, bicubic; the rim is repeated outside.

    Parameters
    ----------
    images : Tensor
        `(n, channel, row, column)` float32.
    displacement : Tensor
        `(n, 2, row, column)` pixels.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device, dtype=displacement.dtype)[:, None]
    columns = torch.arange(width, device=images.device, dtype=displacement.dtype)
    where = torch.stack(
        [
            (columns + displacement[:, 1] + 0.5) * (2 / width) - 1,
            (rows + displacement[:, 0] + 0.5) * (2 / height) - 1,
        ],
        dim=-1,
    )
    return functional.grid_sample(images, where, mode="bicubic", padding_mode="border", align_corners=False)


def fused(planes: Tensor, *, tolerance: float) -> Tensor:
    """Mean of a frame and its moved neighbours, each weighted by how well it agrees with the frame.

    Parameters
    ----------
    planes : Tensor
        `(n, count, 2, row, column)`: real and imaginary parts, the frame itself first.
    tolerance : float
        Standard deviation, in units of the images, of the Gaussian weight of a locally averaged difference.

    Returns
    -------
    Tensor
        `(n, 2, row, column)`.
    """
    distance = (planes[:, 1:] - planes[:, :1]).square().sum(dim=2)
    near = _blurred(distance, 1.0)
    weight = torch.exp(-near / (2 * tolerance**2)).unsqueeze(2)
    total = planes[:, 0] + (weight * planes[:, 1:]).sum(dim=1)
    mean: Tensor = total / (1 + weight.sum(dim=1))
    return mean


def _pyramid(images: Tensor) -> list[Tensor]:
    """Images `(n, 1, row, column)` at a quarter, half and full resolution."""
    levels = [images]
    for _ in ROUNDS:
        levels.insert(0, _halved(_blurred(levels[0], _BLUR_BEFORE_HALVING)))
    return levels


def _displacement(levels: list[tuple[Tensor, Tensor]]) -> Tensor:
    """`(n, 2, row, column)` from an image and others at each resolution, the coarsest first.

    They are `(1, row, column)` and `(n, 1, row, column)`, the largest magnitude about one.
    """
    others = levels[0][1]
    motion = others.new_zeros(len(others), 2, *others.shape[-2:])
    for rounds, (still, other) in zip(ROUNDS, levels[:-1], strict=True):
        if motion.shape[-2:] != other.shape[-2:]:
            motion = _doubled(motion, other)
        for _ in range(rounds):
            step = _step(_products(still, moved(other, motion)), WINDOW)
            motion = _blurred(motion + step, SMOOTHING)
    still, other = levels[-1]
    products = _halved(_products(still, moved(other, _doubled(motion, other))))
    motion = _blurred(motion + _step(products, WINDOW / 2) / 2, SMOOTHING / 2)
    return _doubled(motion, other)


def _halved(x: Tensor) -> Tensor:
    """Half the resolution, at least; an odd last row or column stays one of its own."""
    return functional.avg_pool2d(x, 2, ceil_mode=True)


def _doubled(motion: Tensor, like: Tensor) -> Tensor:
    """Displacements at twice the resolution, in its pixels, as large as `like`."""
    wide = 2 * functional.interpolate(motion, scale_factor=2, mode="bilinear", align_corners=False)
    return wide[..., : like.shape[-2], : like.shape[-1]]


def _products(still: Tensor, other: Tensor) -> Tensor:
    """`(n, 5, row, column)`: what least squares need of the gradients and of ``other - still``."""
    mean = (still + other) / 2
    down = functional.pad((mean[..., 2:, :] - mean[..., :-2, :]) / 2, (0, 0, 1, 1))
    across = functional.pad((mean[..., 2:] - mean[..., :-2]) / 2, (1, 1, 0, 0))
    change = other - still
    return torch.cat([down * down, across * across, down * across, down * change, across * change], dim=1)


def _step(products: Tensor, window: float) -> Tensor:
    """One least-squares step: the displacement that explains ``other - still`` by their gradients."""
    yy, xx, xy, yd, xd = torch.chunk(_blurred(products, window), 5, dim=1)
    yy, xx = yy + FLAT**2, xx + FLAT**2
    area = yy * xx - xy * xy
    step = torch.cat([(xy * xd - xx * yd) / area, (xy * yd - yy * xd) / area], dim=1)
    return step.clamp(-LONGEST_STEP, LONGEST_STEP)


def _blurred(x: Tensor, deviation: float) -> Tensor:
    """Gaussian blur of `(..., row, column)`; the rim is repeated outside.

    As weighted sums of shifted images: on a CPU several times as fast as a convolution of one channel.
    """
    weights = _gaussian(deviation)
    reach = len(weights) - 1
    for axis in (-2, -1):
        size = x.shape[axis]
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, size - 1, 1)
        wide = torch.cat([first] * reach + [x] + [last] * reach, dim=axis)
        out = wide.narrow(axis, reach, size) * weights[0]
        for step in range(1, reach + 1):
            for place in (reach - step, reach + step):
                out.add_(wide.narrow(axis, place, size), alpha=weights[step])
        x = out
    return x


@lru_cache(maxsize=16)
def _gaussian(deviation: float) -> tuple[float, ...]:
    """Weights at distances of 0, 1, 2, ... pixels; those of both sides add up to one."""
    reach = round(3 * deviation)
    one = [math.exp(-(step**2) / (2 * deviation**2)) for step in range(reach + 1)]
    total = one[0] + 2 * sum(one[1:])
    return tuple(value / total for value in one)


def cut_motion(motion: Tensor, window: slice) -> Tensor:
    """Displacements of a run of frames that now is a series of its own, not periodic.

    Parameters
    ----------
    motion : Tensor
        `(frame, count, 2, row, column)` of the whole series.
    window : slice
        The frames kept.
    """
    total, count = len(motion[window]), motion.shape[1]
    steps = neighbour_indices(slice(0, total), total, count, periodic=False) - torch.arange(total)[:, None]
    place = {offset: number for number, offset in enumerate(offsets(count))}
    chosen = torch.tensor([[place[int(step)] for step in row] for row in steps])
    return motion[window][torch.arange(total)[:, None], chosen]

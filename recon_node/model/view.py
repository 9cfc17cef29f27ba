"""What the UNets of an unrolled network see of a clip: frames and their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recon_node.model.config import CardioMMConfig
from recon_node.model.motion import TOLERANCE, fused, moved, neighbour_indices


class View:
    """What a UNet sees of a clip."""

    def __init__(self, config: CardioMMConfig, *, extra: Tensor | None, periodic: bool, noise: float) -> None:
        self.count, self.extra, self.periodic = config.frames, extra, periodic
        self.noise = noise
        self.motion: Tensor | None = None

    def of(self, images: Tensor, frames: slice) -> Tensor:
        """`(item, frame, row, column)` to `(item, chosen frame, image, row, column)`, the frame first."""
        index = neighbour_indices(frames, images.shape[1], self.count, periodic=self.periodic)
        parts = [images[:, index.to(images.device)]]
        if self.motion is not None:
            parts = self._aligned(parts[0], self.motion[:, frames])
        if self.extra is not None:
            parts.insert(1, self.extra[:, None, None].expand(-1, index.shape[0], 1, -1, -1))
        return torch.cat(parts, dim=2)

    def _aligned(self, seen: Tensor, motion: Tensor) -> list[Tensor]:
        """Neighbours moved onto their frame, and the mean of those that agree with it."""
        planes = torch.stack([seen.real, seen.imag], dim=3)
        here, others = planes[:, :, :1], planes[:, :, 1:]
        beside = moved(others.flatten(0, 2), motion[:, :, 1:].flatten(0, 2)).reshape(others.shape)
        planes = torch.cat([here, beside], dim=2)
        mean = fused(planes.flatten(0, 1), tolerance=TOLERANCE * self.noise).reshape(here.shape)
        return [torch.complex(some[:, :, :, 0], some[:, :, :, 1]) for some in (planes, mean)]


def frame_chunks(frames: int, size: int | None) -> Iterator[slice]:
    """Runs of at most `size` frames, one after the other; all frames together if None."""
    step = frames if size is None else size
    for start in range(0, frames, step):
        yield slice(start, min(start + step, frames))

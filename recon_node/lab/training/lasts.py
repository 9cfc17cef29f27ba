"""The last cascades alone: what comes to them is made once an example, and a step costs a few frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recon_node.lab.training.data import ExampleSet, heart_in
from recon_node.lab.training.example import Example
from recon_node.lab.training.text import TextFeatures
from recon_node.model import CardioMM
from recon_node.model.consistency import Physics
from recon_node.model.view import View

ROWS = 72
"""Rows of a window, where lines are sampled whole."""
FRAMES = 4
"""Neighbouring frames of a step."""
LOOK_EVERY, NEW_EVERY = 40, 8
"""Draws between looks at which examples the pool holds by now, and between new ones taken into memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Last:
    """A clip as it comes to the first cascade trained; `(1, frame, row, column)` if nothing else is said."""

    images: Tensor
    """After the cascade before, data consistency included."""
    first: Tensor
    measured: Tensor
    motion: Tensor
    """`(1, frame, count, 2, row, column)`."""
    physics: Physics
    target: Tensor
    """`(frame, row, column)` magnitudes."""
    heart: Tensor | None
    texts: tuple[Tensor, Tensor]
    """`(1, feature)` each, before the heads."""


class Lasts:
    """Draws frames from the examples of a pool, of those that are in it when asked.

    Parameters
    ----------
    examples : ExampleSet
        With a pool; what is not in it is made only where it holds nothing yet.
    text : TextFeatures
        The frozen text encoder.
    device : torch.device
        Where the arrays are kept.
    depth : int
        How many cascades, counted from the end, are trained.
    """

    def __init__(
        self, examples: ExampleSet, text: TextFeatures, device: torch.device, *, depth: int = 1
    ) -> None:
        self.examples, self.text, self.device, self.depth = examples, text, device, depth
        self.kept: dict[int, Last] = {}
        self._numbers: list[int] = []
        self._draws = 0

    def draw(self, rng: np.random.Generator, net: CardioMM) -> tuple[Tensor, Last]:
        """Images `(frame, row, column)` of a few frames, and the frames themselves (`target`, `first`)."""
        if self._draws % LOOK_EVERY == 0:
            self._numbers = self._there()
        missing = [number for number in self._numbers if number not in self.kept]
        if missing and (self._draws % NEW_EVERY == 0 or not self.kept):
            number = missing[int(rng.integers(len(missing)))]
            with torch.autocast(self.device.type, enabled=False):  # half precision is the network's alone
                example = self.examples[number]
                texts = self.text.features(example, drop=False)
            self.kept[number] = self._made(example, texts, net)
        else:
            number = list(self.kept)[int(rng.integers(len(self.kept)))]
        self._draws += 1
        one = _rows(rng, self.kept[number])
        begin = int(rng.integers(one.images.shape[1] - FRAMES + 1))
        return _through(net, one, slice(begin, begin + FRAMES), self.depth)

    def _there(self) -> list[int]:
        pool, most = self.examples.pool, self.examples.config.examples
        if pool is None:
            return list(range(most or 1))
        return [number for number in pool.numbers() if most is None or number < most] or [0]

    @torch.no_grad()
    def _made(self, example: Example, vectors: tuple[Tensor, Tensor], net: CardioMM) -> Last:
        if example.first is None or example.motion is None:
            raise ValueError("the last cascades alone need aligned frames and a k-t estimate")
        physics = Physics(example.maps[None].to(self.device), example.mask[None].to(self.device))
        measured = physics.adjoint(example.kspace[None].to(self.device))
        first, motion = example.first[None].to(self.device), example.motion[None].to(self.device)
        texts = (vectors[0][None].to(self.device), vectors[1][None].to(self.device))
        embedded = net.embed(*texts)
        images = net.unroll(
            physics,
            measured,
            *embedded,
            first=first,
            motion=motion,
            periodic=example.periodic,
            leave=self.depth,
        )
        if self.depth < len(net.phases):
            before = net.phases[-self.depth - 1].weight(*embedded)
            images = physics.proximal(images, measured, before)
        return Last(
            images=images,
            first=first,
            measured=measured,
            motion=motion,
            physics=physics,
            target=example.target.to(self.device),
            heart=example.heart,
            texts=texts,
        )


def _through(net: CardioMM, one: Last, frames: slice, depth: int) -> tuple[Tensor, Last]:
    """Each cascade makes the frames that the next one sees, two neighbours fewer on either side."""
    meta, us = net.embed(*one.texts)
    reach, total = net.config.frames // 2, one.images.shape[1]
    index = torch.arange(frames.start - reach * depth, frames.stop + reach * depth) % total
    extra = one.first.mean(dim=1) if net.config.temporal_mean else None
    view = View(net.config, extra=extra, periodic=True, noise=1.0)
    images, motion = one.images[:, index], one.motion[:, index]
    for phase in net.phases[-depth:]:
        inner = slice(reach, len(index) - reach)
        view.motion = motion
        seen = view.of(images, inner)
        made = phase.model(seen.flatten(0, 1), meta, us, noise=1.0).unflatten(-3, seen.shape[:2])
        index, motion = index[inner], motion[:, inner]
        physics, measured = one.physics.of_frames(index), one.measured[:, index]
        if phase is not net.phases[-1]:
            images = physics.proximal(made, measured, phase.weight(meta, us))
    first = one.first[:, index]
    out = net.last_consistency(physics, made, measured, meta, us, first=first)
    return out[0], replace(one, target=one.target[frames], first=first[0])


def _rows(rng: np.random.Generator, one: Last) -> Last:
    height = one.images.shape[-2]
    if not one.physics.lines or height <= ROWS:
        return one
    top = int(rng.integers(height - ROWS + 1))
    rows = slice(top, top + ROWS)
    return replace(
        one,
        images=one.images[..., rows, :],
        first=one.first[..., rows, :],
        measured=one.measured[..., rows, :],
        motion=one.motion[..., rows, :],
        physics=one.physics.of_rows(rows),
        target=one.target[:, rows],
        heart=heart_in(one.heart, rows, height),
    )

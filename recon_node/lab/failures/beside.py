"""Other ways to doubt an image, at their cost, to be compared with the node's own on the same cases.

- **Local Lipschitz**: how much the image moves for a small change of its data, over that change (Bhutto et
  al., 2023, use random changes): the largest of a few.
- **Noise replicas**: the spread of images of the same data with new noise added, over their brightness.
- **Cascades**: how far the last cascade of the network still moves the image.

All look at the middle phases only, as the hold-out does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from recon_node.core.types import ImageSeries, KSpace
from recon_node.model.cardiomm import CardioMM
from recon_node.simulate.example import complex_noise
from recon_node.trust.phases import middle_phases

Reconstruct = Callable[[KSpace], ImageSeries]
FRAMES = 5
CHANGES = 2
"""Changed copies of the data for each of the first two."""
SMALL = 0.1
"""Size of the changes that the Lipschitz number is taken with, in noise standard deviations."""
BESIDE = ("lipschitz", "replicas", "cascades")


def beside(
    kspace: KSpace, reconstruct: Reconstruct, net: CardioMM | None, *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Each measure with its value and its cost in CPU seconds; ``cascades`` only where there is a network.

    Raises
    ------
    ReconNodeError
        What `reconstruct` raises.
    """
    part = middle_phases(kspace, FRAMES)
    rng = np.random.default_rng(seed)
    start = time.process_time()
    with _last_step(net) as step:
        image = reconstruct(part).data
    once = time.process_time() - start
    found = {}
    if step.get("share") is not None:
        found["cascades"] = {"value": float(step["share"]), "seconds": 0.0}
    start = time.process_time()
    found["lipschitz"] = {"value": _lipschitz(part, image, reconstruct, rng)}
    found["lipschitz"]["seconds"] = once + time.process_time() - start
    start = time.process_time()
    found["replicas"] = {"value": _spread(part, reconstruct, rng)}
    found["replicas"]["seconds"] = time.process_time() - start
    return found


def _changed(part: KSpace, size: float, rng: np.random.Generator) -> tuple[KSpace, float]:
    change = np.float32(size) * complex_noise(rng, part.data.shape) * part.mask[:, None]
    return dataclasses.replace(part, data=part.data + change), float(np.linalg.norm(change))


def _lipschitz(part: KSpace, image: Any, reconstruct: Reconstruct, rng: np.random.Generator) -> float:
    worst = 0.0
    for _ in range(CHANGES):
        changed, by = _changed(part, SMALL, rng)
        worst = max(worst, float(np.linalg.norm(reconstruct(changed).data - image)) / by)
    return worst


def _spread(part: KSpace, reconstruct: Reconstruct, rng: np.random.Generator) -> float:
    images = np.stack([np.abs(reconstruct(_changed(part, 1.0, rng)[0]).data) for _ in range(CHANGES)])
    return float(np.sqrt(images.var(axis=0, ddof=1).mean()) / np.quantile(images, 0.98))


@contextmanager
def _last_step(net: CardioMM | None) -> Iterator[dict[str, float]]:
    """How far the last cascade of `net` moves its images, over their size, while it reconstructs."""
    step: dict[str, float] = {}
    if net is None or not net.phases:
        yield step
        return
    moved: list[tuple[float, float]] = []

    def look(_: nn.Module, given: tuple[Any, ...], made: Tensor) -> None:
        before, gated = given[0][:, 0], made.ndim == given[0].ndim
        by = made[1].real * (made[0] - before) if gated else made - before
        moved.append((float(by.abs().square().sum()), float(before.abs().square().sum())))

    handle = net.phases[-1].model.register_forward_hook(look)
    try:
        yield step
    finally:
        handle.remove()
        total = sum(size for _, size in moved)
        if total > 0:
            step["share"] = float(np.sqrt(sum(by for by, _ in moved) / total))

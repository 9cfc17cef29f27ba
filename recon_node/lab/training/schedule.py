"""Learning rate over a run, and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recon_node.lab.training.config import OptimConfig


def rate_factor(config: OptimConfig, step: int, progress: float) -> float:
    """Factor on the base learning rate.

    Parameters
    ----------
    config : OptimConfig
        Schedule and warm-up.
    step : int
        Optimiser steps taken, for the linear warm-up.
    progress : float
        How much of the run is over, 0 to 1.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "cosine":
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    if config.schedule == "step":
        return warm * 0.1 ** sum(progress >= at for at in config.step_at)
    return warm


class MovingAverage:
    """Exponential moving average of a module's parameters and buffers, in float32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards `module`; early in a run the average forgets faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            mine = self.state[name]
            if value.is_floating_point():
                mine.lerp_(value.to(mine.dtype), 1 - decay)
            else:
                mine.copy_(value)

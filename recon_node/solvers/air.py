"""Where an image shows air: a weak pull towards zero there keeps folded signal from being put into it.

The support that ESPIRiT finds ends several pixels outside the body, as the calibration region resolves no
more. Each of those pixels is an unknown that the body's pixels are unfolded against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from recon_node.solvers.total_variation import smooth

LEVEL = 0.02
"""Of the brightest percent: magnitudes well below this share count as air."""
PASSING = 0.2
"""Share of its brightest frame that counts for a pixel: what lights up once, as a bolus, is no air."""
_BRIGHT = 0.99
_STEEP = 4
_NEAR = 3
"""A pixel is air only where all pixels of the square of this side around it are."""
_MOST = 1 << 20
"""Pixels of which the brightest percent is found; more are thinned out evenly."""


def air_pull(images: Tensor, strength: float) -> Tensor:
    """Weight of ``|x|^2 / 2`` at every pixel: `strength` in air, next to nothing in the body.

    Parameters
    ----------
    images : Tensor
        `(frame, map, x, y)` complex, an estimate of the images; opposite edges are neighbours.
    strength : float
        Weight in air, in units of the largest eigenvalue of ``A^H A``. Signal taken for air by mistake
        shrinks to ``1 / (1 + strength)`` where the samples determine it well.

    Returns
    -------
    Tensor
        `(x, y)` float32 between 0 and `strength`.
    """
    mean = images.mean(dim=0).abs().square().sum(dim=0)
    some = mean.flatten()[:: 1 + mean.numel() // _MOST]
    bright = torch.quantile(some.sqrt(), _BRIGHT).clamp_min(1e-20)
    once = images.abs().square().sum(dim=1).amax(dim=0).sqrt()
    shown = torch.maximum(smooth(mean).sqrt(), PASSING * once)
    around = functional.pad(shown[None, None], (_NEAR // 2,) * 4, mode="circular")
    brightest = functional.max_pool2d(around, _NEAR, 1)[0, 0]
    return strength * torch.exp(-((brightest / (LEVEL * bright)) ** _STEEP))

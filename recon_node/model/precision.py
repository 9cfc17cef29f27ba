"""Where a network may compute with half as many bits, and how it then does.

Only the UNets do: coil maps, motion, data consistency and the text heads stay in single precision. bfloat16
has 8 bits of significance. A UNet of aligned frames makes a correction in units of noise and of the
disagreement between frames, so its rounding stays some hundred times below the noise; a UNet that makes the
image itself rounds the image.
"""

from __future__ import annotations

import copy

import torch

from recon_node.model.cardiomm import CardioMM
from recon_node.model.config import CardioMMConfig

_CPU_FEATURES = ("avx512_bf16", "amx_bf16")


def changes_next_to_nothing(config: CardioMMConfig) -> bool:
    """Whether bfloat16 in a network's UNets is harmless by the way they are made."""
    return config.aligned


def is_native(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 numbers faster than single precision."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return any(able.get(feature, False) for feature in _CPU_FEATURES)


def halved(net: CardioMM) -> CardioMM:
    """A copy whose UNets hold and compute bfloat16 numbers."""
    made = copy.deepcopy(net)
    for cascade in made.phases:
        cascade.model.unet.to(torch.bfloat16)
    return made

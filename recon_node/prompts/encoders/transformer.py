"""torch's transformer encoder with the weights of a Hugging Face folder: what BERT and CLIP's text share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from recon_node.prompts.encoders.blocks import BlockNames

Array = NDArray[np.float32]
Activation = Callable[[Tensor], Tensor]


def quick_gelu(x: Tensor) -> Tensor:
    """``x sigmoid(1.702 x)``, the approximation CLIP was trained with (Hendrycks and Gimpel 2016)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Activation] = {"gelu": functional.gelu, "quick_gelu": quick_gelu}
"""By the name that ``hidden_act`` of a Hugging Face configuration uses."""


_OTHERS = ("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
"""torch's names of `BlockNames.others`."""


def make_tower(
    weights: Mapping[str, Array], blocks: list[str], names: BlockNames, config: Mapping[str, Any]
) -> nn.TransformerEncoder:
    """The stack of blocks, ready for `(sentence, token, feature)` float32.

    Parameters
    ----------
    weights : mapping
        Arrays by name.
    blocks : list of str
        Prefix of each block's names.
    names : BlockNames
        Names of its parts.
    config : mapping
        ``hidden_act``, ``layer_norm_eps`` and ``num_attention_heads``.
    """

    def read(prefix: str, *parts: str) -> dict[str, Tensor]:
        joined = {kind: [weights[f"{prefix}{part}.{kind}"] for part in parts] for kind in ("weight", "bias")}
        return {kind: torch.from_numpy(np.concatenate(arrays)) for kind, arrays in joined.items()}

    width = weights[f"{blocks[0]}{names.others[1]}.weight"].shape
    layer = nn.TransformerEncoderLayer(
        width[1],
        config["num_attention_heads"],
        width[0],
        dropout=0.0,
        activation=ACTIVATIONS[config["hidden_act"]],
        layer_norm_eps=config["layer_norm_eps"],
        batch_first=True,
        norm_first=names.norm_first,
    )
    tower = nn.TransformerEncoder(layer, len(blocks), enable_nested_tensor=False).eval()
    for block, made in zip(blocks, tower.layers, strict=True):
        joined = read(block, *names.projections)
        state = {f"self_attn.in_proj_{kind}": value for kind, value in joined.items()}
        for target, part in zip(_OTHERS, names.others, strict=True):
            state |= {f"{target}.{kind}": value for kind, value in read(block, part).items()}
        made.load_state_dict(state)
    return tower


def layer_norm(x: Tensor, weights: Mapping[str, Array], name: str, eps: float) -> Tensor:
    """Layer normalisation over the last axis, weights under ``{name}.weight`` and ``{name}.bias``."""
    weight, bias = (torch.from_numpy(weights[f"{name}.{kind}"]) for kind in ("weight", "bias"))
    return functional.layer_norm(x, weight.shape, weight, bias, eps)

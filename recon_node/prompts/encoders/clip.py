"""CLIP's text tower (ViT-B/16 and relatives) from a local folder in Hugging Face layout.

Radford et al. 2021: a causal transformer with layer normalisation before each part; the sentence's vector
is the output at the end-of-text token, normalised and projected. As CardioMM wants it the vector is not
scaled to unit length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recon_node.core.errors import ModelError, WeightsError
from recon_node.prompts.encoders.blocks import BlockNames
from recon_node.prompts.encoders.files import hash_files, read_config, read_safetensors
from recon_node.prompts.encoders.tokens import clip_tokenizer
from recon_node.prompts.encoders.transformer import (
    ACTIVATIONS,
    Array,
    layer_norm,
    make_tower,
)

ALGORITHM = "clip text 1: end-of-text token, projected, not normalised, float32"
"""Enters the hash: a change of anything that moves the vectors needs a new number."""

_PREFIX = "text_model."
_NAMES = BlockNames(
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    others=("self_attn.out_proj", "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"),
    norm_first=True,
)


class ClipText:
    """CLIP text features, 512-d for ViT-B/16.

    Parameters
    ----------
    folder : Path
        ``config.json``; ``tokenizer.json``, or ``vocab.json`` with ``merges.txt``; and
        ``model.safetensors`` or ``pytorch_model.bin`` (read with ``weights_only``, never unpickled).

    Raises
    ------
    WeightsError
        If files or tensors are missing, damaged or disagree with the configuration.
    """

    name = "clip"

    def __init__(self, folder: Path) -> None:
        config = read_config(folder)
        self._text: dict[str, Any] = {**_DEFAULTS, **config.get("text_config", config)}
        for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"):
            if not isinstance(self._text.get(key), int):
                raise WeightsError(f"{folder / 'config.json'} gives no {key} of the text tower")
        if self._text["hidden_act"] not in ACTIVATIONS:
            raise WeightsError(
                f"{folder / 'config.json'} asks for activation {self._text['hidden_act']!r}, "
                f"expected one of {', '.join(ACTIVATIONS)}"
            )
        tokenizer, tokenizer_files = clip_tokenizer(folder)
        self._tokenizer: Any = tokenizer
        self._weights_file = _weights_file(folder)
        self._files = (self._weights_file, *tokenizer_files, folder / "config.json")

    @cached_property
    def sha256(self) -> str:
        """Hash over the algorithm, the weights, the tokenizer and the configuration."""
        return hash_files(ALGORITHM, self._files)

    @property
    def _blocks(self) -> list[str]:
        return [f"{_PREFIX}encoder.layers.{i}." for i in range(self._text["num_hidden_layers"])]

    @cached_property
    def _tower(self) -> nn.TransformerEncoder:
        return make_tower(self._weights, self._blocks, _NAMES, self._text)

    @cached_property
    def _weights(self) -> dict[str, Array]:
        names = [f"{_PREFIX}final_layer_norm"]
        names += [block + part for block in self._blocks for part in _NAMES.all]
        tensors = [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
        tensors += [f"{_PREFIX}embeddings.{kind}_embedding.weight" for kind in ("token", "position")]
        tensors.append("text_projection.weight")
        read = read_safetensors if self._weights_file.suffix == ".safetensors" else _read_torch
        return read(self._weights_file, tensors)

    def differences(self, tensors: Mapping[str, NDArray[Any]]) -> list[str]:
        """Names of its tensors that `tensors` lacks or gives other values (beyond float16 rounding)."""
        return sorted(
            name
            for name, own in self._weights.items()
            if name not in tensors
            or tensors[name].shape != own.shape
            or not np.allclose(tensors[name], own, rtol=2e-3, atol=1e-5)
        )

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """`(sentence, feature)` float32, projected and not normalised.

        Raises
        ------
        ModelError
            If a sentence is longer than the model's positions, or the vectors are not finite.
        """
        vectors = [self._encode_one(sentence) for sentence in sentences]
        out = np.stack(vectors) if vectors else np.zeros((0, self._text["projection_dim"]), np.float32)
        if not np.isfinite(out).all():
            raise ModelError("the text encoder gave non-finite vectors: its weights are damaged")
        return out

    def _encode_one(self, sentence: str) -> Array:
        ids = np.array(self._tokenizer.encode(sentence).ids)
        w, eps = self._weights, self._text["layer_norm_eps"]
        positions = w[f"{_PREFIX}embeddings.position_embedding.weight"]
        tokens = w[f"{_PREFIX}embeddings.token_embedding.weight"]
        if len(ids) > len(positions) or ids.max() >= len(tokens):
            raise ModelError(
                f"a prompt has {len(ids)} tokens up to number {ids.max()}; the CLIP text tower takes "
                f"{len(positions)} of {len(tokens)} kinds: tokenizer and weights must belong together"
            )
        x = torch.from_numpy(tokens[ids] + positions[: len(ids)])[None]
        causal = nn.Transformer.generate_square_subsequent_mask(len(ids))
        with torch.inference_mode():
            x = self._tower(x, mask=causal, is_causal=True)
            x = layer_norm(x, w, f"{_PREFIX}final_layer_norm", eps)
        # The end-of-text token is the last of the vocabulary and, without padding, of the sentence.
        feature: Array = x[0, int(ids.argmax())].numpy() @ w["text_projection.weight"].T
        return feature


_DEFAULTS: dict[str, Any] = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 512,
}
"""What a Hugging Face CLIP text configuration means where it is silent."""


def _weights_file(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder} holds neither model.safetensors nor pytorch_model.bin")


def _read_torch(path: Path, wanted: Sequence[str]) -> dict[str, Array]:
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, ValueError, EOFError) as error:
        raise WeightsError(
            f"{path} is not a plain file of tensors (nothing else is unpickled): "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    missing = [name for name in wanted if name not in state]
    if missing:
        raise WeightsError(f"{path} lacks {len(missing)} tensors: {', '.join(missing[:5])} ...")
    return {name: state[name].float().numpy() for name in wanted}

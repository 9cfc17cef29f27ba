"""Prompts to the vectors that condition the network, with what centring them needs."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.axes import frozen
from recon_node.core.protocols import TextEncoder
from recon_node.core.types import Prompts, TextEmbedding
from recon_node.prompts.encoders.catalogue import shipped_catalogue
from recon_node.prompts.encoders.known import known_prompts

_CACHE_SIZE = 4096
_cache: weakref.WeakKeyDictionary[TextEncoder, dict[tuple[str, str], TextEmbedding]] = (
    weakref.WeakKeyDictionary()
)


def embed(prompts: Prompts, encoder: TextEncoder) -> TextEmbedding:
    """Vectors of both prompts, computed once per prompt and encoder.

    Parameters
    ----------
    prompts : Prompts
        Both sentences.
    encoder : TextEncoder
        The encoder the network was trained with. One that has a method ``knows(sentence)`` gets the
        nearest sentence it knows (`known_prompts`); call that first to show what was replaced.

    Returns
    -------
    TextEmbedding
        Raw vectors of the encoder, neither centred nor scaled.

    Raises
    ------
    ModelError
        If the encoder cannot encode a sentence.
    """
    knows = getattr(encoder, "knows", None)
    if knows is not None:
        prompts = known_prompts(prompts, knows)
    key = (str(prompts.metadata), str(prompts.undersampling))
    seen = _cache.setdefault(encoder, {})
    if key not in seen:
        vectors = encoder.encode(key)
        if len(seen) >= _CACHE_SIZE:
            seen.pop(next(iter(seen)))
        seen[key] = TextEmbedding(
            metadata=vectors[0],
            undersampling=vectors[1],
            encoder=encoder.name,
            encoder_sha256=encoder.sha256,
        )
    return seen[key]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextStatistics:
    """Mean and spread of a catalogue's vectors, to centre and scale embeddings with.

    Sentence vectors of these prompts are nearly parallel; ``(vector - mean) / scale`` is not.
    """

    metadata_mean: NDArray[np.float32]
    """`(feature,)` float32."""
    metadata_scale: float
    """Root mean square of the centred vectors' entries."""
    undersampling_mean: NDArray[np.float32]
    """`(feature,)` float32."""
    undersampling_scale: float

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for name in ("metadata_mean", "undersampling_mean"):
            object.__setattr__(self, name, frozen(name, getattr(self, name), "feature", np.float32, sizes))


def catalogue_statistics() -> TextStatistics:
    """Statistics of the shipped ``minilm`` catalogue, for the weights to keep."""
    catalogue = shipped_catalogue()
    under = np.array([text.startswith("Undersampling:") for text in catalogue.sentences])
    metadata, undersampling = catalogue.vectors[~under], catalogue.vectors[under]
    return TextStatistics(
        metadata_mean=metadata.mean(axis=0),
        metadata_scale=float((metadata - metadata.mean(axis=0)).std()),
        undersampling_mean=undersampling.mean(axis=0),
        undersampling_scale=float((undersampling - undersampling.mean(axis=0)).std()),
    )

"""A text encoder for tests: vectors from a hash, no meaning, no files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class FakeTextEncoder:
    """Unit vectors drawn from a generator seeded with each sentence's hash.

    Equal sentences get equal vectors on every machine, different ones nearly orthogonal vectors.

    Parameters
    ----------
    features : int
        Length of the vectors.
    """

    name = "fake"

    def __init__(self, features: int = 64) -> None:
        self._features = features
        self.sha256 = hashlib.sha256(f"fake text encoder, {features} features".encode()).hexdigest()

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """`(sentence, feature)` float32 of unit norm."""
        out = np.empty((len(sentences), self._features), np.float32)
        for row, sentence in zip(out, sentences, strict=True):
            seed = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "little")
            row[:] = np.random.default_rng(seed).standard_normal(self._features)
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out

"""The parts of a transformer encoder that BERT and CLIP share, on numpy.

Vaswani et al., "Attention is all you need", 2017 (equation 1), with the weights of a file instead of
layers: a text encoder runs once per sentence, so that no framework is loaded for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def linear(x: Array, weights: Mapping[str, Array], name: str) -> Array:
    """``x W^T + b`` over the last axis, weights under ``{name}.weight`` and ``{name}.bias``."""
    flat = x.reshape(-1, x.shape[-1]) @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return flat.reshape(*x.shape[:-1], -1)


def layer_norm(x: Array, weights: Mapping[str, Array], name: str, eps: float) -> Array:
    """Layer normalisation over the last axis (Ba et al. 2016)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    scaled: Array = centred / np.sqrt(variance + np.float32(eps))
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(query: Array, key: Array, value: Array, *, heads: int, bias: Array) -> Array:
    """Scaled dot-product attention of several heads.

    Parameters
    ----------
    query, key, value : ndarray
        `(sentence, token, feature)` float32, projected already; features are split over the heads.
    heads : int
        Number of heads; divides the feature size.
    bias : ndarray
        Broadcast to `(sentence, head, token, token)` and added to the scores: 0 where attention is
        allowed, a large negative number where it is not.

    Returns
    -------
    ndarray
        `(sentence, token, feature)` float32, heads concatenated.
    """
    sentences, tokens, features = query.shape

    def split(x: Array) -> Array:
        return x.reshape(sentences, tokens, heads, features // heads).transpose(0, 2, 1, 3)

    scale = np.float32(np.sqrt(features // heads))
    scores = split(query) @ split(key).transpose(0, 1, 3, 2) / scale + bias
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed: Array = (scores @ split(value)).transpose(0, 2, 1, 3).reshape(sentences, tokens, features)
    return mixed


def gelu(x: Array) -> Array:
    """Gaussian error linear unit, exact form (Hendrycks and Gimpel 2016)."""
    from scipy.special import erf

    result: Array = np.float32(0.5) * x * (1 + erf(x / np.float32(np.sqrt(2))))
    return result


def quick_gelu(x: Array) -> Array:
    """``x sigmoid(1.702 x)``, the approximation CLIP was trained with."""
    result: Array = x / (1 + np.exp(-np.float32(1.702) * x))
    return result


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {"gelu": gelu, "quick_gelu": quick_gelu}
"""By the name that ``hidden_act`` of a Hugging Face configuration uses."""

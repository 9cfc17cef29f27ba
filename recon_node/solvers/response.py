r"""Masks of lines as the weights of a transform whose length is no large prime.

``F^H M F`` of a mask `M` is a cyclic convolution with its point spread function. A transform of 181 or 191
points takes five times as long as one of 192; the same convolution on at least twice the points less one, the
image zero beyond its own, takes transforms of any longer length (the embedding of Bluestein, IEEE Trans Audio
Electroacoust 18:451, 1970). Along two axes the longer transforms would cost what they save.
"""

from __future__ import annotations

import scipy.fft
import torch
from torch import Tensor

LARGEST_FACTOR = 13
"""Lengths with a larger prime factor are embedded."""


def response(mask: Tensor) -> Tensor:
    """Weights `w` for which ``ifft(w fft(x))``, cut to the length of `x`, is ``F^H M F x``.

    Parameters
    ----------
    mask : Tensor
        `(..., y)` real, the zero frequency first.

    Returns
    -------
    Tensor
        `(..., m)` of the same dtype: `x` is padded with zeros to `m` points. The mask itself where `y` has no
        prime factor above `LARGEST_FACTOR`.
    """
    points = mask.shape[-1]
    if _largest_factor(points) <= LARGEST_FACTOR:
        return mask
    spread = torch.fft.ifft(mask.double())
    between = scipy.fft.next_fast_len(2 * points - 1) - (2 * points - 1)
    gap = spread.new_zeros(*spread.shape[:-1], between)
    weights: Tensor = torch.fft.fft(torch.cat([spread, gap, spread[..., 1:]], dim=-1)).real
    return weights.to(mask.dtype)


def _largest_factor(number: int) -> int:
    factor = 2
    while factor * factor <= number:
        if number % factor:
            factor += 1
        else:
            number //= factor
    return number

r"""Every n-th image column, where they say as much as all of them.

Whole readout lines leave an independent problem in every image column, and by Parseval's theorem an error of
lines is the same in hybrid space (x, ky) as in k-space. So lines can be predicted in every n-th column of the
image alone: the samples of such a decimated image are those of k-space, folded along the readout,

.. math:: z_{k'} = n^{-1/2} \sum_{k \equiv k' \bmod M} y_k, \qquad M = N / n,

with noise of the same variance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, ImageSeries, KSpace


def decimation(kspace: KSpace, columns: int | None) -> int:
    """How many times fewer image columns are enough.

    Parameters
    ----------
    kspace : KSpace
    columns : int or None
        As many image columns say as much as all; None where nothing less than all does.

    Returns
    -------
    int
        The largest power of two that leaves as many columns and divides their number, so that of two such
        steps the smaller divides the larger. 1 where single points were sampled, or k-space was not
        whitened: the noise is then looked for at the ends of lines, which decimation folds onto their middle.
    """
    width = kspace.mask.shape[2]
    if columns is None or not kspace.whitened or not whole_lines(kspace.mask):
        return 1
    step = 1
    while width % (2 * step) == 0 and width // (2 * step) >= columns:
        step *= 2
    return step


def whole_lines(mask: NDArray[np.bool_]) -> bool:
    """Whether masks `(..., ky, kx)` sample each readout line wholly or not at all."""
    return bool((mask == mask[..., :1]).all())


def fewer_columns(image: NDArray[Any], step: int) -> NDArray[Any]:
    """Every `step`-th column of `(..., x)`, the centre of both at index ``n // 2``."""
    if step == 1:
        return image
    width = image.shape[-1]
    return np.ascontiguousarray(image[..., width // 2 - step * (width // step // 2) :: step])


def all_columns(few: NDArray[Any], width: int) -> NDArray[Any]:
    """What `fewer_columns` left of `(y, x)`, real, drawn out to the whole width by straight lines."""
    step = width // few.shape[-1]
    if step == 1:
        return few
    places = (np.arange(width) - width // 2) / step + few.shape[-1] // 2
    before = np.clip(np.floor(places).astype(int), 0, few.shape[-1] - 1)
    after = np.minimum(before + 1, few.shape[-1] - 1)
    share = places - before
    return np.asarray(few[:, before] * (1 - share) + few[:, after] * share)


def folded(samples: NDArray[np.complex64], step: int) -> NDArray[np.complex64]:
    """Samples `(..., kx)` of the image that `fewer_columns` leaves."""
    if step == 1:
        return samples
    width, total = samples.shape[-1], samples
    kept = width // step
    while total.shape[-1] > kept:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    total *= np.float32(step**-0.5)
    first = (width // 2 - kept // 2) % kept
    return total if first == 0 else np.concatenate([total[..., first:], total[..., :first]], axis=-1)


def decimated_maps(maps: CoilMaps, step: int) -> CoilMaps:
    """Coil maps at every `step`-th column."""
    if step == 1:
        return maps
    data, support = fewer_columns(maps.data, step), fewer_columns(maps.support, step)
    return replace(maps, data=data, support=support)


def decimated_images(images: ImageSeries, step: int) -> ImageSeries:
    """Images at every `step`-th column."""
    if step == 1:
        return images
    parts = None if images.parts is None else fewer_columns(images.parts, step)
    return replace(images, data=fewer_columns(images.data, step), parts=parts)

"""Maps to lay over the images of a slice: noise, SNR, and signal that is not explained."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from recon_node.core.protocols import Reconstructor
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.images import finish
from recon_node.pipeline.result import Reconstruction
from recon_node.report import Layer
from recon_node.trust.pixelwise import g_factor, noise_response, unexplained_signal

_TOP_LEFT = 5.0
_LEAST_FRAMES = 16
"""Of noise: the g-factor of fewer would be noise itself."""


def layers_of(result: Reconstruction, fallback: Reconstructor, title: str) -> list[Layer]:
    """What can be said pixel by pixel about one slice.

    Parameters
    ----------
    result : Reconstruction
    fallback : Reconstructor
        A linear method, whose noise is followed through it.
    title : str
        Its name, as headings have it.

    Returns
    -------
    list of Layer
        Empty where the noise level of the k-space is not known.
    """
    kspace, shape = result.kspace, result.images.data.shape[1:]
    if not kspace.whitened:
        return []

    def run(part: KSpace) -> ImageSeries:
        return finish(fallback.reconstruct(part, result.maps, None), shape=(shape[0], shape[1]))

    rate = kspace.sampling.effective_acceleration
    clean = run(kspace)
    replicas = range(math.ceil(_LEAST_FRAMES / len(kspace.data)))
    noise = [noise_response(kspace, run, clean=clean, seed=seed).data for seed in replicas]
    g = g_factor(np.concatenate(noise), rate)
    signal = np.abs(clean.data).mean(axis=0)
    seen = _support(result.maps, kspace, result.images)
    inside = np.where(seen, g, np.nan)
    snr = np.where(seen, signal / np.maximum(g * np.sqrt(rate), 1e-6), np.nan)
    layers = [
        Layer(
            name=f"g-factor of {title}",
            of=title,
            data=inside,
            top=max(2.0, float(np.ceil(_bright(inside)))),
            said=f"Noise in {title}'s images over that of fully sampled ones and the square root of "
            f"{rate:.2g}, from added noise. Below 1 regularisation holds noise down, at the price of blur.",
        ),
        Layer(
            name=f"SNR of {title}",
            of=title,
            data=snr,
            top=_bright(snr),
            said=f"Mean magnitude over the standard deviation of the noise in {title}'s images.",
        ),
    ]
    if result.images.data.shape == kspace.mask.shape and len(result.maps.data) == 1:
        layers.append(
            Layer(
                name="unexplained signal",
                data=unexplained_signal(result.images.data, kspace, result.maps),
                top=_TOP_LEFT,
                unit="times noise",
                said="Measured signal that the stored images do not explain, where it belongs: noise alone "
                "leaves 1 at most.",
            )
        )
    return layers


def _bright(values: NDArray[np.float64]) -> float:
    """A value that few pixels exceed."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, 0.99)) if known.size else 1.0


def _support(maps: CoilMaps, kspace: KSpace, images: ImageSeries) -> NDArray[np.bool_]:
    """Where the coil maps are known `(y, x)`, on the images' grid."""
    if images.data.shape == kspace.mask.shape:
        return np.asarray(maps.support)
    level = np.abs(images.data).mean(axis=0)
    return np.asarray(level > 0.05 * np.quantile(level, 0.99))

r"""Noise of parallel imaging by pixel, exactly: standard deviation, g-factor, signal-to-noise ratio.

The g-factor is how much noisier a pixel is than fewer samples alone make it (Pruessmann et al., Magn Reson
Med 42:952, 1999, eq. 24): with coil maps of unit root sum of squares and whitened k-space a fully sampled
image has noise 1, one of every R-th line :math:`g \sqrt R`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.types import CoilMaps, KSpace
from recon_node.solvers.device import one_thread
from recon_node.solvers.exact import LineSystems
from recon_node.solvers.operator import SenseOperator

WEIGHT = 1e-3
"""Tikhonov weight where none is given: it bounds the noise where coils cannot tell pixels apart."""


@one_thread()
@torch.inference_mode()
def noise_deviation(kspace: KSpace, maps: CoilMaps, *, weight: float = WEIGHT) -> NDArray[np.float32]:
    """Standard deviation of the complex noise that SENSE leaves in every pixel.

    Parameters
    ----------
    kspace : KSpace
        Of which whole readout lines were sampled; only its mask is looked at.
    maps : CoilMaps
        Of the same grid; noise of several sets is added, as their images are.
    weight : float
        Tikhonov weight, above 0.

    Returns
    -------
    ndarray
        `(phase, y, x)` float32, in units of the noise of a sample; 0 where no coil sees anything.

    Raises
    ------
    DataError
        The mask varies along the readout, or the weight is not positive.

    Examples
    --------
    >>> from recon_node import open_scan, reconstruct
    >>> result = reconstruct(next(open_scan("scan.h5")), method="sense")  # doctest: +SKIP
    >>> noise_deviation(result.kspace, result.maps).shape  # doctest: +SKIP
    (25, 128, 128)
    """
    if not (np.isfinite(weight) and weight > 0):
        raise DataError(f"noise map: the Tikhonov weight is {weight}, expected a number above 0")
    systems = LineSystems.of(SenseOperator(maps.data, kspace.mask, torch.device("cpu")))
    found = systems.noise(float(weight)).square().sum(dim=1).sqrt()
    grid = torch.fft.fftshift(found, dim=(-2, -1)).transpose(-2, -1)
    return np.asarray(grid.contiguous().numpy(), np.float32)


def g_factor(kspace: KSpace, maps: CoilMaps, *, weight: float = WEIGHT) -> NDArray[np.float32]:
    """How much noisier SENSE makes every pixel than its fewer samples alone.

    Parameters
    ----------
    kspace, maps, weight
        As for `noise_deviation`.

    Returns
    -------
    ndarray
        `(phase, y, x)` float32; 1 where nothing is lost, below 1 only where the regularisation smooths, 0
        where no coil sees anything.

    Raises
    ------
    DataError
        As `noise_deviation`.
    """
    share = kspace.mask.mean(axis=(1, 2)).astype(np.float32)
    return np.asarray(
        noise_deviation(kspace, maps, weight=weight) * np.sqrt(share)[:, None, None], np.float32
    )


def snr(
    images: NDArray[np.complexfloating], kspace: KSpace, maps: CoilMaps, *, weight: float = WEIGHT
) -> NDArray[np.float32]:
    """Signal of whitened images `(phase, y, x)` over the noise that SENSE would leave in them.

    Raises
    ------
    DataError
        As `noise_deviation`; the k-space was not whitened; or the images lie on another grid.
    """
    if not kspace.whitened:
        raise DataError("signal-to-noise ratio: found k-space that was not whitened, expected a noise scan")
    noise = noise_deviation(kspace, maps, weight=weight)
    if images.shape != noise.shape:
        raise DataError(f"signal-to-noise ratio: found images {images.shape}, expected {noise.shape}")
    signal = np.abs(images).astype(np.float32)
    return np.asarray(np.divide(signal, noise, out=np.zeros_like(signal), where=noise > 0), np.float32)

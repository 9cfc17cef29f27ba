"""What every classical reconstructor does first and last: check the input, wrap the images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError, DataError
from recon_node.core.mapsets import joined
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, MadeBy
from recon_node.core.version import __version__


def check(kspace: KSpace, maps: CoilMaps | None) -> None:
    """Refuse what no method can reconstruct.

    Raises
    ------
    DataError
        K-space with NaN or infinite samples or nothing but zeros, a mask without a single sample, or maps
        of other coils or pixels than the k-space, or with NaN or infinite values.
    """
    if not kspace.mask.any():
        raise DataError("the sampling mask is empty: no line of this slice was acquired")
    if not np.isfinite(kspace.data).all():
        raise DataError("k-space holds NaN or infinite samples: check the raw data")
    if not kspace.data.any():
        raise DataError("all samples of the slice are zero: check the receive chain")
    if maps is not None and maps.data.shape[1:] != kspace.data.shape[1:]:
        raise DataError(
            f"coil maps (coil, y, x) are {maps.data.shape[1:]}, but k-space (coil, ky, kx) is"
            f" {kspace.data.shape[1:]}: calibrate on this k-space's grid"
        )
    if maps is not None and not np.isfinite(maps.data).all():
        raise DataError("coil maps hold NaN or infinite values: calibrate again")


def series(
    kspace: KSpace, images: NDArray[np.complex64], method: str, settings: Mapping[str, Any]
) -> ImageSeries:
    """Images `(phase, y, x)`, or `(phase, map, y, x)` of map sets, with all that `kspace` knows of them."""
    several = images.ndim == 4 and images.shape[1] > 1
    return ImageSeries(
        data=joined(images) if images.ndim == 4 else images,
        parts=images if several else None,
        geometry=kspace.geometry,
        header=kspace.header,
        index=kspace.index,
        made_by=MadeBy(method=method, version=__version__, settings=dict(settings)),
        trigger_times_ms=kspace.trigger_times_ms,
        acquisition_times_s=kspace.acquisition_times_s,
        rr_interval_ms=kspace.rr_interval_ms,
    )


def check_options(method: str, *, iterations: int, **weights: float) -> None:
    """Refuse options that no iterative method can use.

    Raises
    ------
    ConfigError
        Fewer than one iteration, or a weight that is negative or no number.
    """
    if iterations < 1 or not all(0 <= value < math.inf for value in weights.values()):
        found = ", ".join(f"{name}={value}" for name, value in {"iterations": iterations, **weights}.items())
        raise ConfigError(f"{method}: {found}: expected at least one iteration and finite weights >= 0")


def noise_unit(kspace: KSpace) -> float:
    """Standard deviation of the complex noise in `kspace`: 1 if whitened, else an estimate.

    The estimate is the median magnitude of the samples in the outer tenth of the readout on each side
    of lines in the outer half of k-space, where there is little but noise; half of all magnitudes of
    complex Gaussian noise lie below ``sqrt(ln 2)`` standard deviations.
    """
    if kspace.whitened:
        return 1.0
    width = max(1, kspace.data.shape[-1] // 10)
    quarter = kspace.data.shape[-2] // 4
    sampled = np.where(kspace.mask[:, None], kspace.data, 0)
    ends = np.concatenate([sampled[..., :width], sampled[..., -width:]], axis=-1)
    outer = np.concatenate([ends[:, :, :quarter], ends[:, :, -quarter:]], axis=-2)
    magnitudes = np.abs(outer[outer != 0])
    return float(np.median(magnitudes) / np.sqrt(np.log(2))) if magnitudes.size else 1.0

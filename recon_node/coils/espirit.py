"""ESPIRiT coil maps from fully sampled central k-space, without a full-size transform per kernel.

Method: Uecker et al., Magn Reson Med 71:990-1001 (2014). What differs is how its result is reached:

1. The Gram matrix of the calibration matrix on its smaller side, its leading eigenvectors by blocked
   subspace iteration (`recon_node.coils.kernels`).
2. The elements of the image-space operator are trigonometric polynomials with ``2 kernel - 1`` lags
   per axis: its values on a grid of that many points determine it everywhere (`eigenmaps`).
3. Its dominant eigenvectors are found on a coarse grid, brought to one phase by a virtual coil and
   interpolated; where neighbours disagree, pixel by pixel (`gridding`).

The same code runs in numpy and, given a torch tensor, on that tensor's device (`arrays`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from recon_node.coils.arrays import Array, cast, is_tensor, namespace, to_host
from recon_node.coils.eigenmaps import Operator, norm, operator_samples
from recon_node.coils.gridding import FOLDED, dense_maps, interpolated_maps, share
from recon_node.coils.kernels import position_gram, signal_kernels
from recon_node.core.errors import CalibrationError, ConfigError
from recon_node.core.types import CoilMaps

GRID = 32
"""Points per axis at which eigenvectors are computed, unless the image is smaller."""
_SMALLEST_KERNEL = 2
_MOST_KERNELS = 0.4
"""Of all kernels there could be: where more are kept, noise is among them, and looks like folded signal."""
_FADE = 0.08
"""Half width, in eigenvalue, of the transition that `soft` makes."""


def espirit(
    calibration: ArrayLike,
    shape: tuple[int, int],
    kernel: int = 6,
    threshold: float | Literal["auto"] = 0.02,
    maps: int = 1,
    *,
    crop: float = 0.8,
    soft: bool = False,
    grid: int | None = None,
    noise_std: float = 1.0,
) -> CoilMaps:
    """Coil maps from calibration data.

    Parameters
    ----------
    calibration : array_like or torch.Tensor
        `(coil, ay, ax)` complex; fully sampled centre of k-space, zero frequency at ``n // 2``. A tensor is
        worked on where it lies (CUDA).
    shape : tuple of int
        `(y, x)` of the maps.
    kernel : int
        Side of the k-space kernels in samples.
    threshold : float or "auto"
        Singular values of the calibration matrix below this fraction of the largest count as noise.
        ``"auto"`` puts the limit at the largest singular value that noise alone would have.
    maps : int
        Number of map sets; 2 where the field of view is smaller than the object.
    crop : float
        Maps are zero where the eigenvalue (1 for signal that the maps explain fully) is below this.
    soft : bool
        Fade the maps out around `crop` instead of cutting them (their root-sum-of-squares is then
        below one at the rim of the support).
    grid : int, optional
        Points per axis at which eigenvectors are computed; None chooses. Ignored with two map sets.
    noise_std : float
        Standard deviation of the complex noise in `calibration` (1 for whitened data of one frame,
        ``1 / sqrt(n)`` after averaging n of them). Used by ``threshold="auto"`` only.

    Returns
    -------
    CoilMaps
        `data` of shape `(maps, coil, y, x)`. The phase is fixed by a virtual coil (the channel
        combination with most energy in the calibration data), on which every map is real and positive.

    Raises
    ------
    CalibrationError
        If the calibration data is smaller than the kernel, larger than `shape`, empty of signal, or
        not finite.
    ConfigError
        An option out of range.
    """
    _check_options(kernel, threshold, maps, crop)
    data = _checked(calibration, shape, kernel, maps)
    scale = float(namespace(data).abs(data).max())
    data = data / scale
    if threshold == "auto":
        relative, floor = 0.0, noise_edge(tuple(data.shape), kernel) * noise_std / scale
    else:
        relative, floor = float(threshold), 0.0
    kernels = signal_kernels(data, kernel, relative, floor)
    operator = Operator(operator_samples(kernels))
    virtual = virtual_coil(data)
    points = GRID if grid is None else grid
    folded: float | None
    if maps > 1 or points >= min(shape):
        values, vectors = dense_maps(operator, shape, virtual, maps)
        folded = share(values[1][values[0] > crop] > FOLDED) if maps > 1 else None
    else:
        values, vectors, folded = interpolated_maps(operator, shape, virtual, points, crop)
    told = len(kernels) <= _MOST_KERNELS * data.shape[0] * kernel**2
    return _cropped(values, vectors, crop, soft, folded if told else None)


def virtual_coil(calibration: Array) -> Array:
    """Channel combination with most energy, `(coil,)` complex64; its largest weight is real and positive."""
    xp = namespace(calibration)
    flat = calibration.reshape(calibration.shape[0], -1)
    combination = xp.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    largest = combination[xp.argmax(xp.abs(combination))]
    return cast(combination * (xp.abs(largest) / largest), "complex64")


@lru_cache(maxsize=32)
def noise_edge(shape: tuple[int, ...], kernel: int) -> float:
    """Largest singular value that unit-variance complex noise gives to the calibration matrix.

    One fixed draw of noise of this `shape` is measured: its rows share samples, so that the law for
    independent entries (Marchenko and Pastur) does not hold.
    """
    draw = np.random.default_rng(0).standard_normal((*shape, 2)) @ np.array([1, 1j]) / np.sqrt(2)
    gram = position_gram(draw, kernel)
    return float(np.sqrt(np.linalg.eigvalsh(gram)[-1]))


def _check_options(kernel: int, threshold: float | Literal["auto"], maps: int, crop: float) -> None:
    expected = {
        "kernel": (kernel, kernel >= _SMALLEST_KERNEL, f"at least {_SMALLEST_KERNEL}"),
        "threshold": (threshold, threshold == "auto" or 0 <= threshold < 1, "auto, or 0 to 1"),
        "maps": (maps, maps >= 1, "at least 1"),
        "crop": (crop, 0 <= crop < 1, "0 to 1"),
    }
    for name, (value, good, wanted) in expected.items():
        if not good:
            raise ConfigError(f"ESPIRiT {name} is {value}, expected {wanted}")


def _checked(calibration: ArrayLike, shape: tuple[int, int], kernel: int, maps: int) -> Array:
    data: Array = calibration if is_tensor(calibration) else np.asarray(calibration)
    if data.ndim != 3:
        raise CalibrationError(
            f"calibration data has shape {tuple(data.shape)}, expected axes (coil, ay, ax)"
        )
    if min(data.shape[1:]) < kernel:
        raise CalibrationError(
            f"calibration region is {data.shape[1]} x {data.shape[2]}, smaller than the {kernel} x {kernel}"
            " kernel: acquire more central lines or use a smaller kernel"
        )
    if data.shape[1] > shape[0] or data.shape[2] > shape[1]:
        raise CalibrationError(f"calibration region {tuple(data.shape[1:])} is larger than the image {shape}")
    if maps > data.shape[0]:
        raise CalibrationError(
            f"{maps} map sets asked for with {data.shape[0]} coils: expected 1 to that many"
        )
    data = cast(data, "complex128")
    if not bool(namespace(data).isfinite(data).all()):
        raise CalibrationError("calibration data holds NaN or infinite samples: check the raw data")
    if not bool((data != 0).any()):
        raise CalibrationError("calibration data is zero everywhere: the central lines carry no signal")
    return data


def _cropped(values: Array, vectors: Array, crop: float, soft: bool, folded: float | None) -> CoilMaps:
    weight = _fade(values, crop) if soft else cast(values > crop, "float32")
    length = norm(vectors, 1)
    vectors *= (weight / namespace(length).where(length > 0, length, 1))[:, None]
    return CoilMaps(data=to_host(vectors), support=to_host(values[0] > crop), folded=folded)


def _fade(values: Array, crop: float) -> Array:
    """Smooth step from 0 to 1, one half at eigenvalue `crop`."""
    half = min(_FADE, 1 - crop)
    t = namespace(values).clip((values - crop + half) / (2 * half), 0, 1)
    return t * t * (3 - 2 * t)

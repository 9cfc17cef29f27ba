"""The side of k-space that was never measured, filled by symmetry where the phase is smooth.

An option: without it the missing side stays zero, which is exact for methods that know the mask (SENSE) and
what CardioMM was trained with. It works on the coil-combined image, so that undersampled scans can have it:
where k-space was covered, the reconstruction has filled the gaps.

- ``homodyne``: ramp weights over the symmetric centre, phase removed, real part kept
  (Noll, Nishimura and Macovski, IEEE Trans Med Imaging 10:154, 1991).
- ``pocs``: projections onto the covered part and onto images with the phase of the centre
  (Haacke, Lindskog and Lin, J Magn Reson 92:126, 1991).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from recon_node.core.choices import PartialFourier
from recon_node.core.errors import UnsupportedScan
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import ImageSeries, Sampling

Ranges = tuple[slice, slice]
_MOST_COMPLETE = 0.97
"""Fraction of an axis beyond which nothing is worth filling."""
_LEAST_CENTRE = 2
"""Lines on the shorter side of the centre that an estimate of the phase needs."""


def covered_part(mask: NDArray[np.bool_], sampling: Sampling) -> Ranges:
    """Which ky and kx the acquisition covered, gaps of its pattern included.

    Parameters
    ----------
    mask : ndarray
        `(phase, ky, kx)` bool.
    sampling : Sampling
        Of this mask: a margin of ky counts as left out only where `partial_fourier` says so.
    """
    ny, nx = mask.shape[1:]
    rows = _range(np.any(mask, axis=(0, 2))) if sampling.partial_fourier < _MOST_COMPLETE else slice(0, ny)
    columns = _range(np.any(mask, axis=(0, 1)))
    return rows, columns if columns.stop - columns.start < _MOST_COMPLETE * nx else slice(0, nx)


def fill_partial_fourier(
    images: ImageSeries, covered: Ranges, *, method: PartialFourier = "pocs", iterations: int = 10
) -> ImageSeries:
    """The same images with the missing side of their k-space filled.

    Parameters
    ----------
    images : ImageSeries
        Complex, on the k-space grid.
    covered : (slice, slice)
        Range of ky and of kx that was covered, see `covered_part`.
    method : {"homodyne", "pocs"}
    iterations : int
        Of ``pocs``.

    Returns
    -------
    ImageSeries
        Unchanged where nothing is missing; else `made_by.settings` names the method.

    Raises
    ------
    UnsupportedScan
        Lines on one side of the centre only, or images without phase.
    """
    shape = images.data.shape[1:]
    missing = [r.stop - r.start < n for r, n in zip(covered, shape, strict=True)]
    if not any(missing):
        return images
    if not images.data.imag.any():
        raise UnsupportedScan("partial Fourier filling needs complex images, these are magnitudes")
    centre = tuple(_symmetric(r, n) for r, n in zip(covered, shape, strict=True))
    kspace = np.zeros_like(images.data)
    kspace[:, covered[0], covered[1]] = centred_fft(images.data)[:, covered[0], covered[1]]
    phase = _phase(kspace, (centre[0], centre[1]))
    if method == "homodyne":
        data = _homodyne(kspace, covered, (centre[0], centre[1]), phase)
    else:
        data = _pocs(kspace, covered, phase, iterations)
    made_by = dataclasses.replace(
        images.made_by, settings={**images.made_by.settings, "partial_fourier": method}
    )
    return dataclasses.replace(
        images, parts=None, data=data.astype(np.complex64, copy=False), made_by=made_by
    )


def _range(sampled: NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(sampled)
    return slice(int(places[0]), int(places[-1]) + 1)


def _symmetric(covered: slice, size: int) -> slice:
    """The part of a range that has its mirror image in it, around ``size // 2``."""
    if covered == slice(0, size):
        return covered
    half = min(size // 2 - covered.start, covered.stop - 1 - size // 2)
    if half < _LEAST_CENTRE:
        raise UnsupportedScan("partial Fourier filling needs lines on both sides of the centre of k-space")
    return slice(size // 2 - half, size // 2 + half + 1)


def _phase(kspace: NDArray[np.complex64], centre: Ranges) -> NDArray[np.complex64]:
    """Unit phase of the image of the symmetric centre, Hann-weighted against ringing."""
    low = np.zeros_like(kspace)
    window = np.outer(*(np.hanning(r.stop - r.start + 2)[1:-1] for r in centre)).astype(np.float32)
    low[:, centre[0], centre[1]] = kspace[:, centre[0], centre[1]] * window
    return np.asarray(np.exp(1j * np.angle(centred_ifft(low))), dtype=np.complex64)


def _pocs(
    kspace: NDArray[np.complex64], covered: Ranges, phase: NDArray[np.complex64], iterations: int
) -> NDArray[np.complex64]:
    measured, filled = kspace[:, covered[0], covered[1]], kspace
    for _ in range(iterations):
        filled = centred_fft(np.abs(centred_ifft(filled)) * phase)
        filled[:, covered[0], covered[1]] = measured
    return centred_ifft(filled)


def _homodyne(
    kspace: NDArray[np.complex64], covered: Ranges, centre: Ranges, phase: NDArray[np.complex64]
) -> NDArray[np.complex64]:
    rising = np.outer(*(_ramp(r, c, n) for r, c, n in zip(covered, centre, kspace.shape[1:], strict=True)))
    both = rising + _mirrored(rising)
    weights = (2 * rising / np.where(both > 0, both, 1)).astype(np.float32)
    real = (centred_ifft(kspace * weights) * phase.conj()).real
    return np.asarray(real * phase, dtype=np.complex64)


def _ramp(covered: slice, centre: slice, size: int) -> NDArray[np.float64]:
    """0 on the missing side, 1 opposite to it, linear over the symmetric centre; 1 where both are there."""
    if covered == slice(0, size):
        return np.ones(size)
    ramp = np.zeros(size)
    ramp[covered] = 1
    rising = np.linspace(0, 1, centre.stop - centre.start + 2)[1:-1]
    ramp[centre] = rising if centre.start <= covered.start else rising[::-1]
    return ramp


def _mirrored(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights `(ky, kx)` at ``-k``, the centre at ``n // 2``."""
    even = [axis for axis, size in enumerate(weights.shape) if size % 2 == 0]
    return np.asarray(np.roll(weights[::-1, ::-1], [1] * len(even), even))

"""The missing side of k-space, filled from the conjugate symmetry of images with smooth phase.

Both ways are options: without them the missing side stays zero, which is exact for methods that know the
mask (SENSE) and what CardioMM was trained with.

- ``homodyne``: ramp weights over the symmetric centre, phase removed, real part kept
  (Noll, Nishimura and Macovski, IEEE Trans Med Imaging 10:154, 1991).
- ``pocs``: projections onto the measured data and onto images with the phase of the centre
  (Haacke, Lindskog and Lin, J Magn Reson 92:126, 1991).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import UnsupportedScan
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.types import KSpace

Method = Literal["homodyne", "pocs"]
_MOST_COMPLETE = 0.97
"""Fraction of an axis beyond which nothing is worth filling."""


def fill_partial_fourier(kspace: KSpace, *, method: Method = "pocs", iterations: int = 10) -> KSpace:
    """The same slice with the missing side along ky or kx filled, coil by coil.

    Parameters
    ----------
    kspace : KSpace
        One that is complete but for a side of ky, of kx, or both.
    method : {"homodyne", "pocs"}
    iterations : int
        Of ``pocs``.

    Returns
    -------
    KSpace
        Unchanged where nothing is missing. The mask still says what was measured.

    Raises
    ------
    UnsupportedScan
        Lines are missing within the covered part: reconstruct them first.
    """
    mask = np.any(kspace.mask, axis=0)
    if not np.array_equal(kspace.mask, np.broadcast_to(mask, kspace.mask.shape)):
        raise UnsupportedScan("partial Fourier filling needs phases that are sampled alike")
    rows, columns = _range(np.any(mask, axis=1)), _range(np.any(mask, axis=0))
    if not mask[rows, columns].all():
        raise UnsupportedScan(
            "partial Fourier filling needs k-space without gaps on the side that was measured"
        )
    axes = [
        a for a, r in ((2, rows), (3, columns)) if r.stop - r.start < _MOST_COMPLETE * kspace.data.shape[a]
    ]
    if not axes:
        return kspace
    centre = (_symmetric(rows, mask.shape[0]), _symmetric(columns, mask.shape[1]))
    fill = _homodyne if method == "homodyne" else _pocs
    data = fill(kspace.data, (rows, columns), centre, iterations)
    names = " and ".join("ky" if axis == 2 else "kx" for axis in axes)
    note = f"missing side of {names} filled by {method}, not measured"
    return dataclasses.replace(
        kspace, data=data.astype(np.complex64, copy=False), notes=(*kspace.notes, note)
    )


Ranges = tuple[slice, slice]


def _range(sampled: NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(sampled)
    return slice(int(places[0]), int(places[-1]) + 1)


def _symmetric(covered: slice, size: int) -> slice:
    """The part of a range that has its mirror image in it, around ``size // 2``."""
    half = min(size // 2 - covered.start, covered.stop - 1 - size // 2)
    if half < 2:
        raise UnsupportedScan("partial Fourier filling needs lines on both sides of the centre")
    return slice(size // 2 - half, size // 2 + half + 1)


def _phase(data: NDArray[np.complex64], centre: Ranges) -> NDArray[np.complex64]:
    """Unit phase of the image of the symmetric centre, Hann-weighted against ringing."""
    low = np.zeros_like(data)
    window = np.outer(*(np.hanning(r.stop - r.start + 2)[1:-1] for r in centre)).astype(np.float32)
    low[:, :, centre[0], centre[1]] = data[:, :, centre[0], centre[1]] * window
    image = centred_ifft(low)
    return np.asarray(np.exp(1j * np.angle(image)), dtype=np.complex64)


def _pocs(
    data: NDArray[np.complex64], covered: Ranges, centre: Ranges, iterations: int
) -> NDArray[np.complex64]:
    phase = _phase(data, centre)
    measured = data[:, :, covered[0], covered[1]]
    filled = data
    for _ in range(iterations):
        filled = centred_fft(np.abs(centred_ifft(filled)) * phase)
        filled[:, :, covered[0], covered[1]] = measured
    return filled


def _homodyne(
    data: NDArray[np.complex64], covered: Ranges, centre: Ranges, _iterations: int
) -> NDArray[np.complex64]:
    weights = np.outer(
        *(_ramp(r, c, n) for r, c, n in zip(covered, centre, data.shape[2:], strict=True))
    ).astype(np.float32)
    phase = _phase(data, centre)
    image = centred_ifft(data * weights) * phase.conj()
    return centred_fft(image.real * phase)


def _ramp(covered: slice, centre: slice, size: int) -> NDArray[np.float64]:
    """0 on the missing side, 2 opposite to it, linear over the symmetric centre; 1 where both are there."""
    weights = np.ones(size)
    missing_low, missing_high = centre.start > 1 and covered.start > 1, covered.stop < size - 1
    if missing_low == missing_high:
        return weights
    weights = np.full(size, 2.0)
    weights[centre] = np.linspace(0, 2, centre.stop - centre.start + 2)[1:-1]
    weights[: centre.start] = 0
    return weights if missing_low else _mirrored(weights, centre, size)


def _mirrored(weights: NDArray[np.float64], centre: slice, size: int) -> NDArray[np.float64]:
    out = np.full(size, 2.0)
    out[centre] = weights[centre][::-1]
    out[centre.stop :] = 0
    return out

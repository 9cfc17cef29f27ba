"""Fewer virtual coils that hold nearly all of the signal, with noise that stays white.

Every compression matrix has orthonormal rows, so whitened data stay whitened: ``E|n|^2 = 1`` per virtual
coil, uncorrelated. What is lost is signal, and how much is noted.

- ``pca``: one matrix for the whole slice, leading principal components of the calibration data
  (Buehrer et al., Magn Reson Med 57:1131, 2007).
- ``geometric``: one matrix for every position along the fully sampled readout, neighbours aligned to each
  other by the closest unitary rotation (Zhang et al., Magn Reson Med 69:571, 2013); needs fewer coils.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.choices import CoilCompression
from recon_node.core.errors import CalibrationError, UnsupportedScan
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.grid import central
from recon_node.core.types import KSpace

Matrices = NDArray[np.complex128]
_NEIGHBOURS = 5
"""Positions along the readout whose calibration data decide a matrix together."""


def compress_coils(kspace: KSpace, coils: int | None = None, *, method: CoilCompression = "pca") -> KSpace:
    """The same slice with virtual coils.

    Parameters
    ----------
    kspace : KSpace
        Whitened, with calibration data.
    coils : int, optional
        Virtual coils to keep; by default as many as rise above the noise in the calibration data.
    method : {"pca", "geometric"}

    Returns
    -------
    KSpace
        Unchanged where it has no more coils than asked for.

    Raises
    ------
    CalibrationError
        There are no calibration data.
    UnsupportedScan
        ``geometric`` with samples missing along the readout.
    """
    if kspace.calibration is None:
        raise CalibrationError(f"slice {kspace.index.slice}: coil compression needs calibration lines")
    count = _signal_coils(kspace) if coils is None else coils
    if count >= kspace.data.shape[1]:
        return kspace
    if method == "pca":
        matrix = _principal(_covariance(kspace.calibration), count)
        data = _apply(matrix, kspace.data, kspace.mask)
        calibration = _apply(matrix, kspace.calibration[None])[0]
    else:
        data, calibration = _geometric(kspace, count)
    kept = float(np.linalg.norm(calibration) / np.linalg.norm(kspace.calibration)) ** 2
    note = (
        f"{kspace.data.shape[1]} coils compressed to {count} ({method}): "
        f"{kept:.2%} of the calibration energy kept, noise still white"
    )
    return dataclasses.replace(kspace, data=data, calibration=calibration, notes=(*kspace.notes, note))


def _covariance(calibration: NDArray[np.complex64]) -> Matrices:
    """`(coil, coil)` complex128 Gram matrix of `(coil, ...)`."""
    flat = calibration.reshape(len(calibration), -1).astype(np.complex128)
    return np.asarray(flat @ flat.conj().T)


def _principal(gram: Matrices, count: int) -> Matrices:
    """Conjugate leading eigenvectors as rows, `(..., count, coil)`."""
    _, vectors = np.linalg.eigh(gram)
    return np.asarray(np.swapaxes(vectors[..., ::-1][..., :count], -1, -2).conj())


def _signal_coils(kspace: KSpace) -> int:
    """Components whose energy is above what noise alone reaches (edge of the Marchenko-Pastur law).

    What is left out is below the noise of the lines to be reconstructed, where the object is brightest.
    """
    calibration = kspace.calibration
    if calibration is None or not kspace.whitened:
        return int(kspace.data.shape[1])
    coils, samples = len(calibration), calibration[0].size
    noise = (kspace.calibration_noise or 1.0) if _measured_apart(kspace, calibration.shape[1]) else 1.0
    edge = (noise * (1 + np.sqrt(coils / samples))) ** 2
    energy = np.linalg.eigvalsh(_covariance(calibration) / samples)
    return max(1, int(np.count_nonzero(energy > edge)))


def _measured_apart(kspace: KSpace, lines: int) -> bool:
    """Whether calibration lines are no imaging lines, so that their brightness says nothing of those."""
    sampled = np.asarray(np.any(kspace.mask, axis=(0, 2)))
    return not bool(sampled[central(len(sampled), lines)].all())


def _apply(
    matrix: Matrices, data: NDArray[np.complex64], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.complex64]:
    """`(phase, coil, ky, kx)` to virtual coils, on lines with samples in `mask` `(phase, ky, kx)` only."""
    phases, coils, ny, nx = data.shape
    single = matrix.astype(np.complex64)
    out = np.zeros((phases, len(matrix), ny, nx), np.complex64)
    for phase in range(phases):
        rows = slice(None) if mask is None else np.flatnonzero(mask[phase].any(axis=1))
        some = data[phase][:, rows]
        out[phase][:, rows] = (single @ some.reshape(coils, -1)).reshape(len(matrix), -1, nx)
    return out


def _geometric(kspace: KSpace, count: int) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    if kspace.calibration is None or not np.array_equal(
        np.any(kspace.mask, axis=2), np.all(kspace.mask, axis=2)
    ):
        raise UnsupportedScan("geometric coil compression needs fully sampled readouts: use 'pca'")
    nx, ax = kspace.data.shape[3], kspace.calibration.shape[2]
    wide = np.zeros((*kspace.calibration.shape[:2], nx), dtype=np.complex64)
    wide[:, :, central(nx, ax)] = kspace.calibration
    hybrid = centred_ifft(wide, (-1,))
    matrices = _aligned(_smoothed_grams(hybrid), count).astype(np.complex64)
    calibration = centred_fft(_along_readout(matrices, hybrid[None]), (-1,))[0]
    data = centred_fft(_along_readout(matrices, centred_ifft(kspace.data, (-1,))), (-1,))
    block = np.ascontiguousarray(calibration[:, :, central(nx, ax)], dtype=np.complex64)
    return data.astype(np.complex64, copy=False), block


def _smoothed_grams(hybrid: NDArray[Any]) -> Matrices:
    """`(x, coil, coil)` complex128 from `(coil, ky, x)`, summed over neighbours around the field of view."""
    lines = np.moveaxis(hybrid, -1, 0).astype(np.complex128)
    grams = lines @ np.swapaxes(lines, -1, -2).conj()
    half = _NEIGHBOURS // 2
    return np.asarray(sum(np.roll(grams, shift, axis=0) for shift in range(-half, half + 1)))


def _aligned(grams: Matrices, count: int) -> Matrices:
    """`(x, count, coil)`: each subspace's basis turned as near to its neighbour's as it can be."""
    matrices = _principal(grams, count)
    for x in range(1, len(matrices)):
        left, _, right = np.linalg.svd(matrices[x - 1] @ matrices[x].conj().T)
        matrices[x] = left @ right @ matrices[x]
    return matrices


def _along_readout(matrices: NDArray[Any], hybrid: NDArray[Any]) -> NDArray[np.complex64]:
    """Apply `(x, virtual, coil)` to `(phase, coil, ky, x)`."""
    return np.ascontiguousarray(np.einsum("xvc,pcyx->pvyx", matrices, hybrid, optimize=True))

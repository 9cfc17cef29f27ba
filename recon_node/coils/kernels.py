"""Signal space of calibration data: the leading singular vectors of its block-Hankel matrix.

The calibration matrix `A` has one row per position of a `kernel` x `kernel` window inside the
calibration region and one column per sample of that window and coil (Uecker et al., MRM 71:990,
2014, eq. 4). Its rows span, up to noise, a space of low dimension: the signal space.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import zherk

Complex = NDArray[np.complexfloating[Any, Any]]

_BLOCK = 64
"""Vectors in the first try of the subspace iteration; doubled until it holds the signal space."""
_SPARE = 8
"""Vectors beyond the signal space that make the last ones of it converge."""
_SWEEPS = 2


def calibration_matrix(calibration: Complex, kernel: int) -> Complex:
    """The calibration matrix `A`, `(position, coil * kernel * kernel)`, of `(coil, ay, ax)` data."""
    windows = np.lib.stride_tricks.sliding_window_view(calibration, (kernel, kernel), axis=(1, 2))
    rows = windows.transpose(1, 2, 0, 3, 4)
    return rows.reshape(rows.shape[0] * rows.shape[1], -1)


def position_gram(calibration: Complex, kernel: int) -> Complex:
    """``A A^H``, `(position, position)`, without forming `A`.

    The inner product of two windows is the sum over the window of inner products of single samples,
    so that the cost hardly depends on the number of coils.
    """
    coils, ay, ax = calibration.shape
    flat = calibration.reshape(coils, ay * ax)
    gram: Complex = (flat.T @ flat.conj()).reshape(ay, ax, ay, ax)
    ny, nx = ay - kernel + 1, ax - kernel + 1
    rows = gram[:ny, :, :ny, :].copy()
    for i in range(1, kernel):
        rows += gram[i : i + ny, :, i : i + ny, :]
    both = rows[:, :nx, :, :nx].copy()
    for i in range(1, kernel):
        both += rows[:, i : i + nx, :, i : i + nx]
    return both.reshape(ny * nx, ny * nx)


def sample_gram(matrix: Complex) -> Complex:
    """``A^H A`` of the complex128 calibration matrix; the rank-k update computes one triangle only."""
    upper = zherk(1.0, matrix.T)
    gram: Complex = np.triu(upper, 1).conj()
    gram += np.triu(upper).T
    return gram


def leading_eigenvectors(gram: Complex, relative: float, floor: float) -> tuple[NDArray[Any], Complex]:
    """Eigenpairs of a Hermitian positive `gram` above ``max(relative * largest, floor)``.

    Blocked subspace iteration from fixed random vectors, in single precision (the cutoff lies far
    above its rounding), then one Rayleigh-Ritz step in double precision. The block grows until the
    last vector in it falls below the cutoff; near full size a dense solver takes over.

    Returns
    -------
    values : ndarray
        Decreasing.
    vectors : ndarray
        `(row, vector)` complex128, orthonormal.
    """
    block = _BLOCK
    while True:
        if 2 * block >= gram.shape[0]:
            values, vectors = np.linalg.eigh(gram)
        else:
            values, vectors = _ritz(gram, block)
        kept = int(np.count_nonzero(values > max(relative * values[-1], floor)))
        if kept + _SPARE <= block or 2 * block >= gram.shape[0]:
            kept = max(kept, 1)
            return values[::-1][:kept], vectors[:, ::-1][:, :kept]
        block *= 2


def _ritz(gram: Complex, block: int) -> tuple[NDArray[Any], Complex]:
    rng = np.random.default_rng(block)
    single = (gram / np.trace(gram).real).astype(np.complex64)
    start = rng.standard_normal((gram.shape[0], 2 * block), np.float32).view(np.complex64)
    for _ in range(_SWEEPS):
        start = np.linalg.qr(single @ start)[0]
    basis = start.astype(np.complex128)
    values, turn = np.linalg.eigh(basis.conj().T @ (gram @ basis))
    return values, basis @ turn


def signal_kernels(calibration: Complex, kernel: int, relative: float, floor: float = 0.0) -> Complex:
    """Orthonormal k-space kernels that span the signal space.

    Parameters
    ----------
    calibration : ndarray
        `(coil, ay, ax)` complex128.
    kernel : int
        Window size along both axes.
    relative : float
        Singular values below this fraction of the largest are noise.
    floor : float
        Singular values below this are noise as well (units of `calibration`).

    Returns
    -------
    ndarray
        `(vector, coil, kernel, kernel)` complex64: windows of noiseless data lie in their span.
    """
    coils = calibration.shape[0]
    positions = (calibration.shape[1] - kernel + 1) * (calibration.shape[2] - kernel + 1)
    matrix = calibration_matrix(calibration, kernel)
    if positions <= matrix.shape[1]:
        gram = position_gram(calibration, kernel)
        values, vectors = leading_eigenvectors(gram, relative**2, floor**2)
        left = (vectors / np.sqrt(values)).astype(np.complex64)
        rows = left.conj().T @ matrix.astype(np.complex64)
    else:
        _, vectors = leading_eigenvectors(sample_gram(matrix), relative**2, floor**2)
        rows = vectors.conj().T.astype(np.complex64)
    kernels: Complex = rows.reshape(-1, coils, kernel, kernel)
    return kernels

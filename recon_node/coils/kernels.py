"""Signal space of calibration data: the leading singular vectors of its block-Hankel matrix.

The calibration matrix `A` has one row per position of a `kernel` x `kernel` window inside the
calibration region and one column per sample of that window and coil (Uecker et al., MRM 71:990,
2014, eq. 4). Its rows span, up to noise, a space of low dimension: the signal space.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import cherk, zherk

from recon_node.coils.arrays import Array, beside, cast, copied, is_single, namespace, windows

_BLOCK = 64
"""Vectors in the first try of the subspace iteration; doubled until it holds the signal space."""
_SPARE = 8
"""Vectors beyond the signal space that make the last ones of it converge."""
_SWEEPS = 2
_SINGLE_ABOVE = 1e-5
"""Eigenvalues to tell from noise, as a share of all, from which on single precision tells them."""
_RANK_DEFICIT = 1e-12
"""Shift, as a fraction of the trace, that lets vectors of a rank-deficient block be factored."""


def calibration_matrix(calibration: Array, kernel: int) -> Array:
    """The calibration matrix `A`, `(position, coil * kernel * kernel)`, of `(coil, ay, ax)` data."""
    rows = namespace(calibration).moveaxis(windows(calibration, kernel), 0, 2)
    return rows.reshape(rows.shape[0] * rows.shape[1], -1)


def position_gram(calibration: Array, kernel: int) -> Array:
    """``A A^H``, `(position, position)`, without forming `A`.

    The inner product of two windows is the sum over the window of inner products of single samples,
    so that the cost hardly depends on the number of coils.
    """
    coils, ay, ax = calibration.shape
    flat = calibration.reshape(coils, ay * ax)
    gram = (flat.T @ flat.conj()).reshape(ay, ax, ay, ax)
    ny, nx = ay - kernel + 1, ax - kernel + 1
    rows = copied(gram[:ny, :, :ny, :])
    for i in range(1, kernel):
        rows += gram[i : i + ny, :, i : i + ny, :]
    both = copied(rows[:, :nx, :, :nx])
    for i in range(1, kernel):
        both += rows[:, i : i + nx, :, i : i + nx]
    return both.reshape(ny * nx, ny * nx)


def sample_gram(matrix: Array) -> Array:
    """``A^H A`` of the calibration matrix; numpy's by a rank-k update of one triangle only."""
    if namespace(matrix) is not np:
        return matrix.conj().T @ matrix
    update = cherk if matrix.dtype == np.complex64 else zherk
    gram = update(1.0, matrix.T).T  # its lower triangle, zeros above
    diagonal = gram.diagonal().copy()
    gram += gram.conj().T
    np.fill_diagonal(gram, diagonal)
    return gram


def leading_eigenvectors(gram: Array, relative: float, floor: float) -> tuple[Array, Array]:
    """Eigenpairs of a Hermitian positive `gram` above ``max(relative * largest, floor)``.

    Blocked subspace iteration from fixed random vectors, in single precision (the cutoff lies far
    above its rounding), then one Rayleigh-Ritz step in the precision of `gram`. The block grows until the
    last vector in it falls below the cutoff; near full size a dense solver takes over.

    Returns
    -------
    values : array
        Decreasing.
    vectors : array
        `(row, vector)` complex128, orthonormal.
    """
    xp, block = namespace(gram), _BLOCK
    while True:
        whole = 2 * block >= gram.shape[0]
        values, vectors = xp.linalg.eigh(cast(gram, "complex128")) if whole else _ritz(gram, block)
        cutoff = max(relative * float(values[-1]), floor)
        kept = int(xp.count_nonzero(values > cutoff))
        if whole or kept + _SPARE <= block:
            first = len(values) - max(kept, 1)
            return xp.flip(values[first:], (0,)), xp.flip(vectors[:, first:], (1,))
        block *= 2


def _ritz(gram: Array, block: int) -> tuple[Array, Array]:
    xp, rng = namespace(gram), np.random.default_rng(block)
    level = float(xp.trace(gram).real)
    single = cast(gram / level, "complex64")
    drawn = rng.standard_normal((gram.shape[0], 2 * block), np.float32).view(np.complex64)
    basis = beside(drawn, gram)
    for _ in range(_SWEEPS):
        basis = _orthonormal(cast(single @ cast(basis, "complex64"), "complex128"))
    last = cast(single @ cast(basis, "complex64"), "complex128") * level if is_single(gram) else gram @ basis
    values, turn = xp.linalg.eigh(basis.conj().T @ last)
    return values, basis @ turn


def _orthonormal(vectors: Array) -> Array:
    """Orthonormal basis of the columns `(row, vector)`, by the Cholesky factor of their Gram matrix."""
    xp = namespace(vectors)
    gram = vectors.conj().T @ vectors
    shift = _RANK_DEFICIT * float(xp.trace(gram).real)
    lower = xp.linalg.cholesky(gram + shift * beside(np.eye(gram.shape[0]), gram))
    return vectors @ xp.linalg.inv(lower).conj().T


def signal_kernels(calibration: Array, kernel: int, relative: float, floor: float = 0.0) -> Array:
    """Orthonormal k-space kernels that span the signal space.

    Parameters
    ----------
    calibration : array
        `(coil, ay, ax)` complex128.
    kernel : int
        Window size along both axes.
    relative : float
        Singular values below this fraction of the largest are noise.
    floor : float
        Singular values below this are noise as well (units of `calibration`).

    Returns
    -------
    array
        `(vector, coil, kernel, kernel)` complex64: windows of noiseless data lie in their span.
    """
    coils = calibration.shape[0]
    positions = (calibration.shape[1] - kernel + 1) * (calibration.shape[2] - kernel + 1)
    matrix = calibration_matrix(calibration, kernel)
    if positions <= matrix.shape[1]:
        gram = position_gram(calibration, kernel)
        values, vectors = leading_eigenvectors(gram, relative**2, floor**2)
        left = cast(vectors / namespace(values).sqrt(values), "complex64")
        rows = left.conj().T @ cast(matrix, "complex64")
    else:
        energy = float((matrix.real**2 + matrix.imag**2).sum())
        if max(relative**2, floor**2 / energy) > _SINGLE_ABOVE:
            matrix = cast(matrix, "complex64")
        _, vectors = leading_eigenvectors(sample_gram(matrix), relative**2, floor**2)
        rows = cast(vectors, "complex64").conj().T
    return rows.reshape(-1, coils, kernel, kernel)

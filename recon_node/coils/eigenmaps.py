"""Coil maps as dominant eigenvectors of the image-space ESPIRiT operator.

With `K` signal kernels the operator at image position `r` is the Hermitian coil x coil matrix
``G(r) = sum_k w_k(r) w_k(r)^H / kernel^2``, `w_k` the Fourier transform of kernel `k`; coil maps are
its eigenvectors with eigenvalue one (Uecker et al., MRM 71:990, 2014, eq. 13 and 14).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complexfloating[Any, Any]]
Real = NDArray[np.floating[Any]]

_DOUBLE_STEPS = 4
_TOLERANCE = 1e-3
"""Norm of ``G x - value x`` at which an eigenvector is good enough."""
_VANISHING = 1e-12


def fractions(size: int) -> Real:
    """Positions of `size` pixels as fractions of the field of view; the centre pixel is at 0."""
    return (np.arange(size) - size // 2) / size


def dirichlet(positions: Real, count: int) -> Real:
    """`(position, count)` weights: a trigonometric polynomial from `count` (odd) equidistant samples."""
    angle = np.pi * (positions[:, None] - np.arange(count) / count)
    small = np.abs(np.sin(angle)) < 1e-12
    safe = np.where(small, 0.5, angle)
    return np.where(small, 1.0, np.sin(count * safe) / (count * np.sin(safe)))


def operator_samples(kernels: Complex) -> Complex:
    """``G`` on the smallest grid that determines it, `(m, m, coil, coil)` with ``m = 2 kernel - 1``."""
    kernel = kernels.shape[-1]
    m = 2 * kernel - 1
    wave = np.exp(2j * np.pi * np.outer(np.arange(m), np.arange(kernel)) / m) / np.sqrt(kernel)
    wave = wave.astype(np.complex64)
    spectra = wave @ (kernels @ wave.T)
    by_point = np.ascontiguousarray(spectra.transpose(2, 3, 1, 0))
    samples: Complex = by_point @ by_point.conj().swapaxes(-1, -2)
    return samples


class Operator:
    """``G(r)`` at any position, from its samples.

    Parameters
    ----------
    samples : ndarray
        `(m, m, coil, coil)` complex64, see `operator_samples`.
    """

    def __init__(self, samples: Complex) -> None:
        self.samples = samples
        self.coils = samples.shape[-1]

    def on_grid(self, y: Real, x: Real) -> Complex:
        """``G`` on the grid of fractions `y` times `x`, `(len(y) * len(x), coil, coil)` complex64."""
        m, coils = self.samples.shape[0], self.coils
        flat = self.samples.view(np.float32).reshape(m, -1)
        rows = dirichlet(y, m).astype(np.float32) @ flat
        grid = dirichlet(x, m).astype(np.float32) @ rows.reshape(len(y), m, -1)
        return grid.view(np.complex64).reshape(-1, coils, coils)


def dominant(matrices: Complex, start: Complex) -> tuple[Real, Complex]:
    """Leading eigenpairs of Hermitian matrices by orthogonal iteration.

    Parameters
    ----------
    matrices : ndarray
        `(n, coil, coil)` complex64, eigenvalues between 0 and 1.
    start : ndarray
        `(n, coil, count)` first guess.

    Returns
    -------
    values : ndarray
        `(n, count)` float32, decreasing.
    vectors : ndarray
        `(n, coil, count)` complex64, orthonormal columns.
    """
    squared = matrices @ matrices
    fourth = squared @ squared
    vectors = orthonormal(matrices @ start)
    for _ in range(_DOUBLE_STEPS):
        vectors = orthonormal(fourth @ vectors)
    values, vectors, error = _ritz(matrices, vectors)
    for _ in range(4 * _DOUBLE_STEPS):
        open_ = np.flatnonzero((error > _TOLERANCE) & (values[:, 0] > 0.5))
        if open_.size == 0:
            break
        again = orthonormal(fourth[open_] @ (fourth[open_] @ vectors[open_]))
        values[open_], vectors[open_], error[open_] = _ritz(matrices[open_], again)
    return values, vectors


def orthonormal(vectors: Complex) -> Complex:
    """Columns of `(n, coil, count)` made orthonormal one after the other (Gram-Schmidt, twice)."""
    columns: list[Complex] = []
    for i in range(vectors.shape[-1]):
        column = _unit(vectors[..., i])
        for earlier in columns * 2:
            column = column - earlier * np.sum(earlier.conj() * column, axis=-1, keepdims=True)
        columns.append(_unit(column) if i else column)
    return np.stack(columns, axis=-1)


def _unit(vectors: Complex) -> Complex:
    """`(n, coil)` scaled to unit length; vanishing vectors become zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Complex = np.where(length > _VANISHING, vectors / np.maximum(length, _VANISHING), 0)
    return unit


def _ritz(matrices: Complex, vectors: Complex) -> tuple[Real, Complex, Real]:
    image = matrices @ vectors
    small = vectors.conj().swapaxes(-1, -2) @ image
    if vectors.shape[-1] == 1:
        values = small[:, 0, :].real.copy()
    else:
        rising, turn = np.linalg.eigh(small)
        values = rising[:, ::-1].copy()
        turn = turn[..., ::-1]
        vectors, image = vectors @ turn, image @ turn
    error = np.linalg.norm(image - vectors * values[:, None, :], axis=1).max(axis=-1)
    return values, vectors, error

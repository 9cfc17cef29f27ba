"""Coil maps as dominant eigenvectors of the image-space ESPIRiT operator.

With `K` signal kernels the operator at image position `r` is the Hermitian coil x coil matrix
``G(r) = sum_k w_k(r) w_k(r)^H / kernel^2``, `w_k` the Fourier transform of kernel `k`; coil maps are
its eigenvectors with eigenvalue one (Uecker et al., MRM 71:990, 2014, eq. 13 and 14).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.coils.arrays import Array, as_complex, as_real, beside, contiguous, namespace

Real = NDArray[np.floating[Any]]

_UNWANTED = 0.7
"""Eigenvalues up to here are damped alike by the Chebyshev filter; those of signal are near one."""
_DEGREE = 6
_ROUNDS = 16
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


def operator_samples(kernels: Array) -> Array:
    """``G`` on the smallest grid that determines it, `(m, m, coil, coil)` with ``m = 2 kernel - 1``."""
    kernel = kernels.shape[-1]
    m = 2 * kernel - 1
    turns = np.exp(2j * np.pi * np.outer(np.arange(m), np.arange(kernel)) / m) / np.sqrt(kernel)
    wave = beside(turns.astype(np.complex64), kernels)
    spectra = wave @ (kernels @ wave.T)
    by_point = contiguous(namespace(spectra).moveaxis(spectra, (0, 1), (3, 2)))
    return by_point @ by_point.conj().swapaxes(-1, -2)


class Operator:
    """``G(r)`` at any position, from its samples.

    Parameters
    ----------
    samples : array
        `(m, m, coil, coil)` complex64, see `operator_samples`.
    """

    def __init__(self, samples: Array) -> None:
        self.samples = samples
        self.coils = samples.shape[-1]

    def on_grid(self, y: Real, x: Real) -> Array:
        """``G`` on the grid of fractions `y` times `x`, `(len(y) * len(x), coil, coil)` complex64."""
        m, coils = self.samples.shape[0], self.coils
        flat = as_real(self.samples.reshape(m, -1))
        to_y, to_x = (beside(dirichlet(at, m).astype(np.float32), flat) for at in (y, x))
        grid = to_x @ (to_y @ flat).reshape(len(y), m, -1)
        return as_complex(grid).reshape(-1, coils, coils)


def dominant(matrices: Array, start: Array) -> tuple[Array, Array]:
    """Leading eigenpairs of Hermitian matrices by filtered orthogonal iteration.

    Parameters
    ----------
    matrices : array
        `(n, coil, coil)` complex64, eigenvalues between 0 and 1.
    start : array
        `(n, coil, count)` first guess.

    Returns
    -------
    values : array
        `(n, count)` float32, decreasing.
    vectors : array
        `(n, coil, count)` complex64, orthonormal columns.
    """
    steps = _filter_steps(matrices)
    vectors = _filtered(steps, orthonormal(matrices @ start))
    values, vectors, error = _ritz(matrices, vectors)
    for _ in range(_ROUNDS):
        left = (error > _TOLERANCE) & (values[:, 0] > 0.5)
        if not bool(left.any()):
            break
        again = _filtered(steps[left], vectors[left])
        values[left], vectors[left], error[left] = _ritz(matrices[left], again)
    return values, vectors


def second_values(matrices: Array, values: Array, vectors: Array, floor: float) -> Array:
    """Second eigenvalue of Hermitian matrices `(n,)` float32: exact above `floor`, else a bound below it.

    Parameters
    ----------
    matrices : array
        `(n, coil, coil)` complex64, eigenvalues between 0 and 1.
    values, vectors : array
        `(n,)` and `(n, coil)`: the leading eigenpairs.
    floor : float
        The squares of all eigenvalues add up to those of the elements, so that most need no iteration.
    """
    xp = namespace(matrices)
    elements = as_real(matrices.reshape(len(matrices), -1))
    elements = xp.einsum("ni,ni->n", elements, elements)
    found = xp.sqrt(xp.clip(elements - xp.square(values), 0, None))
    high = found > floor
    if bool(high.any()):
        first = vectors[high][:, :, None]
        rest = matrices[high] - values[high][:, None, None] * (first @ first.conj().swapaxes(1, 2))
        longest = xp.argmax(norm(rest, 1), -1)
        start = rest[beside(np.arange(len(rest)), rest), :, longest]
        found[high] = dominant(rest, start[:, :, None])[0][:, 0]
    return found


def _filter_steps(matrices: Array) -> Array:
    """Twice the matrices whose eigenvalues from 0 to 0.7 lie between -1 and 1."""
    steps = matrices * (4 / _UNWANTED)
    diagonal = np.arange(matrices.shape[-1])
    steps[:, diagonal, diagonal] -= 2
    return steps


def _filtered(steps: Array, vectors: Array) -> Array:
    """Orthonormal vectors after a Chebyshev polynomial of `_filter_steps`, small on what it is to damp."""
    before, now = vectors, 0.5 * (steps @ vectors)
    for _ in range(_DEGREE - 1):
        following = steps @ now
        following -= before
        before, now = now, following
    return orthonormal(now)


def orthonormal(vectors: Array) -> Array:
    """Columns of `(n, coil, count)` made orthonormal one after the other (Gram-Schmidt, twice)."""
    columns: list[Array] = []
    for i in range(vectors.shape[-1]):
        column = _unit(vectors[..., i])
        for earlier in columns * 2:
            column = column - earlier * (earlier.conj() * column).sum(-1)[:, None]
        columns.append(_unit(column) if i else column)
    return namespace(vectors).stack(columns, -1)


def norm(vectors: Array, axis: int) -> Array:
    """Euclidean length of complex vectors along an axis."""
    xp = namespace(vectors)
    return xp.sqrt((xp.square(vectors.real) + xp.square(vectors.imag)).sum(axis))


def _unit(vectors: Array) -> Array:
    """`(n, coil)` scaled to unit length; vanishing vectors become zero."""
    xp = namespace(vectors)
    length = norm(vectors, -1)[:, None]
    safe = xp.where(length > _VANISHING, length, 1)
    return xp.where(length > _VANISHING, vectors / safe, 0)


def _ritz(matrices: Array, vectors: Array) -> tuple[Array, Array, Array]:
    xp = namespace(matrices)
    image = matrices @ vectors
    small = vectors.conj().swapaxes(-1, -2) @ image
    if vectors.shape[-1] == 1:
        values = small[:, 0, :].real + 0
    else:
        rising, turn = xp.linalg.eigh(small)
        values = xp.flip(rising, (1,))
        turn = xp.flip(turn, (2,))
        vectors, image = vectors @ turn, image @ turn
    error = xp.amax(norm(image - vectors * values[:, None, :], 1), -1)
    return values, vectors, error

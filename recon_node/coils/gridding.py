"""Eigenmaps of the ESPIRiT operator on every pixel: coarse grid, interpolation, exact repair.

Eigenvectors vary slowly wherever the object is, except at the edges of folded regions and where the
virtual coil that fixes their phase vanishes. There neighbouring grid points disagree, and the pixels
between them are computed one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_node.coils.eigenmaps import Complex, Operator, Real, dominant, fractions

_AGREEMENT = 0.9
"""Neighbouring unit eigenvectors with a smaller real inner product are not interpolated between."""
_ROWS_AT_ONCE = 8


def dense_maps(
    operator: Operator, shape: tuple[int, int], virtual: Complex, count: int
) -> tuple[Real, Complex]:
    """Eigenvalues `(count, y, x)` and eigenvectors `(count, coil, y, x)`, each pixel on its own."""
    values = np.empty((count, *shape), np.float32)
    vectors = np.empty((count, operator.coils, *shape), np.complex64)
    x = fractions(shape[1])
    y = fractions(shape[0])
    for first in range(0, shape[0], _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        matrices = operator.on_grid(y[rows], x)
        found, pointing = dominant(matrices, _start(len(matrices), virtual, count))
        block = (len(y[rows]), shape[1])
        values[:, rows] = found.T.reshape(count, *block)
        vectors[:, :, rows] = in_phase(pointing, virtual).transpose(2, 1, 0).reshape(count, -1, *block)
    return values, vectors


def interpolated_maps(
    operator: Operator, shape: tuple[int, int], virtual: Complex, grid: int, crop: float
) -> tuple[Real, Complex]:
    """As `dense_maps` with one map, by interpolation from a periodic `grid` x `grid`."""
    coarse = np.arange(grid) / grid
    matrices = operator.on_grid(coarse, coarse)
    found, pointing = dominant(matrices, _start(len(matrices), virtual, 1))
    nodes = np.ascontiguousarray(in_phase(pointing, virtual)[..., 0].T).reshape(-1, grid, grid)
    levels = found.reshape(grid, grid)
    to_y, to_x = cubic(shape[0], grid), cubic(shape[1], grid)
    values = to_y @ levels @ to_x.T
    vectors = _interpolate(nodes, to_y, to_x)
    torn = _torn_cells(nodes, levels, crop)
    if torn.any():
        _repair(operator, values, vectors, torn, virtual)
    return values[None], vectors[None]


def in_phase(vectors: Complex, virtual: Complex) -> Complex:
    """`(n, coil, count)` vectors turned so that their inner product with `virtual` is real and positive."""
    onto = np.einsum("c,ncm->nm", virtual.conj(), vectors)
    length = np.abs(onto)
    turn = np.where(length > 0, onto.conj() / np.where(length > 0, length, 1), 1)
    turned: Complex = vectors * turn[:, None, :]
    return turned


def cubic(size: int, grid: int) -> Real:
    """Weights `(size, grid)` float32 of periodic cubic interpolation (Keys, a = -1/2) to `size` pixels."""
    place = (fractions(size) % 1.0) * grid
    base = np.floor(place).astype(int)
    t = place - base
    weights = np.stack(
        [
            ((-0.5 * t + 1) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((-1.5 * t + 2) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    )
    matrix = np.zeros((size, grid), np.float32)
    for step, weight in zip(range(-1, 3), weights, strict=True):
        np.add.at(matrix, (np.arange(size), (base + step) % grid), weight)
    return matrix


def _start(number: int, virtual: Complex, count: int) -> Complex:
    """First guess: the virtual coil, then fixed pseudo-random vectors."""
    rng = np.random.default_rng(count)
    first = rng.standard_normal((len(virtual), count, 2)).astype(np.float32).view(np.complex64)[..., 0]
    first[:, 0] = virtual + 0.01 * first[:, 0] / np.linalg.norm(first[:, 0])
    return np.broadcast_to(first, (number, *first.shape))


def _interpolate(nodes: Complex, to_y: Real, to_x: Real) -> Complex:
    """`(coil, grid, grid)` to `(coil, y, x)` by two real matrix products."""
    coils, grid = nodes.shape[:2]
    along_y = to_y @ nodes.view(np.float32).reshape(coils, grid, 2 * grid)
    lines = along_y.view(np.complex64).reshape(-1, grid)
    real = np.stack([lines.real, lines.imag], axis=0) @ to_x.T
    out = np.empty(real.shape[1:], np.complex64)
    out.real, out.imag = real
    return out.reshape(coils, len(to_y), len(to_x))


def _torn_cells(nodes: Complex, levels: Real, crop: float) -> NDArray[np.bool_]:
    """Cells `(grid, grid)` (node and its next neighbours) that must not be interpolated."""
    inside = levels > crop - 0.1
    torn = np.zeros(levels.shape, bool)
    for axis in (0, 1):
        agree = np.sum((nodes.conj() * np.roll(nodes, -1, axis + 1)).real, axis=0)
        edge = (agree < _AGREEMENT) & inside & np.roll(inside, -1, axis)
        torn |= edge | np.roll(edge, 1, 1 - axis)
    return torn


def _repair(
    operator: Operator, values: Real, vectors: Complex, torn: NDArray[np.bool_], virtual: Complex
) -> None:
    grid = torn.shape[0]
    y, x = fractions(values.shape[0]), fractions(values.shape[1])
    cell_y = np.floor((y % 1.0) * grid).astype(int)
    cell_x = np.floor((x % 1.0) * grid).astype(int)
    for row in np.flatnonzero(torn.any(axis=1)):
        rows = np.flatnonzero(cell_y == row)
        columns = np.flatnonzero(torn[row][cell_x])
        if rows.size == 0 or columns.size == 0:
            continue
        matrices = operator.on_grid(y[rows], x[columns])
        found, pointing = dominant(matrices, _start(len(matrices), virtual, 1))
        block = np.ix_(rows, columns)
        values[block] = found.reshape(len(rows), len(columns))
        turned = in_phase(pointing, virtual)[..., 0].T
        vectors[:, rows[:, None], columns] = turned.reshape(-1, len(rows), len(columns))

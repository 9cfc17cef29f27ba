"""Eigenmaps of the ESPIRiT operator on every pixel: coarse grid, interpolation, exact repair.

Eigenvectors vary slowly wherever the object is, except at the edges of folded regions. There neighbouring
grid points disagree, and the pixels between them are computed one by one. Where neighbours agree but for
their phase (around a point where the virtual coil that fixes it vanishes), they are brought to one phase
before they are interpolated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.coils.arrays import Array, as_complex, beside, cast, contiguous, namespace, to_host
from recon_node.coils.eigenmaps import Operator, Real, dominant, fractions, second_values

FOLDED = 0.95
"""Second eigenvalue from which a second set of maps explains signal as fully as the first."""
_AGREEMENT = 0.9
"""Neighbouring unit eigenvectors with a smaller inner product are not interpolated between."""
_ROWS_AT_ONCE = 8
_STENCIL = np.arange(-1, 3)
"""Nodes around a cell that cubic interpolation takes, along each axis."""


def dense_maps(operator: Operator, shape: tuple[int, int], virtual: Array, count: int) -> tuple[Array, Array]:
    """Eigenvalues `(count, y, x)` and eigenvectors `(count, coil, y, x)`, each pixel on its own."""
    x, y = fractions(shape[1]), fractions(shape[0])
    xp = namespace(virtual)
    values, vectors = [], []
    for first in range(0, shape[0], _ROWS_AT_ONCE):
        rows = y[first : first + _ROWS_AT_ONCE]
        found, pointing = _solved(operator.on_grid(rows, x), virtual, count)
        values.append(found.T.reshape(count, len(rows), shape[1]))
        vectors.append(xp.moveaxis(pointing, 0, 2).swapaxes(0, 1).reshape(count, -1, len(rows), shape[1]))
    return xp.concatenate(values, 1), xp.concatenate(vectors, 2)


def interpolated_maps(
    operator: Operator, shape: tuple[int, int], virtual: Array, grid: int, crop: float
) -> tuple[Array, Array, float]:
    """As `dense_maps` with one map, by interpolation from a periodic `grid` x `grid`; folded share."""
    coarse = np.arange(grid) / grid
    matrices = operator.on_grid(coarse, coarse)
    found, pointing = _solved(matrices, virtual, 1)
    second = second_values(matrices, found[:, 0], pointing[..., 0], FOLDED)
    nodes = contiguous(pointing[..., 0].T).reshape(-1, grid, grid)
    levels = found.reshape(grid, grid)
    weights = cubic(shape[0], grid), cubic(shape[1], grid)
    to_y, to_x = (beside(matrix, nodes) for matrix in weights)
    values = to_y @ levels @ to_x.T
    vectors = _interpolate(nodes, to_y, to_x)
    twisted, torn = _odd_cells(nodes, levels, crop)
    if twisted.any():
        _untwist(nodes, vectors, twisted, weights, virtual)
    if torn.any():
        _repair(operator, values, vectors, torn, virtual)
    return values[None], vectors[None], share(second[found[:, 0] > crop] > FOLDED)


def share(where: Array) -> float:
    """Fraction of true elements; 0 of none."""
    return float(cast(where, "float32").mean()) if len(where) else 0.0


def in_phase(vectors: Array, virtual: Array) -> Array:
    """`(n, coil, count)` vectors turned so that their inner product with `virtual` is real and positive."""
    xp = namespace(vectors)
    return vectors * _back_turn(xp.einsum("c,ncm->nm", virtual.conj(), vectors))[:, None, :]


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
    for step, weight in zip(_STENCIL, weights, strict=True):
        np.add.at(matrix, (np.arange(size), (base + step) % grid), weight)
    return matrix


def _solved(matrices: Array, virtual: Array, count: int) -> tuple[Array, Array]:
    """Leading eigenpairs, every vector in phase with the virtual coil."""
    values, vectors = dominant(matrices, _start(len(matrices), virtual, count))
    return values, in_phase(vectors, virtual)


def _back_turn(inner: Array) -> Array:
    """Unit factors that make inner products real and positive; 1 where they vanish."""
    xp = namespace(inner)
    length = xp.abs(inner)
    return xp.where(length > 0, inner.conj() / xp.where(length > 0, length, 1), 1)


def _start(number: int, virtual: Array, count: int) -> Array:
    """First guess: the virtual coil, then fixed pseudo-random vectors."""
    rng = np.random.default_rng(count)
    first = rng.standard_normal((len(virtual), count, 2)).astype(np.float32).view(np.complex64)[..., 0]
    first[:, 0] = to_host(virtual) + 0.01 * first[:, 0] / np.linalg.norm(first[:, 0])
    return namespace(virtual).broadcast_to(beside(first, virtual), (number, *first.shape))


def _interpolate(nodes: Array, to_y: Array, to_x: Array) -> Array:
    """`(coil, grid, grid)` to `(coil, y, x)` by real matrix products: along x on the coarse rows, then y."""
    xp = namespace(nodes)
    coils, grid = nodes.shape[:2]
    lines = nodes.reshape(-1, grid)
    along_x = xp.stack([lines.real @ to_x.T, lines.imag @ to_x.T], -1)
    return as_complex(to_y @ along_x.reshape(coils, grid, -1))


def _odd_cells(nodes: Array, levels: Array, crop: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cells `(grid, grid)` (a node and its next neighbours): twisted ones, and torn ones."""
    xp = namespace(nodes)
    inside = to_host(levels) > crop - 0.1
    twisted, torn = (np.zeros(inside.shape, bool) for _ in range(2))
    for axis in (0, 1):
        inner = to_host(xp.einsum("cyx,cyx->yx", nodes.conj(), xp.roll(nodes, -1, axis + 1)))
        both = inside & np.roll(inside, -1, axis)
        twisted |= _touching((inner.real < _AGREEMENT) & both, axis)
        torn |= _touching((np.abs(inner) < _AGREEMENT) & both, axis)
    return twisted & ~torn, torn


def _touching(edges: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Cells that have an edge along `axis` at one of their sides."""
    return edges | np.roll(edges, 1, 1 - axis)


def _cells(size: int, grid: int) -> NDArray[Any]:
    """Cell that each of `size` pixels lies in."""
    return np.asarray(np.floor((fractions(size) % 1.0) * grid), dtype=int)


def _untwist(
    nodes: Array, vectors: Array, twisted: NDArray[np.bool_], weights: tuple[Real, Real], virtual: Array
) -> None:
    """Interpolate the pixels of twisted cells between nodes turned to the phase of the cell's own."""
    xp, grid = namespace(nodes), twisted.shape[0]
    cell_y, cell_x = (_cells(len(matrix), grid) for matrix in weights)
    y, x = np.nonzero(twisted[np.ix_(cell_y, cell_x)])
    near_y = (cell_y[y][:, None] + _STENCIL) % grid
    near_x = (cell_x[x][:, None] + _STENCIL) % grid
    share = weights[0][y[:, None], near_y][:, :, None] * weights[1][x[:, None], near_x][:, None, :]
    stencil = nodes[:, near_y[:, :, None], near_x[:, None, :]]
    own = stencil[:, :, 1, 1].conj()
    turn = _back_turn(xp.einsum("cp,cpij->pij", own, stencil)) * beside(share, nodes)
    found = xp.einsum("cpij,pij->cp", stencil, turn)
    vectors[:, y, x] = found * _back_turn(virtual.conj() @ found)


def _repair(
    operator: Operator, values: Array, vectors: Array, torn: NDArray[np.bool_], virtual: Array
) -> None:
    """Compute the pixels of torn cells one by one."""
    grid, (ny, nx) = torn.shape[0], values.shape
    cell_y, cell_x = _cells(ny, grid), _cells(nx, grid)
    y, x, matrices = [], [], []
    for row in np.flatnonzero(torn.any(axis=1)):
        rows, columns = np.flatnonzero(cell_y == row), np.flatnonzero(torn[row][cell_x])
        matrices.append(operator.on_grid(fractions(ny)[rows], fractions(nx)[columns]))
        y.append(np.repeat(rows, len(columns)))
        x.append(np.tile(columns, len(rows)))
    found, pointing = _solved(namespace(values).concatenate(matrices), virtual, 1)
    where = np.concatenate(y), np.concatenate(x)
    values[where] = found[:, 0]
    vectors[:, where[0], where[1]] = pointing[..., 0].T

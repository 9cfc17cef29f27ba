r"""How much of the calibration signal no image could give through the coil maps.

Comparing low-resolution coil images with their projection on the maps measures something else as well:
cutting calibration data off at its edge smears every coil image in another way, so that even the true maps
seem to miss 8 to 17 % of a thorax. Here the unknown is an image whose k-space reaches as far as the
calibration block. It is fitted to the samples well inside the block, on which what lies beyond has no
influence as long as coil maps are as smooth as ESPIRiT's kernels take them to be:

.. math:: \min_x \| P (F S x - c) \|, \qquad x \text{ within the block's k-space}
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from recon_node.core.fft import central_waves
from recon_node.core.grid import central

Complex = NDArray[np.complexfloating[Any, Any]]

MARGIN = 3
"""Samples at each edge of the block that are not compared: half of a usual ESPIRiT kernel."""
ITERATIONS = 15
FURTHER = 4
"""Iterations for a block like the one before: its fit begins with that one's."""
_DONE = 1e-8


class MapFit:
    """Fits images to calibration blocks of one size through coil maps.

    Parameters
    ----------
    maps : ndarray
        `(map, coil, y, x)` complex.
    block : tuple of int
        `(ay, ax)`: size of the blocks, at most that of the maps.
    """

    def __init__(self, maps: Complex, block: tuple[int, ...]) -> None:
        shape = tuple(min(2 * side, full) for side, full in zip(block, maps.shape[2:], strict=True))
        inner = tuple(side - 2 * min(MARGIN, (side - 1) // 4) for side in block)
        self._coils = _resampled(maps, shape)
        self._conjugate = self._coils.conj()
        self._wanted = [central_waves(full, part) for full, part in zip(shape, block, strict=True)]
        self._seen = [central_waves(full, part) for full, part in zip(shape, inner, strict=True)]
        self._inner = tuple(central(full, part) for full, part in zip(block, inner, strict=True))
        self._unknowns = len(maps) * block[0] * block[1]
        self._before: Complex | None = None

    def unexplained(self, calibration: Complex, *, noise: float | None) -> float | None:
        """Norm of the calibration signal that no image gives through the maps, over the signal's norm.

        Blocks are taken to be much like each other: the fit to each begins with that to the one before.

        Parameters
        ----------
        calibration : ndarray
            `(coil, ay, ax)` complex; centre of k-space.
        noise : float or None
            Standard deviation of the complex noise in `calibration`, taken off; None where it is not known.

        Returns
        -------
        float or None
            0 (all explained) to 1; None where the calibration holds no signal, or nothing well inside it.
        """
        measured = np.asarray(calibration[(slice(None), *self._inner)], np.complex64)
        total = _energy(measured)
        if total == 0:
            return None
        error = _energy(measured - self._forward(self._fitted(measured)))
        level = 0.0 if noise is None else noise**2
        signal = total - level * measured.size
        if signal <= 0:
            return None
        return float(np.sqrt(max(error - level * max(measured.size - self._unknowns, 0), 0.0) / signal))

    def _forward(self, x: Complex) -> Complex:
        """K-space `(map, ay, ax)` to the coils' samples well inside the block."""
        down, across = self._wanted
        images = down.conj().T @ x @ across.conj()
        seen = self._coils[0] * images[0]
        for sensitivities, image in zip(self._coils[1:], images[1:], strict=True):
            seen += sensitivities * image
        down, across = self._seen
        return np.asarray(down @ seen @ across.T)

    def _adjoint(self, samples: Complex) -> Complex:
        down, across = self._seen
        coil_images = down.conj().T @ samples @ across.conj()
        images = np.stack([(one * coil_images).sum(axis=0) for one in self._conjugate])
        down, across = self._wanted
        return np.asarray(down @ images @ across.T)

    def _fitted(self, measured: Complex) -> Complex:
        """Least squares by conjugate gradients from zero, or from the last fit."""
        target = residual = self._adjoint(measured)
        x, iterations = np.zeros_like(residual), ITERATIONS
        if self._before is not None:
            seen = self._forward(self._before)
            scale = np.vdot(seen, measured) / max(_energy(seen), 1e-30)
            x, iterations = np.asarray(scale * self._before, np.complex64), FURTHER
            residual = target - scale * self._adjoint(seen)
        direction, power = residual, _energy(residual)
        least = _DONE * _energy(target)
        for _ in range(iterations):
            if power <= least:
                break
            image = self._adjoint(self._forward(direction))
            step = power / float(np.vdot(direction, image).real)
            x, residual = x + step * direction, residual - step * image
            before, power = power, _energy(residual)
            direction = residual + power / before * direction
        self._before = x
        return x


class MapFits:
    """One `MapFit` for each size of blocks.

    Parameters
    ----------
    maps : ndarray
        `(map, coil, y, x)` complex.
    """

    def __init__(self, maps: Complex) -> None:
        self._maps = maps
        self._made: dict[int, MapFit] = {}

    def unexplained(self, calibration: Complex, *, noise: float | None) -> float | None:
        """See `MapFit.unexplained`; of a square block as high as this one, or as wide if that is less."""
        side = min(calibration.shape[1:])
        square = calibration[(slice(None), *(central(full, side) for full in calibration.shape[1:]))]
        if side not in self._made:
            self._made[side] = MapFit(self._maps, (side, side))
        return self._made[side].unexplained(square, noise=noise)


def _energy(values: Complex) -> float:
    return float(np.vdot(values, values).real)


def _resampled(maps: Complex, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """Maps `(map, coil, y, x)` on a coarser grid of the same field of view, by linear interpolation."""
    if maps.shape[2:] == shape:
        return maps.astype(np.complex64)
    places = [
        (np.arange(few) - few // 2) * (full / few) + full // 2
        for few, full in zip(shape, maps.shape[2:], strict=True)
    ]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    out = np.empty((*maps.shape[:2], *shape), np.complex64)
    for one, coarse in zip(maps.reshape(-1, *maps.shape[2:]), out.reshape(-1, *shape), strict=True):
        for part, target in ((one.real, coarse.real), (one.imag, coarse.imag)):
            target[...] = map_coordinates(part, grid, order=1, mode="grid-wrap")
    return out

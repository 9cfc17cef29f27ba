r"""The Tikhonov weight of SENSE that would serve an image like the one in the scanner best.

No rule of thumb from signal and noise alone is near the best weight everywhere: what regularisation costs
depends on how far the lines that are missing lie from those that are there, on the coils, and on where the
image has its fine detail. So the scan is acted out once. An image is drawn that has the measured one's low
frequencies, at higher ones the power that the measured samples have there, in places as bright as the
measured image is; it is sampled through the scan's own coils and mask, with the scan's noise, and
reconstructed with every weight. The weight whose error is least, in the whole image and in its middle alike
(the geometric mean of both), is taken: the whole has more air and fat, which want larger weights than hearts.

Where whole lines are sampled, every column is a problem of its own that SENSE solves exactly: some of them
do, and few weights: downhill by large steps, then by smaller ones. Where they are not, all weights
together cost what one costs: Krylov spaces of :math:`A^H A + \lambda I` do not depend on :math:`\lambda`
(Lanczos; Frommer and Maass, SIAM J Sci Comput 20:1831, 1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from recon_node.core.fft import centred_ifft, from_centre
from recon_node.core.grid import central
from recon_node.solvers.device import one_thread
from recon_node.solvers.exact import LineSystems
from recon_node.solvers.operator import SenseOperator

SMALLEST, LARGEST = 1e-4, 0.5
"""Bounds of the weight."""
COLUMNS = 32
"""Image columns that are acted out where each is a problem of its own."""
STEPS = 60
"""Of Lanczos' method, as many as SENSE takes conjugate gradients."""
_APART = 4
"""Step along the weights below that is made first, where each takes a solve of its own."""
MIDDLE = 0.4
"""Share of each axis that counts as the middle of the image."""
_WEIGHTS = np.geomspace(SMALLEST, LARGEST, 25)
_NEAR = 3.0
"""Standard deviation, samples, of the average that fills in what was not sampled."""
_KNOWN = 4.0
"""Standard deviation, samples, of the low frequencies that are taken from the measured image."""
_REACH = 6
"""Of those standard deviations, to which they reach."""


@one_thread()
@torch.inference_mode()
def tikhonov_weight(
    data: NDArray[np.complex64],
    mask: NDArray[np.bool_],
    maps: NDArray[np.complex64],
    *,
    unit: float = 1.0,
) -> float:
    """Weight of ``||x||^2`` beside ``||A x - y||^2``, for coil maps of unit root sum of squares.

    Parameters
    ----------
    data : ndarray
        `(phase, coil, ky, kx)` complex64.
    mask : ndarray
        `(phase, ky, kx)` bool.
    maps : ndarray
        `(map, coil, y, x)` complex64, 0 where there is nothing.
    unit : float
        Standard deviation of the complex noise in `data`.

    Returns
    -------
    float
        Between 0.0001 and 0.5.
    """
    measured = _Measured.of(data, mask)
    scale = float(max(measured.largest, 1e-30))
    noise = min(max(unit, 1e-30) / scale, 1e6)
    rng = np.random.default_rng(0)
    image = _drawn(measured, maps, scale, noise, rng)
    power = float(np.square(np.abs(image)).mean())
    if not power > 0:
        return LARGEST
    frame = mask[len(mask) // 2]
    if bool((frame == frame[:, :1]).all()):
        some = np.unique(np.linspace(0, frame.shape[1] - 1, COLUMNS).round().astype(int))
        image, maps, frame = image[..., some], maps[..., some], frame[:, some]
    return _best(image, maps, frame, noise, rng)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measured:
    """All phases of a slice together."""

    count: NDArray[np.float64]
    """`(ky, kx)`: phases that sampled it."""
    power: NDArray[np.float64]
    """`(ky, kx)`: the coils' energy, summed over phases."""
    total: NDArray[np.complex64]
    """`(coil, ky, kx)`: samples, summed over phases."""
    largest: float
    """Magnitude of the largest sample of one coil."""

    @classmethod
    def of(cls, data: NDArray[np.complex64], mask: NDArray[np.bool_]) -> _Measured:
        power, total, largest = np.zeros(mask.shape[1:]), np.zeros(data.shape[1:], np.complex64), 0.0
        for frame, sampled in zip(data, mask, strict=True):
            rows = np.flatnonzero(sampled.any(axis=1))
            samples = frame[:, rows] * sampled[rows]
            squared = np.square(samples.real) + np.square(samples.imag)
            power[rows] += squared.sum(axis=0, dtype=np.float64)
            total[:, rows] += samples
            largest = max(largest, float(squared.max(initial=0.0)) ** 0.5)
        return cls(count=mask.sum(axis=0, dtype=np.float64), power=power, total=total, largest=largest)


def _filled(measured: _Measured) -> NDArray[np.float64]:
    """The coils' summed power all over k-space `(ky, kx)`, noise included; gaps filled from neighbours."""
    power, count = measured.power, measured.count
    known = gaussian_filter(count, _NEAR)
    near = known > 1e-6 * count.max()
    around = np.where(near, gaussian_filter(power, _NEAR) / np.where(near, known, 1), 0.0)
    filled: NDArray[np.float64] = np.where(count > 0, power / np.maximum(count, 1), around)
    return filled


def _drawn(
    measured: _Measured,
    maps: NDArray[np.complex64],
    scale: float,
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.complex64]:
    """An image like the measured one, `(map, y, x)`, in units of `scale`."""
    power = _filled(measured) / scale**2 - maps.shape[1] * noise**2
    shape = power.shape
    along = [np.exp(-0.5 * ((np.arange(n) - n // 2) / _KNOWN) ** 2) for n in shape]
    window = along[0][:, None] * along[1]
    centre = tuple(central(n, min(n, round(2 * _REACH * _KNOWN))) for n in shape)
    count = np.maximum(measured.count[centre], 1) * scale
    block = measured.total[(slice(None), *centre)] * (window[centre] / count)
    coils = from_centre(block.astype(np.complex64), shape)
    low = np.stack([np.multiply(one.conj(), coils).sum(axis=0) for one in maps])
    bright = np.abs(low)
    level = float(np.sqrt(np.square(bright).sum(axis=0).mean()))
    if level == 0:
        return np.zeros(low.shape, np.complex64)
    missing = np.sqrt(np.maximum(power, 0) * (1 - window**2))
    detail = centred_ifft(_normal(rng, low.shape) * missing)
    return np.asarray(low + bright / level * detail, np.complex64)


def _best(
    image: NDArray[np.complex64],
    maps: NDArray[np.complex64],
    frame: NDArray[np.bool_],
    noise: float,
    rng: np.random.Generator,
) -> float:
    operator = SenseOperator(maps, frame[None], torch.device("cpu"))
    truth = operator.from_grid(image[None])
    hiss = torch.from_numpy((noise * _normal(rng, (1, maps.shape[1], *frame.T.shape))).astype(np.complex64))
    target = operator.normal(truth) + operator.adjoint(hiss)
    middle = _middle(frame.shape)

    def error(made: Tensor) -> float:
        off = np.square(np.abs(operator.to_grid(made)) - np.abs(image[None])).sum(axis=(0, 1))
        return float(sum(np.log(max(float(part.sum()), 1e-30)) for part in (off, off[middle])))

    if not operator.lines:
        return _least(np.array([error(made) for made in solutions(operator, target, _WEIGHTS)]))
    systems = LineSystems.of(operator)
    errors = np.full(len(_WEIGHTS), np.inf)
    best, apart = len(_WEIGHTS) // 2, _APART
    while apart:
        around = [i for i in (best - apart, best, best + apart) if 0 <= i < len(errors)]
        for i in around:
            if np.isinf(errors[i]):
                errors[i] = error(systems.solve(target, float(_WEIGHTS[i])))
        least = min(around, key=lambda i: float(errors[i]))
        best, apart = least, apart if least != best else apart // 2
    return _least(errors)


def solutions(operator: SenseOperator, target: Tensor, weights: NDArray[np.float64]) -> list[Tensor]:
    """``(A^H A + w)^-1 target`` of one frame for every weight, from one Krylov space.

    Parameters
    ----------
    operator : SenseOperator
        Of one frame.
    target : Tensor
        `(1, map, x, y)`: ``A^H y``.
    weights : ndarray
        `(n,)` above 0.

    Returns
    -------
    list of Tensor
        Like `target`; what `STEPS` conjugate gradients come to.
    """
    length = float(torch.linalg.vector_norm(target))
    basis = [target / length]
    along: list[float] = []
    beside: list[float] = []
    while True:
        step = operator.normal(basis[-1])
        along.append(float(torch.vdot(basis[-1].flatten(), step.flatten()).real))
        step = step - along[-1] * basis[-1]
        if beside:
            step = step - beside[-1] * basis[-2]
        size = float(torch.linalg.vector_norm(step))
        if len(basis) == STEPS or size < 1e-6:
            break
        beside.append(size)
        basis.append(step / size)
    values, turn = np.linalg.eigh(np.diag(along) + np.diag(beside, 1) + np.diag(beside, -1))
    shares = length * (turn[None] * (turn[0] / (values + weights[:, None]))[:, None]).sum(axis=2)
    mixed = torch.from_numpy(shares.astype(np.complex64)) @ torch.stack(basis).flatten(1)
    return [one.reshape(target.shape) for one in mixed]


def _least(errors: NDArray[np.float64]) -> float:
    """The weight at the minimum, between those tried by a parabola."""
    i = int(np.argmin(errors))
    if not 0 < i < len(errors) - 1:
        return float(_WEIGHTS[i])
    before, at, after = errors[i - 1 : i + 2]
    bend = before - 2 * at + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float(np.clip(_WEIGHTS[i] * (_WEIGHTS[1] / _WEIGHTS[0]) ** shift, SMALLEST, LARGEST))


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    parts = [max(1, round(MIDDLE * size)) for size in shape]
    return tuple(slice((n - part) // 2, (n - part) // 2 + part) for n, part in zip(shape, parts, strict=True))


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    """Complex noise of unit variance."""
    parts = rng.standard_normal((2, *shape)) / np.sqrt(2)
    return np.asarray(parts[0] + 1j * parts[1])

"""What a reconstruction leaves unexplained, by coil, by time and by sample.

One number for all residuals hides what goes wrong in one coil, at one sample or halfway through the scan.
Each measure here asks for one such thing, from the same prediction of all samples (`taken_apart`), and each
is relative to what the scan itself shows elsewhere, so that it hardly depends on contrast or acceleration.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import centred_ifft
from recon_node.core.types import CoilMaps, KSpace
from recon_node.trust.decimation import decimation, fewer_columns, folded, whole_lines
from recon_node.trust.map_fit import MapFits
from recon_node.trust.prediction import Predictor, powers

GROUPS = 4
"""Parts of the scan, in time, that gains are compared over."""
HEARD = 0.05
"""Coils that receive less than this share of the strongest one's energy are not asked for their gain."""
CLEAR = 400.0
"""Energy of a line's prediction, noise variances, from which on its gain is looked at."""
MOST_ORDERED = 64
"""Phases up to which their order is looked at."""
RING = 64
"""Samples of about the same distance from the centre, at least, that one of them is compared with."""
COLUMNS = 24
"""Image columns that are enough for sums by coil."""
ENOUGH_PHASES = 24
"""Phases of which every other one is enough for them; of twice as many, every third."""
MIXTURES = 4
"""Mixtures of the coils that are enough to see a sample by."""

Complex: TypeAlias = NDArray[np.complex64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unexplained:
    """Measures of what is left over; None where one could not be taken. In each, larger is worse."""

    coil_gain: float | None
    """Largest departure from 1 of the factor between what one coil measured and what the image predicts for
    it, in any part of the scan: a coil that died, was swapped or changed its gain."""
    line_gain: float | None
    """The same for one line of one phase, all coils together, less three times its own uncertainty: lines
    that were lost, or acquired with another gain or phase."""
    noise_mismatch: float | None
    """Largest factor, up or down, between what is left in one coil far from the centre of k-space and what is
    left in the others, or between that and the noise that whitened data has; None where k-space was not
    whitened."""
    spike: float | None
    """Largest unexplained energy of a sample over that of samples as far from the centre."""
    disorder: float | None
    """Length of the round that magnitudes at the resolution of the centre of k-space take from phase to phase
    and back, over that of the shortest round that was found: 1 where they follow each other. A cine turned
    round, or begun at another phase, takes the same round. None for fewer than four phases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """Means over the sampled places and the coils, of squared magnitudes."""

    missed: float
    """Of measured minus predicted samples."""
    signal: float
    """Of measured samples."""
    count: int
    """Samples that both are means of."""


def taken_apart(image: NDArray[np.complex64], kspace: KSpace, maps: CoilMaps) -> tuple[Residual, Unexplained]:
    """What an image leaves of all samples, and the measures of it.

    Where whole lines were sampled in a wide image, sums by coil are taken in some image columns
    (`recon_node.trust.decimation`) of some phases, and single samples are looked at in a few orthonormal
    mixtures of the coils: a sample's share of the energy is kept in either, on average.

    Parameters
    ----------
    image : ndarray
        `(phase, map, y, x)` complex64, with phase.
    kspace, maps
        Of the same slice.

    Returns
    -------
    residual : Residual
    unexplained : Unexplained
    """
    mixture = _mixture(kspace.data.shape[1])
    step = 1 if mixture is None else decimation(kspace, COLUMNS)
    coils, samples = _Coils(kspace, step), _Samples(kspace)
    predict = Predictor(fewer_columns(maps.data, step))
    mixed = None if mixture is None or step == 1 else Predictor(_mixed(mixture, maps.data))
    few, every = fewer_columns(image, step), 1 + len(image) // ENOUGH_PHASES
    for phase, mask in enumerate(kspace.mask):
        rows = np.flatnonzero(mask.any(axis=1))
        measured = kspace.data[phase].take(rows, axis=1)
        if mixture is not None and mixed is not None:
            by_mixture = _compared(mixed(image[phase], rows), _mixed(mixture, measured), mask[rows])
            samples.add(phase, rows, by_mixture)
            if phase % every:
                continue
        by_coil = _compared(predict(few[phase], rows), folded(measured, step), mask[rows])
        coils.add(phase, rows, by_coil)
        if mixed is None:
            samples.add(phase, rows, by_coil)
    return coils.residual(), Unexplained(
        coil_gain=coils.gain(),
        line_gain=samples.line_gain() if kspace.whitened else None,
        noise_mismatch=coils.noise_mismatch() if _noise_was_scanned(kspace) else None,
        spike=_spike(samples.squared, kspace),
        disorder=_disorder(kspace),
    )


def _mixture(coils: int) -> Complex | None:
    """`(mixture, coil)` complex64 with orthonormal rows, none of which favours a coil."""
    if coils <= MIXTURES:
        return None
    parts = np.random.default_rng(0).standard_normal((2, coils, MIXTURES))
    turned, _ = np.linalg.qr(parts[0] + 1j * parts[1])
    return np.asarray(turned.T, np.complex64)


def _mixed(mixture: Complex, coils: Complex) -> Complex:
    """Mixtures of the coils of `(..., coil, y, x)`."""
    flat = coils.reshape(*coils.shape[:-2], -1)
    return np.asarray((mixture @ flat).reshape(*coils.shape[:-3], len(mixture), *coils.shape[-2:]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Compared:
    """Predicted and measured samples of some lines of one phase; zero where nothing was measured."""

    measured: Complex
    """`(coil, line, kx)`"""
    asked: NDArray[np.bool_]
    """`(line, kx)`"""
    left: NDArray[np.float32]
    """`(coil, line, kx)`: squared distances."""
    cross: NDArray[np.complex64]
    """`(coil, line)`: products of predicted and measured samples."""
    strength: NDArray[np.float64]
    """`(coil, line)`: energy of predicted samples."""


def _compared(predicted: Complex, measured: Complex, mask: NDArray[np.bool_]) -> _Compared:
    asked = mask[:, : measured.shape[2]]
    if not asked.all():
        predicted, measured = predicted * asked, measured * asked
    return _Compared(
        measured=measured,
        asked=asked,
        left=powers(measured - predicted),
        cross=(predicted.conj()[:, :, None] @ measured[..., None])[..., 0, 0],
        strength=_line_powers(predicted),
    )


class _Coils:
    """Sums by coil, over phases of a part of the scan or all of them."""

    def __init__(self, kspace: KSpace, step: int) -> None:
        phases, coils = kspace.data.shape[:2]
        self._products = np.zeros((phases, coils), np.complex128)
        self._predicted, self._measured = np.zeros((phases, coils)), np.zeros((phases, coils))
        self._outside, self._count = np.zeros(coils), 0
        self._missed = 0.0
        self._far = fewer_columns(_far(kspace), step)
        self._samples = 0

    def add(self, phase: int, rows: NDArray[np.intp], one: _Compared) -> None:
        """Some lines of one phase."""
        self._samples += int(one.asked.sum()) * len(one.left)
        outer = self._far[rows] & one.asked
        flat = one.left.reshape(len(one.left), -1)
        self._missed += float(flat.sum(dtype=np.float64))
        self._outside += flat @ outer.ravel().astype(np.float32)
        self._count += int(outer.sum())
        self._products[phase] = one.cross.sum(axis=1)
        self._predicted[phase] = one.strength.sum(axis=1)
        self._measured[phase] = _line_powers(one.measured).sum(axis=1)

    def residual(self) -> Residual:
        count = max(1, self._samples)
        signal = float(self._measured.sum())
        return Residual(missed=self._missed / count, signal=signal / count, count=self._samples)

    def gain(self) -> float | None:
        """Largest departure of a coil's gain from 1, in any part of the scan."""
        strongest = max(float(self._predicted.sum(axis=0).max()), float(self._measured.sum(axis=0).max()))
        heard = np.maximum(self._predicted.sum(axis=0), self._measured.sum(axis=0)) > HEARD * strongest
        if strongest <= 0:
            return None
        worst = 0.0
        for part in _parts(len(self._products)):
            power = self._predicted[part].sum(axis=0)
            able = heard & (power > 0)
            gains = self._products[part].sum(axis=0)[able] / power[able]
            worst = max(worst, float(np.abs(gains - 1).max(initial=0.0)))
        return worst

    def noise_mismatch(self) -> float | None:
        """From each coil's unexplained energy far from the centre, where it is mostly noise."""
        if self._count < RING:
            return None
        deviation = np.sqrt(self._outside / self._count)
        usual = float(np.median(deviation))
        if deviation.min() <= 0:
            return float("inf")
        return float(max(deviation.max() / usual, usual / deviation.min(), usual, 1 / usual))


class _Samples:
    """What is left of every sample and line, coils or mixtures of them together."""

    def __init__(self, kspace: KSpace) -> None:
        self.squared = np.zeros(kspace.mask.shape, np.float32)
        """`(phase, ky, kx)`: energy that was not predicted, of all coils."""
        self._along = np.zeros(kspace.mask.shape[:2], np.complex128)
        self._strength = np.zeros(kspace.mask.shape[:2])
        self._coils = kspace.data.shape[1]

    def add(self, phase: int, rows: NDArray[np.intp], one: _Compared) -> None:
        """Some lines of one phase."""
        self.squared[phase, rows] = one.left.sum(axis=0) * (self._coils / len(one.left))
        self._along[phase, rows], self._strength[phase, rows] = (
            one.cross.sum(axis=0),
            one.strength.sum(axis=0),
        )

    def line_gain(self) -> float | None:
        """Largest departure of a line's gain from 1, less its uncertainty."""
        clear = self._strength > CLEAR
        if not clear.any():
            return None
        strength = self._strength[clear]
        off = np.abs(self._along[clear] / strength - 1) - 3 / np.sqrt(strength)
        return max(0.0, float(off.max()))


def _line_powers(samples: NDArray[np.complex64]) -> NDArray[np.float64]:
    """`(coil, line)`: energies of `(coil, line, kx)`."""
    parts = np.ascontiguousarray(samples).view(np.float32)
    return np.asarray(np.einsum("clx,clx->cl", parts, parts), np.float64)


def _parts(phases: int) -> list[slice]:
    edges = np.linspace(0, phases, min(GROUPS, phases) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def _far(kspace: KSpace) -> NDArray[np.bool_]:
    """`(ky, kx)`: the sampled half of k-space that is farther from the centre; of whole lines, along ky."""
    ny, nx = kspace.mask.shape[1:]
    y, x = np.ogrid[:ny, :nx]
    across = 0 if whole_lines(kspace.mask) else 1
    distance = np.hypot((y - ny // 2) / ny, across * (x - nx // 2) / nx)
    sampled = kspace.mask.any(axis=0)
    farther = distance >= (np.median(distance[sampled]) if sampled.any() else np.inf)
    return np.asarray(sampled & farther)


def _noise_was_scanned(kspace: KSpace) -> bool:
    """An estimate from the edges of k-space holds signal where that reaches them: no mismatch of the scan."""
    return kspace.whitened and not kspace.noise_estimated


def _spike(squared: NDArray[np.float32], kspace: KSpace) -> float | None:
    """Rings of samples by distance; the largest energy in one over its upper quartile."""
    ky, kx = np.nonzero(kspace.mask.any(axis=0))
    ny, nx = kspace.mask.shape[1:]
    order = np.argsort(np.hypot((ky - ny // 2) / ny, (kx - nx // 2) / nx), kind="stable")
    ky, kx = ky[order], kx[order]
    sorted_energy = squared[:, ky, kx].T[kspace.mask[:, ky, kx].T]
    if len(sorted_energy) < 2 * RING:
        return None
    count = max(2, min(48, len(sorted_energy) // RING))
    worst = 0.0
    for ring in np.array_split(sorted_energy, count):
        ordered = np.sort(ring)
        quartile = float(ordered[3 * len(ordered) // 4])
        usual = max(quartile, float(kspace.data.shape[1]) if kspace.whitened else 0.0)
        if usual > 0:
            worst = max(worst, float(ordered[-1]) / usual)
    return worst


def _centre(kspace: KSpace) -> NDArray[np.complex64] | None:
    """`(phase, coil, ky, kx)`: the centre that every phase samples; None where there is none."""
    sampling = kspace.sampling
    if sampling.acs_ky[1] <= sampling.acs_ky[0]:
        return None
    rows = slice(*sampling.acs_ky)
    columns = slice(*sampling.acs_kx) if sampling.acs_kx[1] > sampling.acs_kx[0] else slice(None)
    if not kspace.mask[:, rows, columns].all():
        return None
    return kspace.data[:, :, rows, columns]


def _square(centre: NDArray[np.complex64], kspace: KSpace) -> NDArray[np.complex64]:
    """As many samples along kx as along ky, around the middle."""
    side = min(centre.shape[2], kspace.data.shape[3])
    first = centre.shape[3] // 2 - side // 2
    return centre[..., first : first + side]


def _disorder(kspace: KSpace) -> float | None:
    """Of magnitudes: the phase of an image drifts, and blood turns it, without the heart having moved."""
    centre = _centre(kspace)
    if centre is None or not 4 <= len(centre) <= MOST_ORDERED:
        return None
    coils = centred_ifft(_square(centre, kspace))
    usual = coils.mean(axis=0)
    weight = np.sqrt(powers(usual).sum(axis=0))
    shown = np.abs((usual.conj() * coils).sum(axis=1)) / np.maximum(weight, np.finfo(np.float32).tiny)
    flat = (shown - shown.mean(axis=0)).reshape(len(shown), -1).astype(np.float64)
    products = flat @ flat.T
    power = np.diagonal(products)
    noise = float(flat.shape[1]) if kspace.whitened else 0.0  # half of a sample's variance, twice
    between = power[:, None] + power - 2 * products - noise
    apart = np.sqrt(np.maximum(between, 3 * noise / np.sqrt(flat.shape[1])))
    order = np.arange(len(flat))
    given, best = _length(apart, order), _length(apart, _shortened(apart, order))
    return given / best if best > 0 else None


def _length(apart: NDArray[np.float64], order: NDArray[np.intp]) -> float:
    return float(apart[order, np.roll(order, -1)].sum())


def _shortened(apart: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.intp]:
    """A shorter round through all phases: parts of it turned round as long as that helps (Croes 1958)."""
    between, found, count = apart.tolist(), order.tolist(), len(order)
    least = 1e-9 * _length(apart, order)
    helped = True
    while helped:
        helped = False
        for first, last in itertools.combinations(range(count + 1), 2):
            before, start, end, after = found[first - 1], found[first], found[last - 1], found[last % count]
            gain = between[before][start] + between[end][after] - between[before][end] - between[start][after]
            if gain > least and last - first < count:
                found[first:last] = found[first:last][::-1]
                helped = True
    return np.array(found)


def own_residual(kspace: KSpace, maps: CoilMaps, fits: MapFits) -> float | None:
    """Largest share of the centre of a scan's own k-space, in any part of it, that the maps do not explain.

    Parameters
    ----------
    kspace, maps
        Of the same slice.
    fits : MapFits
        Of these maps.

    Returns
    -------
    float or None
        None where the phases do not sample the centre.
    """
    centre = _centre(kspace)
    if centre is None or not maps.support.any():
        return None
    square = _square(centre, kspace)
    worst = None
    for part in _parts(len(square)):
        noise = 1 / np.sqrt(part.stop - part.start) if kspace.whitened else None
        missed = fits.unexplained(square[part].mean(axis=0), noise=noise)
        worst = missed if worst is None or (missed is not None and missed > worst) else worst
    return worst

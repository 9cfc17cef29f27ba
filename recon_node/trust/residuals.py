"""What a reconstruction leaves unexplained, by coil, by time and by sample.

One number for all residuals hides what goes wrong in one coil, at one sample or halfway through the scan.
Each measure here asks for one such thing, from the same prediction of all samples (`taken_apart`), and each
is relative to what the scan itself shows elsewhere, so that it hardly depends on contrast or acceleration.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import centred_ifft
from recon_node.core.types import CoilMaps, KSpace
from recon_node.trust.map_fit import MapFit
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
    own_residual: float | None
    """Largest share of the centre of the imaging data's own k-space, in any part of the scan, that no image
    gives through the coil maps; None where the phases do not sample the centre."""


def taken_apart(
    image: NDArray[np.complex64], kspace: KSpace, maps: CoilMaps
) -> tuple[NDArray[np.float64], Unexplained]:
    """Squared residuals of all samples, and the measures of them.

    Parameters
    ----------
    image : ndarray
        `(phase, map, y, x)` complex64, with phase.
    kspace, maps
        Of the same slice.

    Returns
    -------
    squared : ndarray
        `(phase, ky, kx)` float64: squared distance of predicted from measured samples, summed over the coils;
        zero where nothing was sampled.
    unexplained : Unexplained
    """
    phases, coils = kspace.data.shape[:2]
    squared = np.zeros(kspace.mask.shape)
    products = np.zeros((phases, coils), np.complex128)
    predicted_power, measured_power = np.zeros((phases, coils)), np.zeros((phases, coils))
    along = np.zeros(kspace.mask.shape[:2], np.complex128)
    strength = np.zeros(kspace.mask.shape[:2])
    far, outside, count = _far(kspace), np.zeros(coils), 0
    predictor = Predictor(maps.data)
    for phase, mask in enumerate(kspace.mask):
        rows = np.flatnonzero(mask.any(axis=1))
        asked = mask[rows]
        predicted, samples = predictor(image[phase], rows), kspace.data[phase][:, rows]
        if not asked.all():
            predicted, samples = predicted * asked, samples * asked
        left = powers(samples - predicted)
        squared[phase, rows] = left.sum(axis=0)
        outer = far[rows] & asked
        outside += left.reshape(coils, -1) @ outer.ravel().astype(np.float32)
        count += int(outer.sum())
        cross = np.multiply(predicted.conj(), samples).sum(axis=2)
        shown = _line_powers(predicted)
        along[phase, rows], strength[phase, rows] = cross.sum(axis=0), shown.sum(axis=0)
        products[phase], predicted_power[phase] = cross.sum(axis=1), shown.sum(axis=1)
        measured_power[phase] = _line_powers(samples).sum(axis=1)
    return squared, Unexplained(
        coil_gain=_coil_gain(products, predicted_power, measured_power),
        line_gain=_line_gain(along, strength) if kspace.whitened else None,
        noise_mismatch=_noise_mismatch(outside, count) if _noise_was_scanned(kspace) else None,
        spike=_spike(squared, kspace),
        disorder=_disorder(kspace),
        own_residual=_own_residual(kspace, maps),
    )


def _line_powers(samples: NDArray[np.complex64]) -> NDArray[np.float64]:
    """`(coil, line)`: energies of `(coil, line, kx)`."""
    parts = np.ascontiguousarray(samples).view(np.float32)
    return np.asarray(np.einsum("clx,clx->cl", parts, parts), np.float64)


def _parts(phases: int) -> list[slice]:
    edges = np.linspace(0, phases, min(GROUPS, phases) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def _coil_gain(
    products: NDArray[np.complex128], predicted: NDArray[np.float64], measured: NDArray[np.float64]
) -> float | None:
    strongest = max(float(predicted.sum(axis=0).max()), float(measured.sum(axis=0).max()))
    heard = np.maximum(predicted.sum(axis=0), measured.sum(axis=0)) > HEARD * strongest
    if strongest <= 0:
        return None
    worst = 0.0
    for part in _parts(len(products)):
        power = predicted[part].sum(axis=0)
        able = heard & (power > 0)
        gains = products[part].sum(axis=0)[able] / power[able]
        worst = max(worst, float(np.abs(gains - 1).max(initial=0.0)))
    return worst


def _line_gain(along: NDArray[np.complex128], strength: NDArray[np.float64]) -> float | None:
    clear = strength > CLEAR
    if not clear.any():
        return None
    off = np.abs(along[clear] / strength[clear] - 1) - 3 / np.sqrt(strength[clear])
    return max(0.0, float(off.max()))


def _far(kspace: KSpace) -> NDArray[np.bool_]:
    """`(ky, kx)`: the sampled half of k-space that is farther from the centre."""
    ny, nx = kspace.mask.shape[1:]
    y, x = np.ogrid[:ny, :nx]
    distance = np.hypot((y - ny // 2) / ny, (x - nx // 2) / nx)
    sampled = kspace.mask.any(axis=0)
    farther = distance >= (np.median(distance[sampled]) if sampled.any() else np.inf)
    return np.asarray(sampled & farther)


def _noise_was_scanned(kspace: KSpace) -> bool:
    """An estimate from the edges of k-space holds signal where that reaches them: no mismatch of the scan."""
    return kspace.whitened and not kspace.noise_estimated


def _noise_mismatch(energy: NDArray[np.float64], count: int) -> float | None:
    """From each coil's unexplained energy far from the centre, where it is mostly noise."""
    if count < RING:
        return None
    deviation = np.sqrt(energy / count)
    usual = float(np.median(deviation))
    if deviation.min() <= 0:
        return float("inf")
    return float(max(deviation.max() / usual, usual / deviation.min(), usual, 1 / usual))


def _spike(squared: NDArray[np.float64], kspace: KSpace) -> float | None:
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
        usual = max(float(np.quantile(ring, 0.75)), float(kspace.data.shape[1]) if kspace.whitened else 0.0)
        if usual > 0:
            worst = max(worst, float(ring.max()) / usual)
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


def _own_residual(kspace: KSpace, maps: CoilMaps) -> float | None:
    """A square of the centre, and its mean over each part of the scan."""
    centre = _centre(kspace)
    if centre is None or not maps.support.any():
        return None
    square = _square(centre, kspace)
    fit, worst = MapFit(maps.data, square.shape[2:]), None
    for part in _parts(len(square)):
        noise = 1 / np.sqrt(part.stop - part.start) if kspace.whitened else None
        missed = fit.unexplained(square[part].mean(axis=0), noise=noise)
        worst = missed if worst is None or (missed is not None and missed > worst) else worst
    return worst

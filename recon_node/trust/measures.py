"""What can be measured about an image without knowing the truth.

The strongest of these is prediction: lines that were measured are held back, the slice is reconstructed
without them, and the image has to predict them through the coil maps. An image that invents structure
predicts them badly, whatever it looks like. The same is asked of parallel imaging on the same lines, so that
motion and imperfect coil maps, which spoil both, cancel. Where k-space was whitened, the noise that no image
can predict (variance 1 a sample) is taken off both errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recon_node.core.fft import central_waves
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.trust.error_map import on_scale
from recon_node.trust.heldout_errors import HeldOutErrors, NotFinite, Reconstruct, heldout_errors
from recon_node.trust.map_fit import MapFits
from recon_node.trust.offgrid import calibration_error, place_of_block, predicted_block
from recon_node.trust.prediction import components, powers
from recon_node.trust.residuals import own_residual, taken_apart

MEASURES = (
    "heldout_ratio",
    "heldout_share",
    "offgrid_ratio",
    "fit_ratio",
    "consistency",
    "consistency_noise",
    "map_residual",
    "peak_ratio",
    "coil_gain",
    "line_gain",
    "noise_mismatch",
    "spike",
    "disorder",
    "own_residual",
    "predicted_nmse",
    "moved",
    "likely_nmse",
    "folded",
    "noise_share",
)
"""Measures that limits exist for; in each, larger is worse."""
_BRIGHT = 0.98
_MOST = 1 << 18
"""Pixels that a quantile is taken of."""
_CLEAR = 4
"""Held-out signal this many times its own uncertainty is worth predicting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Measures of one reconstruction; None where one could not be taken."""

    finite: bool
    """Whether every pixel is a number."""
    heldout_ratio: float | None = None
    """Error of predicted held-out samples over that of the better of two: the reference method on the
    same samples, and predicting nothing at all. Noise is taken off both."""
    heldout_share: float | None = None
    """Error of predicted held-out samples over that of predicting nothing (1: the image knows nothing of
    them, and then the ratio above says little). None where the samples hardly rise above the noise."""
    offgrid_ratio: float | None = None
    """Error of predicted calibration samples beside the sampled grid, over the reference method's; None where
    the grid has them all."""
    heldout_error: float | None = None
    """Root mean square error of predicted held-out samples, noise standard deviations (1 is perfect)."""
    fit_ratio: float | None = None
    """Error on the samples that were kept, over the reference method's."""
    consistency: float | None = None
    """Norm of measured minus predicted samples over the norm of measured ones, all phases; noise is
    taken off both."""
    consistency_noise: float | None = None
    """The same as root mean square in noise standard deviations; None where k-space was not whitened."""
    map_residual: float | None = None
    """Share of the calibration signal's norm that no image gives through the coil maps, less the noise where
    its level is known."""
    peak_ratio: float | None = None
    """Factor, up or down, between the brightness of the image at the calibration's resolution and that of the
    calibration image."""
    coil_gain: float | None = None
    """This and the five below: see `recon_node.trust.residuals.Unexplained`."""
    line_gain: float | None = None
    noise_mismatch: float | None = None
    spike: float | None = None
    disorder: float | None = None
    own_residual: float | None = None
    signal: float | None = None
    """Brightness of the image's bright parts, noise standard deviations; None without whitening."""
    noise_share: float | None = None
    """Noise that parallel imaging would leave at a geometry factor of 1, over the brightness of the image's
    bright parts: the root of the acceleration over `signal`."""
    folded: float | None = None
    """Share of the object that signal from outside the field of view lies over: see `CoilMaps`."""
    predicted_nmse: float | None = None
    """Error of the image over its energy that the held-out error leads to expect: that error on all that was
    not sampled, noise on what was."""
    moved: float | None = None
    """Energy by which the image moves where samples are held out, over its own, on the phases that are
    reconstructed without them."""
    likely_nmse: float | None = None
    """Geometric mean of `predicted_nmse` and `moved`: both tell of the same error, each with another error of
    its own, and together they go with the image's error best."""
    error_map: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """`(y, x)`: error to be expected by pixel, in the image's unit: how far it moves without the held-out
    samples, root mean square over phases and a few pixels around, on the scale of `predicted_nmse`."""


def measure(
    kspace: KSpace,
    maps: CoilMaps,
    images: ImageSeries,
    *,
    reconstruct: Reconstruct | None = None,
    reference: Reconstruct | None = None,
    frames: int = 5,
    fraction: float | None = None,
    seed: int = 0,
) -> Measures:
    """Measure how well `images` agree with what the scanner measured.

    Parameters
    ----------
    kspace, maps, images
        One slice: its data, its coil maps, and the reconstruction in question on the grid of `kspace`.
    reconstruct : callable, optional
        The method that made `images`, as a function of k-space alone. Without it nothing is held out.
    reference : callable, optional
        Parallel imaging with the same maps; needed together with `reconstruct`. Either may say that it does
        not need all columns of the image (`recon_node.trust.heldout_errors.ByColumns`).
    frames : int
        Number of neighbouring phases that the held-out reconstructions use; bounds the cost.
    fraction : float, optional
        Share of the sampled lines outside the ACS that is held out; see `recon_node.trust.hold_out`.
    seed : int
        Of the choice of lines.

    Returns
    -------
    Measures
        Only `finite` where the image is not finite.

    Raises
    ------
    ReconNodeError
        What the callables raise.
    """
    if not np.isfinite(images.data).all():
        return Measures(finite=False)
    image = components(images, kspace, maps)
    residual, left = taken_apart(image, kspace, maps)
    fits = MapFits(maps.data)
    bright = float(np.sqrt(np.quantile(powers(_thinned(images.data)), _BRIGHT)))
    taken = Measures(
        finite=True,
        consistency=_ratio(
            *_without_noise(kspace.whitened, residual.count, residual.missed, residual.signal)
        ),
        consistency_noise=float(np.sqrt(residual.missed)) if kspace.whitened else None,
        map_residual=_map_residual(kspace, maps, fits),
        peak_ratio=_peak_ratio(image, kspace, maps),
        signal=bright if kspace.whitened else None,
        noise_share=_noise_share(kspace, bright),
        folded=maps.folded,
        coil_gain=left.coil_gain,
        line_gain=left.line_gain,
        noise_mismatch=left.noise_mismatch,
        spike=left.spike,
        disorder=left.disorder,
        own_residual=own_residual(kspace, maps, fits),
    )
    if reconstruct is None or reference is None:
        return taken
    taken = replace(
        taken,
        offgrid_ratio=_offgrid_ratio(
            kspace, maps, images, reference=None if reference is reconstruct else reference
        ),
    )
    try:
        found = heldout_errors(
            kspace,
            maps,
            images,
            reconstruct=reconstruct,
            reference=reference,
            frames=frames,
            fraction=fraction,
            seed=seed,
        )
    except NotFinite:
        return replace(taken, finite=False)
    if found is None:
        return taken
    taken = _with_heldout(taken, found, kspace.whitened)
    expected = _predicted_nmse(taken, kspace, image)
    return replace(
        taken,
        predicted_nmse=expected,
        likely_nmse=None if expected is None or taken.moved is None else math.sqrt(expected * taken.moved),
        error_map=on_scale(taken.error_map, expected, images.data),
    )


def _thinned(values: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """At most so many values, evenly spaced, as a share of them is known well enough by."""
    flat = values.ravel()
    return flat[:: 1 + flat.size // _MOST]


def _predicted_nmse(taken: Measures, kspace: KSpace, image: NDArray[np.complex64]) -> float | None:
    """Per pixel, as k-space and image hold the same energy, and maps of unit size keep it."""
    if taken.heldout_error is None:
        return None
    sampled = _sampled(kspace)
    noise = 1.0 if kspace.whitened else 0.0
    missed = max(taken.heldout_error**2 - noise, 0.0) * kspace.data.shape[1]
    energy = float(powers(image).sum(axis=1).mean())
    return ((1 - sampled) * missed + sampled * noise) / energy if energy > 0 else None


def _noise_share(kspace: KSpace, bright: float) -> float | None:
    if not kspace.whitened or bright <= 0:
        return None
    return 1 / (bright * float(np.sqrt(_sampled(kspace))))


def _sampled(kspace: KSpace) -> float:
    """Share of the samples that were acquired."""
    return float(np.count_nonzero(kspace.mask)) / kspace.mask.size


def _with_heldout(taken: Measures, found: HeldOutErrors, whitened: bool) -> Measures:
    best = min(found.reference_missed, found.nothing)
    return replace(
        taken,
        error_map=found.moved,
        moved=found.moved_share,
        heldout_error=float(np.sqrt(found.missed)),
        heldout_share=_share(found, whitened),
        heldout_ratio=_ratio(*_without_noise(whitened, found.count, found.missed, best)),
        fit_ratio=_ratio(found.kept, found.reference_kept),
    )


def _share(found: HeldOutErrors, whitened: bool) -> float | None:
    error, signal = _without_noise(whitened, found.count, found.missed, found.nothing)
    if whitened and signal < _CLEAR * _floor(found.count):
        return None
    return _ratio(error, signal)


def _without_noise(whitened: bool, count: int, power: float, reference: float) -> tuple[float, float]:
    """Both mean powers of so many samples less the noise variance of whitened k-space.

    At least three of its standard errors.
    """
    if not whitened:
        return power, reference
    floor = _floor(count)
    return max(power - 1, floor), max(reference - 1, floor)


def _floor(count: int) -> float:
    return 3 / float(np.sqrt(max(1, count)))


def _ratio(power: float, reference: float) -> float | None:
    return float(np.sqrt(power / reference)) if reference > 0 else None


def _offgrid_ratio(
    kspace: KSpace, maps: CoilMaps, images: ImageSeries, *, reference: Reconstruct | None
) -> float | None:
    """The ratio; with no `reference`, of images that the reference method made."""
    expected = calibration_error(components(images, kspace, maps), kspace, maps)
    if expected is None or reference is None:
        return None if expected is None else 1.0
    best = reference(kspace)
    image = components(images, kspace, maps)
    if not np.any(images.data.imag):
        image = np.asarray(np.abs(images.data) * np.exp(1j * np.angle(best.data)), np.complex64)[:, None]
    error = calibration_error(image, kspace, maps)
    expected = calibration_error(components(best, kspace, maps), kspace, maps)
    return None if error is None or expected is None else error / expected


def _map_residual(kspace: KSpace, maps: CoilMaps, fits: MapFits) -> float | None:
    calibration = kspace.calibration
    if calibration is None or place_of_block(kspace, calibration.shape) is None or not maps.support.any():
        return None
    noise = kspace.calibration_noise if kspace.whitened else None
    return fits.unexplained(calibration, noise=noise)


def _peak_ratio(image: NDArray[np.complex64], kspace: KSpace, maps: CoilMaps) -> float | None:
    """Both blurred alike: at full resolution small bright things alone would make an image too bright."""
    calibration = kspace.calibration
    block = None if calibration is None else place_of_block(kspace, calibration.shape)
    if calibration is None or block is None:
        return None
    expected, found = (
        _bright_part(samples, maps) for samples in (calibration, predicted_block(image, maps, block))
    )
    if expected <= 0 or found <= 0:
        return float("inf")
    return max(found / expected, expected / found)


def _bright_part(block: NDArray[np.complex64], maps: CoilMaps) -> float:
    """Brightness of the bright parts of an image of whose coils `(coil, ay, ax)` is the centre of k-space.

    At as many pixels as tell it, about twice as many along each axis as samples.
    """
    shape = maps.data.shape[2:]
    steps = [max(1, full // (2 * part)) for full, part in zip(shape, block.shape[1:], strict=True)]
    down, across = (
        central_waves(full, part)[:, ::step].conj()
        for full, part, step in zip(shape, block.shape[1:], steps, strict=True)
    )
    coils = down.T @ block @ across
    combined = [np.multiply(one[:, :: steps[0], :: steps[1]].conj(), coils).sum(axis=0) for one in maps.data]
    return float(np.sqrt(np.quantile(sum(powers(one) for one in combined), _BRIGHT)))

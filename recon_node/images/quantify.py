"""Numbers in place of brightness: velocity from phase contrast, T1 and T2 from a series of contrasts.

T1 is the fit of ``a - b exp(-t / T1*)`` to inversion recovery with ``T1 = T1* (b / a - 1)`` (Deichmann
and Haase 1992; Messroghli et al. 2004 for MOLLI), T2 that of ``a exp(-t / T2)``. Both are solved pixel
by pixel by variable projection: for each time constant of a grid the linear part is an orthogonal
projection, and the best time constant is refined by a parabola through its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError

Floats = NDArray[np.float64]

LEAST_CONTRASTS = {"t1": 4, "t2": 3}
"""Unknowns of the model, and one more to be wrong by."""
_SILENT = 0.05
"""A pixel that never reaches this fraction of the bright end holds no object, and no number (0)."""
_LONGEST_MS = {"t1": 6000.0, "t2": 600.0}
_GRID = 240


def velocity_cm_s(
    encoded: NDArray[np.complexfloating], reference: NDArray[np.complexfloating], venc_cm_s: float
) -> Floats:
    """Velocity along the encoded direction.

    Parameters
    ----------
    encoded, reference : ndarray
        `(phase, y, x)` complex images with and without the encoding gradient.
    venc_cm_s : float
        Velocity that turns the phase by 180 degrees, cm/s.

    Returns
    -------
    ndarray
        `(phase, y, x)` float64, cm/s, from -venc to venc.

    Raises
    ------
    DataError
        The images differ in shape, or the velocity encoding is not positive.
    """
    if encoded.shape != reference.shape or not venc_cm_s > 0:
        raise DataError(
            f"velocity needs two equal sets of images and a positive VENC, found {encoded.shape}, "
            f"{reference.shape}, {venc_cm_s:g} cm/s"
        )
    turned = encoded.astype(np.complex128) * reference.conj()
    return np.asarray(np.angle(turned) * (venc_cm_s / np.pi))


def t1_map_ms(images: NDArray[np.complexfloating], ti_ms: Sequence[float]) -> Floats:
    """T1 by pixel, ms; 0 where there is no object or the fit makes no sense.

    Parameters
    ----------
    images : ndarray
        `(contrast, y, x)` complex; the sign of a signal is its phase beside the longest inversion time.
    ti_ms : sequence of float
        Inversion times, one a contrast.

    Raises
    ------
    DataError
        Too few contrasts, or times that do not match them.
    """
    times = _times("t1", images, ti_ms)
    last = images[int(np.argmax(times))]
    phase = np.exp(-1j * np.angle(last))
    signal = np.real(images.astype(np.complex128) * phase).reshape(len(times), -1)
    star = _time_constant("t1", signal, times, lambda decay: np.stack([np.ones_like(decay), decay], 1))
    decay = np.exp(-times[:, None] / star)
    centred = decay - decay.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        b = -(centred * signal).sum(0) / (centred**2).sum(0)
        a = signal.mean(0) + b * decay.mean(0)
        t1 = star * (b / a - 1)
    return _plausible("t1", t1, images)


def t2_map_ms(images: NDArray[np.complexfloating], te_ms: Sequence[float]) -> Floats:
    """T2 by pixel, ms; 0 where there is no object.

    Parameters
    ----------
    images : ndarray
        `(contrast, y, x)` complex.
    te_ms : sequence of float
        Echo or preparation times, one a contrast.

    Raises
    ------
    DataError
        Too few contrasts, or times that do not match them.
    """
    times = _times("t2", images, te_ms)
    signal = np.abs(images.astype(np.complex128)).reshape(len(times), -1)
    return _plausible("t2", _time_constant("t2", signal, times, lambda decay: decay[:, None]), images)


def _times(kind: str, images: NDArray[np.complexfloating], given: Sequence[float]) -> Floats:
    times = np.asarray(given, np.float64)
    least = LEAST_CONTRASTS[kind]
    if len(times) != images.shape[0] or len(np.unique(times)) < least:
        raise DataError(
            f"a {kind.upper()} map needs at least {least} different times, one an image; found "
            f"{len(times)} times for {images.shape[0]} images"
        )
    return times


def _time_constant(kind: str, signal: Floats, times: Floats, basis: Callable[[Floats], Floats]) -> Floats:
    """Time constant by pixel (ms) that leaves least of `signal` `(time, pixel)` unexplained."""
    grid = np.geomspace(max(1.0, times.max() / 200), _LONGEST_MS[kind], _GRID)
    left = np.empty((_GRID, signal.shape[1]))
    energy = (signal**2).sum(0)
    for step, constant in enumerate(grid):
        orthogonal, _ = np.linalg.qr(basis(np.exp(-times / constant)))
        left[step] = energy - ((orthogonal.T @ signal) ** 2).sum(0)
    best = np.clip(left.argmin(0), 1, _GRID - 2)
    before, here, after = (np.take_along_axis(left, best[None] + d, 0)[0] for d in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend > 0)
    ratio = grid[1] / grid[0]
    return np.asarray(grid[best] * ratio ** np.clip(shift, -1, 1))


def _plausible(kind: str, value: Floats, images: NDArray[np.complexfloating]) -> Floats:
    brightest = np.abs(images).max(0)
    there = brightest > _SILENT * np.percentile(brightest, 99)
    value = value.reshape(images.shape[1:])
    good = there & np.isfinite(value) & (value > 0) & (value <= _LONGEST_MS[kind])
    return np.where(good, value, 0.0)

"""Receiver noise: covariance, whitening, coils that are dead or hot.

Unit of whitened data: a complex sample of pure noise has ``E|n|^2 = 1`` (each of real and imaginary
part 1/2), uncorrelated between coils. An orthonormal FFT keeps that, and so does the removal of readout
oversampling by cropping in image space between two orthonormal FFTs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from recon_node.core.errors import DataError, InconsistentReadouts
from recon_node.core.scan import Readouts

DEAD = 1e-6
"""A coil with less than this fraction of the median noise variance has no receiver behind it."""
HOT = 1e5
"""A coil with more than this multiple of the median noise variance is broken."""
SIGNAL = 30.0
"""Largest over mean squared magnitude of a readout from which it holds an echo: noise stays below 20."""
LOUD = 4.0
"""Mean squared magnitude of a noise readout over the usual one from which it holds signal."""
SINGULAR = 1e-8
"""Smallest over largest eigenvalue of the noise correlation below which coils repeat each other: real arrays
stay above 1e-4, copies of a complex64 channel, or sums of others, below 1e-13."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whitening:
    """A linear map over coils after which noise is white with ``E|n|^2 = 1``."""

    matrix: NDArray[np.complex64]
    """`(kept coil, coil)` complex64, for data of the dwell time `dwell_us`."""
    dwell_us: float
    """Dwell time of the noise scan; 0 where it is not known."""
    bandwidth_ratio: float
    """Relative receiver noise bandwidth: mean over centre of the noise spectrum."""
    notes: tuple[str, ...] = ()

    def scale(self, dwell_us: float) -> float:
        """Factor for data of another dwell time: noise variance goes with the bandwidth.

        Variance of a sample is density times bandwidth, so with dwell time t it is ``t_noise / t`` of
        that in the noise scan; the receiver's filter lowers the mean density over the noise scan's
        bandwidth to `bandwidth_ratio` of that at its centre, where the image lies. The convention of
        Gadgetron's NoiseAdjust, whose further factor ``sqrt(2)`` belongs to ``E|n|^2 = 2``.
        """
        ratio = dwell_us / self.dwell_us if dwell_us > 0 and self.dwell_us > 0 else 1.0
        return float(np.sqrt(ratio * self.bandwidth_ratio))

    def apply(self, samples: NDArray[np.complex64], dwell_us: float) -> NDArray[np.complex64]:
        """Whiten `(readout, coil, sample)`; the coils left are `(readout, kept coil, sample)`.

        Raises
        ------
        InconsistentReadouts
            The number of coils is not that of the noise scan.
        """
        if samples.shape[1] != self.matrix.shape[1]:
            raise InconsistentReadouts(
                f"imaging lines have {samples.shape[1]} coils, the noise scan {self.matrix.shape[1]}"
            )
        matrix = (self.matrix * self.scale(dwell_us)).astype(np.complex64)
        return np.asarray(np.matmul(matrix, samples), dtype=np.complex64)


@dataclass(slots=True)
class NoiseScan:
    """Accumulates noise acquisitions; complex128 throughout."""

    samples: int = 0
    dwell_us: float = 0.0
    _covariance: NDArray[np.complex128] | None = field(default=None, repr=False)

    @property
    def coils(self) -> int:
        """Number of channels; 0 before any noise arrived."""
        return 0 if self._covariance is None else len(self._covariance)

    def add(self, block: Readouts) -> int:
        """Add noise acquisitions of one shape, but for those with an echo in them; how many those were.

        Raises
        ------
        DataError
            Samples are not finite.
        InconsistentReadouts
            Noise acquisitions have different numbers of channels.
        """
        coils = block.samples.shape[1]
        if not block.samples.size:
            return 0
        if self._covariance is None:
            self._covariance = np.zeros((coils, coils), dtype=np.complex128)
        if len(self._covariance) != coils:
            raise InconsistentReadouts(f"noise scans have {len(self._covariance)} and {coils} channels")
        if not np.isfinite(block.samples).all():
            raise DataError("noise scan holds samples that are not numbers (NaN or infinite)")
        samples = block.samples * self._to_first_dwell(float(block.head["sample_time_us"][0]))
        quiet = self._quiet(np.square(samples.real) + np.square(samples.imag))
        flat = np.moveaxis(samples[quiet], 1, 0).reshape(coils, -1)
        self._covariance += flat @ flat.conj().T
        self.samples += flat.shape[1]
        return int((~quiet).sum())

    def _to_first_dwell(self, dwell_us: float) -> np.complex128:
        """Factor that gives noise of this dwell time the variance it has at the first one."""
        if self.dwell_us <= 0:
            self.dwell_us = dwell_us
        known = dwell_us > 0 and self.dwell_us > 0
        return np.complex128(np.sqrt(dwell_us / self.dwell_us) if known else 1)

    def _quiet(self, power: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which readouts of `(readout, coil, sample)` squared magnitudes hold no echo, `(readout,)` bool."""
        mean = power.mean(axis=2)
        usual = np.median(mean, axis=0)
        if self._covariance is not None and self.samples:
            usual = self._covariance.diagonal().real / self.samples
        echo = power.max(axis=2) > SIGNAL * mean
        loud = (mean > LOUD * usual) & (usual > 0)
        return np.asarray(~np.any(echo | loud, axis=1))

    def covariance(self) -> NDArray[np.complex128]:
        """`(coil, coil)` complex128, ``E[n n^H]``."""
        if self._covariance is None:
            raise DataError("no noise scan")
        return self._covariance / self.samples


def whitening(scan: NoiseScan, bandwidth_ratio: float | None) -> Whitening:
    """Whitening from a noise scan.

    Parameters
    ----------
    scan : NoiseScan
    bandwidth_ratio : float, optional
        ``relativeReceiverNoiseBandwidth`` of the header; 1 where it is absent (noise equally dense
        over the whole bandwidth, as in simulated files).

    Raises
    ------
    DataError
        No coil has noise at all.
    """
    covariance = scan.covariance()
    variance = covariance.diagonal().real
    typical = float(np.median(variance[variance > 0])) if np.any(variance > 0) else 0.0
    if typical <= 0:
        raise DataError("noise scan is zero in every coil")
    dead, hot = variance < DEAD * typical, variance > HOT * typical
    keep = np.flatnonzero(~(dead | hot))
    notes = [_dropped(np.flatnonzero(dead), "dead (no noise)"), _dropped(np.flatnonzero(hot), "hot")]
    if scan.dwell_us <= 0:
        notes.append("noise scan gives no dwell time: the one of the imaging lines is assumed")
    matrix = np.zeros((len(keep), len(variance)), dtype=np.complex128)
    kept, note = _inverse_factor(covariance[np.ix_(keep, keep)], scan.samples)
    matrix[:, keep] = kept
    return Whitening(
        matrix=matrix.astype(np.complex64),
        dwell_us=scan.dwell_us,
        bandwidth_ratio=1.0 if bandwidth_ratio is None else bandwidth_ratio,
        notes=tuple(text for text in (*notes, note) if text),
    )


def _dropped(coils: NDArray[np.intp], why: str) -> str:
    return f"coils dropped, {why}: {', '.join(map(str, coils.tolist()))}" if len(coils) else ""


def _inverse_factor(covariance: NDArray[np.complex128], samples: int) -> tuple[NDArray[np.complex128], str]:
    """``L^-1`` with ``L L^H`` the covariance; diagonal where it cannot be trusted, with a note."""
    coils = len(covariance)
    if samples < 4 * coils:
        scales = np.diag(1 / np.sqrt(covariance.diagonal().real)).astype(np.complex128)
        return scales, f"noise scan has only {samples} samples for {coils} coils: correlations ignored"
    deviation = np.sqrt(covariance.diagonal().real)
    spectrum = np.linalg.eigvalsh(covariance / np.outer(deviation, deviation))
    if spectrum[0] < SINGULAR * spectrum[-1]:
        scales = np.diag(1 / deviation).astype(np.complex128)
        return scales, "noise covariance is singular (coils repeat each other): correlations ignored"
    lower = cholesky(covariance, lower=True)
    return solve_triangular(lower, np.eye(coils, dtype=np.complex128), lower=True), ""


def edge_noise(data: NDArray[np.complex64], mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Noise standard deviation of each coil from the outermost samples of k-space.

    Parameters
    ----------
    data : ndarray
        `(phase, coil, ky, kx)` complex64.
    mask : ndarray
        `(phase, ky, kx)` bool.

    Returns
    -------
    ndarray or None
        `(coil,)` float64, ``sqrt(E|n|^2)`` from the median of ``|n|^2`` (median over ln 2 is the mean
        of an exponential variable); None with fewer than 32 samples or none but zeros.
    """
    ny, nx = data.shape[-2:]
    rows = np.flatnonzero(mask.any(axis=(0, 2)))
    far = rows[np.argsort(np.abs(rows - ny // 2), kind="stable")[::-1]][: max(2, len(rows) // 8)]
    columns = np.r_[0 : max(1, nx // 10), nx - max(1, nx // 10) : nx]
    phases = np.unique(np.linspace(0, len(data) - 1, min(len(data), 8)).astype(int))
    picked = data[np.ix_(phases, np.arange(data.shape[1]), far, columns)]
    seen = mask[np.ix_(phases, far, columns)]
    if int(seen.sum()) < 32:
        return None
    values = np.moveaxis(picked, 1, -1)[seen]
    power = np.median(values.real.astype(np.float64) ** 2 + values.imag.astype(np.float64) ** 2, axis=0)
    return np.asarray(np.sqrt(power / np.log(2.0))) if np.all(power > 0) else None

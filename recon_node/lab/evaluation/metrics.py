"""How near an image is to the truth: PSNR, SSIM and NMSE, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from recon_node.core.errors import DataError

WINDOW = 7
K1, K2 = 0.01, 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Image quality against a reference."""

    psnr: float
    """Peak signal-to-noise ratio, dB; infinite for equal images."""
    ssim: float
    """Structural similarity, at most 1."""
    nmse: float
    """Squared error over the reference's energy."""

    def as_dict(self) -> dict[str, float]:
        """For ``summary.json``."""
        return {"psnr": self.psnr, "ssim": self.ssim, "nmse": self.nmse}


def frame_metrics(image: NDArray[Any], reference: NDArray[Any], *, normalise: bool = True) -> Metrics:
    """Compare the magnitudes of two frames.

    Parameters
    ----------
    image, reference : ndarray
        `(y, x)`, complex or real.
    normalise : bool
        Divide each by its own maximum first, as the CardioMM evaluation does; False where both have the same
        unit.

    Returns
    -------
    Metrics
        The data range of PSNR and SSIM is the maximum of the reference.

    Raises
    ------
    DataError
        If the shapes differ, a frame is smaller than the SSIM window (7), holds no finite numbers, or the
        reference is zero everywhere.
    """
    found, truth = _checked(image, reference)
    if normalise:
        found, truth = found / max(float(found.max()), np.finfo(float).tiny), truth / truth.max()
    peak = float(truth.max())
    error = float(np.mean(np.square(found - truth)))
    return Metrics(
        psnr=float(10 * np.log10(peak**2 / error)) if error > 0 else float("inf"),
        ssim=float(np.mean(ssim_map(found, truth, data_range=peak))),
        nmse=float(np.sum(np.square(found - truth)) / np.sum(np.square(truth))),
    )


def series_metrics(images: NDArray[Any], reference: NDArray[Any], *, normalise: bool = True) -> Metrics:
    """Mean over frames of `frame_metrics`; `(phase, y, x)` each.

    Raises
    ------
    DataError
        If the shapes differ, and what `frame_metrics` raises.
    """
    if images.shape != reference.shape or images.ndim != 3 or not len(images):
        raise DataError(
            f"cannot compare images of shape {images.shape} with a reference of {reference.shape}; expected "
            "the same (phase, y, x)"
        )
    frames = [frame_metrics(a, b, normalise=normalise) for a, b in zip(images, reference, strict=True)]
    return Metrics(
        psnr=float(np.mean([frame.psnr for frame in frames])),
        ssim=float(np.mean([frame.ssim for frame in frames])),
        nmse=float(np.mean([frame.nmse for frame in frames])),
    )


def figures(images: NDArray[Any], reference: NDArray[Any]) -> dict[str, float]:
    """`series_metrics` of images in the reference's unit, for ``summary.json``."""
    return series_metrics(images, reference, normalise=False).as_dict()


def ssim_map(image: NDArray[Any], reference: NDArray[Any], *, data_range: float) -> NDArray[np.float64]:
    """Structural similarity at every pixel whose window lies inside the frame.

    Wang et al., IEEE Trans Image Process 13:600 (2004), equation 13, with a uniform 7x7 window, sample
    covariances, K1 = 0.01 and K2 = 0.03.

    Returns
    -------
    ndarray
        `(y - 6, x - 6)` float64.
    """
    a, b = np.asarray(image, np.float64), np.asarray(reference, np.float64)
    count = WINDOW**2
    unbiased = count / (count - 1)
    mean_a, mean_b = uniform_filter(a, WINDOW), uniform_filter(b, WINDOW)
    var_a = unbiased * (uniform_filter(a * a, WINDOW) - mean_a * mean_a)
    var_b = unbiased * (uniform_filter(b * b, WINDOW) - mean_b * mean_b)
    covariance = unbiased * (uniform_filter(a * b, WINDOW) - mean_a * mean_b)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    denominator = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    inside = slice(WINDOW // 2, -(WINDOW // 2))
    similarity: NDArray[np.float64] = (numerator / denominator)[inside, inside]
    return similarity


def _checked(image: NDArray[Any], reference: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if image.shape != reference.shape or image.ndim != 2 or min(image.shape) < WINDOW:
        raise DataError(
            f"cannot compare a frame of shape {image.shape} with one of {reference.shape}; expected the same "
            f"(y, x) of at least {WINDOW} pixels"
        )
    found, truth = np.abs(image).astype(np.float64), np.abs(reference).astype(np.float64)
    if not (np.isfinite(found).all() and np.isfinite(truth).all()):
        raise DataError("cannot compare frames that hold NaN or infinite pixels")
    if truth.max() == 0:
        raise DataError("cannot compare with a reference that is zero everywhere")
    return found, truth

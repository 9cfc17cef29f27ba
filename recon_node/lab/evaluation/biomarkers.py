"""What a cardiologist reads from a cine: ventricular volumes over the cycle, ejection fraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError

MOSTLY = 0.6
"""Share from which a pixel may stand for one kind of tissue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VentricleFunction:
    """Function of a ventricle from its volume curve."""

    edv_ml: float
    """End-diastolic volume, the largest."""
    esv_ml: float
    """End-systolic volume, the smallest."""

    @property
    def stroke_volume_ml(self) -> float:
        """End-diastolic minus end-systolic volume."""
        return self.edv_ml - self.esv_ml

    @property
    def ejection_fraction_percent(self) -> float:
        """Stroke volume over end-diastolic volume."""
        return 100 * self.stroke_volume_ml / self.edv_ml


@dataclass(frozen=True, slots=True, kw_only=True)
class BlandAltman:
    """Agreement of two ways to measure the same (Bland and Altman 1986)."""

    bias: float
    """Mean difference."""
    sd: float
    """Standard deviation of the differences."""
    low: float
    """Lower limit of agreement, bias - 1.96 sd."""
    high: float
    """Upper limit of agreement."""


def function_of(volume_ml: NDArray[Any]) -> VentricleFunction:
    """Function from a volume curve `(phase,)`.

    Raises
    ------
    DataError
        If the curve is empty or never positive.
    """
    curve = np.asarray(volume_ml, np.float64)
    if curve.ndim != 1 or not curve.size or not curve.max() > 0:
        raise DataError(f"a volume curve of shape {curve.shape} has no positive volume")
    return VentricleFunction(edv_ml=float(curve.max()), esv_ml=float(curve.min()))


def mask_volume_ml(
    share: NDArray[Any], *, pixel_mm: tuple[float, float], thickness_mm: float
) -> NDArray[np.float64]:
    """Volume by phase of `share` `(..., phase, y, x)`, the part of each pixel that belongs to the cavity.

    Slices (leading axes) are added up.
    """
    area = np.asarray(share, np.float64).sum(axis=(-2, -1)) * pixel_mm[0] * pixel_mm[1]
    return np.asarray(area.reshape(-1, area.shape[-1]).sum(axis=0) * thickness_mm / 1000)


def blood_volume_ml(
    images: NDArray[Any],
    *,
    cavity: NDArray[Any],
    wall: NDArray[Any],
    pixel_mm: tuple[float, float],
    thickness_mm: float,
) -> NDArray[np.float64]:
    """Left ventricular blood by phase, `(phase,)` ml of this slice: `blood_share` in units of volume."""
    share = blood_share(images, cavity=cavity, wall=wall)
    return mask_volume_ml(share, pixel_mm=pixel_mm, thickness_mm=thickness_mm)


def blood_share(images: NDArray[Any], *, cavity: NDArray[Any], wall: NDArray[Any]) -> NDArray[np.float64]:
    """How much of each pixel is left ventricular blood, by its brightness in a bright-blood cine.

    Inside the region that cavity or wall ever reach, each pixel's brightness between that of wall and of
    blood is its share of blood, which treats partial volume fairly. Both brightnesses are medians of
    these images themselves where the truth is pure (or as pure as it gets, where the wall is thinner than a
    pixel), so that their scale does not matter.

    Parameters
    ----------
    images : ndarray
        `(phase, y, x)` complex or real.
    cavity, wall : ndarray
        `(phase, y, x)` true share of each pixel, 0 to 1.

    Returns
    -------
    ndarray
        `(phase, y, x)` 0 to 1.

    Raises
    ------
    DataError
        If the slice does not cut the ventricle, or blood is not brighter than the wall.
    """
    bright = np.abs(images).astype(np.float64)
    blood_pixels, wall_pixels = (bright[_purest(share)] for share in (cavity, wall))
    if not blood_pixels.size or not wall_pixels.size:
        raise DataError(
            "this slice does not cut the left ventricle: no pixel is mostly blood, or none is mostly wall"
        )
    blood, muscle = float(np.median(blood_pixels)), float(np.median(wall_pixels))
    if blood <= muscle:
        raise DataError("blood is not brighter than the heart's wall: not a bright-blood cine")
    near = cavity > 0
    region = near | ((wall > 0.99) & near.any(axis=0))
    return np.where(region, np.clip((bright - muscle) / (blood - muscle), 0, 1), 0)


def _purest(share: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels that are all of one kind; else those nearest to it, if they are mostly so."""
    most = float(share.max(initial=0.0))
    return np.asarray(share > (min(0.99, 0.95 * most) if most > MOSTLY else 1.0))


def bland_altman(measured: NDArray[Any], reference: NDArray[Any]) -> BlandAltman:
    """Agreement of `measured` with `reference`, `(case,)` each.

    Raises
    ------
    DataError
        If the shapes differ or there are fewer than two cases.
    """
    a, b = np.asarray(measured, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size < 2:
        raise DataError(f"agreement needs two rows of at least two cases, found {a.shape} and {b.shape}")
    difference = a - b
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    return BlandAltman(bias=bias, sd=sd, low=bias - 1.96 * sd, high=bias + 1.96 * sd)


def intraclass_correlation(scores: NDArray[Any]) -> float:
    """ICC(2,1): absolute agreement of single measurements, cases and ways to measure drawn at random.

    Shrout and Fleiss, Psychol Bull 86:420 (1979): with mean squares between cases (BMS), between ways (JMS)
    and of the rest (EMS) of `n` cases and `k` ways it is
    ``(BMS - EMS) / (BMS + (k - 1) EMS + k (JMS - EMS) / n)``.

    Parameters
    ----------
    scores : ndarray
        `(case, way)`

    Raises
    ------
    DataError
        Fewer than two cases or ways, or all scores are the same.
    """
    x = np.asarray(scores, np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise DataError(f"intraclass correlation needs at least 2 cases by 2 ways, found {x.shape}")
    n, k = x.shape
    cases, ways = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    between = k * float(np.square(cases - x.mean()).sum()) / (n - 1)
    judges = n * float(np.square(ways - x.mean()).sum()) / (k - 1)
    rest = float(np.square(x - cases - ways + x.mean()).sum()) / ((n - 1) * (k - 1))
    below = between + (k - 1) * rest + k * (judges - rest) / n
    if below == 0:
        raise DataError("intraclass correlation is not defined: all scores are the same")
    return float((between - rest) / below)

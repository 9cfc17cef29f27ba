"""Complex images to stored pixel values: one slope, one intercept and one window for a series.

A window or slope per image would make a cine flicker, and one per slice would make a stack jump;
so both are found over all phases and may be handed on to the next slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recon_node.core.axes import frozen
from recon_node.core.choices import Quantity
from recon_node.core.errors import DicomError
from recon_node.core.types import ImageSeries

FULL_SCALE = 65535
BODY_PERCENTILE = 99.0
"""What counts as the bright end of the anatomy; the window ends there."""
HOT_RATIO = 16.0
"""A pixel brighter than this many times the bright end is taken for a spike and clipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How stored values and real ones belong together: ``real = stored * slope + intercept``."""

    slope: float
    intercept: float
    window_center: float
    """In real units, as DICOM wants it (after the rescale)."""
    window_width: float
    unit: str
    """Of the real values, for RescaleType: ``US`` (unspecified), ``rad``, ``cm/s`` or ``ms``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredPixels:
    """Pixels as DICOM stores them."""

    data: NDArray[np.uint16]
    """`(phase, y, x)` uint16."""
    scaling: Scaling
    quantity: Quantity
    clipped: int = 0
    """Number of pixels beyond the range of `scaling`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", frozen("data", self.data, "phase y x", np.uint16, {}))


def scale_series(
    images: ImageSeries,
    *,
    quantity: Literal["magnitude", "phase"] = "magnitude",
    scaling: Scaling | None = None,
) -> StoredPixels:
    """Stored pixel values of a series.

    Parameters
    ----------
    images : ImageSeries
        `(phase, y, x)` complex.
    quantity : {"magnitude", "phase"}
        What is stored. The phase covers -pi to pi.
    scaling : Scaling, optional
        Of another slice of the same stack, so that all slices share it; found from the images if None.

    Raises
    ------
    DicomError
        Where there are no pixels, or some are not finite.
    """
    values = np.abs(images.data) if quantity == "magnitude" else np.angle(images.data)
    return store(values, quantity, scaling)


def store(values: NDArray[np.floating], quantity: Quantity, scaling: Scaling | None = None) -> StoredPixels:
    """Stored pixel values of real ones `(phase, y, x)`.

    Parameters
    ----------
    values : ndarray
        In the unit of the quantity: none, rad, cm/s or ms.
    quantity : str
        What they are.
    scaling : Scaling, optional
        Needed for a velocity (`velocity_scaling`); found otherwise.

    Raises
    ------
    DicomError
        Where there are no pixels, or some are not finite.
    """
    if values.size == 0:
        raise DicomError(f"images have shape {values.shape}: there is nothing to store")
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise DicomError(f"{bad} of {values.size} pixels are not finite: the reconstruction failed")
    if scaling is None:
        scaling = _FIXED.get(quantity) or _magnitude_scaling(values)
    steps = np.rint((values.astype(np.float64) - scaling.intercept) / scaling.slope)
    clipped = int(np.count_nonzero((steps < 0) | (steps > FULL_SCALE)))
    stored = np.clip(steps, 0, FULL_SCALE).astype(np.uint16)
    return StoredPixels(data=stored, scaling=scaling, quantity=quantity, clipped=clipped)


def _magnitude_scaling(values: NDArray[np.floating]) -> Scaling:
    top = float(values.max())
    bright = float(np.percentile(values, BODY_PERCENTILE)) or top
    slope = _decimal(min(top, HOT_RATIO * bright) / FULL_SCALE) if top > 0 else 1.0
    width = _decimal(bright) if top > 0 else 1.0
    return Scaling(slope=slope, intercept=0.0, window_center=width / 2, window_width=width, unit="US")


def _signed_scaling(largest: float, unit: str) -> Scaling:
    slope = _decimal(2 * largest / FULL_SCALE)
    intercept = -slope * FULL_SCALE / 2
    return Scaling(
        slope=slope, intercept=intercept, window_center=0.0, window_width=round(2 * largest, 4), unit=unit
    )


def velocity_scaling(venc_cm_s: float) -> Scaling:
    """From -venc to venc, in cm/s."""
    return _signed_scaling(venc_cm_s, "cm/s")


def _decimal(value: float) -> float:
    """`value` rounded up to six significant digits, so that a decimal string holds it exactly."""
    digits = 5 - int(np.floor(np.log10(value)))
    rounded = round(value, digits)
    return rounded if rounded >= value else round(rounded + 10.0**-digits, digits)


_FIXED: dict[str, Scaling] = {
    "phase": _signed_scaling(np.pi, "rad"),
    "t1": Scaling(slope=0.1, intercept=0.0, window_center=1000.0, window_width=2000.0, unit="ms"),
    "g-factor": Scaling(slope=0.001, intercept=0.0, window_center=2.0, window_width=4.0, unit="US"),
    "t2": Scaling(slope=0.01, intercept=0.0, window_center=60.0, window_width=120.0, unit="ms"),
}

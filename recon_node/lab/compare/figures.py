"""How far the images of a pair differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.dicom.read import DicomSlice
from recon_node.lab.compare.register import in_time, resampled
from recon_node.lab.evaluation.metrics import WINDOW, ssim_map


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """A slice of A beside the slice of B that shows the same."""

    one: DicomSlice
    other: DicomSlice
    images: NDArray[np.float32]
    """Of A, times `factor`, `(frame, y, x)`."""
    reference: NDArray[np.float32]
    """Of B on the pixels of A, `(frame, y, x)`."""
    inside: NDArray[np.bool_]
    """`(y, x)`: where both are."""
    factor: float
    """What brings A to the unit of B."""
    psnr: tuple[float, ...]
    """Of each frame, dB; the peak is the largest value of B."""
    ssim: tuple[float, ...]
    """Of each frame."""
    nmse: float
    """Squared error over the energy of B, all frames together."""
    largest: float
    """Largest difference, of the peak of B."""

    @property
    def worst(self) -> int:
        """The frame with the lowest PSNR."""
        return int(np.argmin(self.psnr))

    def as_dict(self) -> Mapping[str, Any]:
        """For the table; JSON-able (equal images have no PSNR)."""
        finite = [value for value in self.psnr if np.isfinite(value)]
        return {
            "a": self.one.description,
            "b": self.other.description,
            "a_series": self.one.series,
            "b_series": self.other.series,
            "location_mm": round(float(np.dot(self.one.plane.position, self.one.plane.normal)), 1),
            "frames": len(self.images),
            "frames_b": len(self.other),
            "shared": round(float(self.inside.mean()), 4),
            "factor": float(f"{self.factor:.6g}"),
            "psnr": round(float(np.mean(finite)), 3) if finite else None,
            "ssim": round(float(np.mean(self.ssim)), 5),
            "nmse": float(f"{self.nmse:.4g}"),
            "largest": float(f"{self.largest:.4g}"),
            "same_frame_of_reference": self.one.frame_of_reference == self.other.frame_of_reference,
        }


def compare_pair(one: DicomSlice, other: DicomSlice, *, scale: bool = True) -> Compared:
    """Compare two slices at the same place.

    Parameters
    ----------
    one, other : DicomSlice
        Of A and of B, which is the reference.
    scale : bool
        Bring A to the unit of B by one factor for all its images (least squares), as scanners and software
        scale as they like.

    Raises
    ------
    DicomError
        Pixels cannot be read.
    DataError
        The reference is zero wherever both are.
    """
    images = one.pixels()
    reference, inside = resampled(other.pixels()[in_time(one, other)], other.plane, one.plane)
    a, b = images[:, inside].astype(np.float64), reference[:, inside].astype(np.float64)
    energy, peak = float(np.sum(b * b)), float(np.abs(b).max(initial=0.0))
    if not energy:
        raise DataError(f"{other.description}: is zero everywhere, expected images to compare with")
    own = float(np.sum(a * a))
    factor = float(np.sum(a * b)) / own if scale and own else 1.0
    error = a * factor - b
    squared = np.mean(error**2, axis=1)
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(peak**2 / squared)
    scaled = images * np.float32(factor)
    return Compared(
        one=one,
        other=other,
        images=scaled,
        reference=reference,
        inside=inside,
        factor=factor,
        psnr=tuple(map(float, psnr)),
        ssim=tuple(_ssim(x, y, inside, peak) for x, y in zip(scaled, reference, strict=True)),
        nmse=float(np.sum(error**2)) / energy,
        largest=float(np.abs(error).max()) / peak,
    )


def _ssim(
    image: NDArray[np.float32], reference: NDArray[np.float32], inside: NDArray[np.bool_], peak: float
) -> float:
    """Mean over windows whose centre lies in both."""
    margin = WINDOW // 2
    where = inside[margin:-margin, margin:-margin]
    if not where.any():
        return 1.0 if np.array_equal(image[inside], reference[inside]) else 0.0
    return float(np.mean(ssim_map(image * inside, reference * inside, data_range=peak)[where]))

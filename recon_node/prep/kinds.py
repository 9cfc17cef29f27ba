"""What each acquisition is for, from its flags."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import AcquisitionFlag as Flag


class Kind(IntEnum):
    """Where an acquisition goes."""

    IMAGING = 0
    CALIBRATION = 1
    BOTH = 2
    NOISE = 3
    OTHER = 4


NOT_FOR_IMAGES = {
    Flag.IS_NAVIGATION_DATA: "navigator",
    Flag.IS_PHASECORR_DATA: "phase correction",
    Flag.IS_HPFEEDBACK_DATA: "HP feedback",
    Flag.IS_DUMMYSCAN_DATA: "dummy",
    Flag.IS_RTFEEDBACK_DATA: "real-time feedback",
    Flag.IS_SURFACECOILCORRECTIONSCAN_DATA: "surface coil correction",
    Flag.IS_PHASE_STABILIZATION_REFERENCE: "phase stabilisation reference",
    Flag.IS_PHASE_STABILIZATION: "phase stabilisation",
}
"""Acquisitions that never enter the image matrix, by the name that notes use."""

COMPRESSED = Flag.COMPRESSION1 | Flag.COMPRESSION2 | Flag.COMPRESSION3 | Flag.COMPRESSION4

_OTHER = sum(NOT_FOR_IMAGES)


def kinds(flags: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """`Kind` of each acquisition `(readout,)`.

    Noise wins over everything, purposes other than images over calibration.
    """
    calibration = _has(flags, Flag.IS_PARALLEL_CALIBRATION)
    both = _has(flags, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING)
    kind = np.full(flags.shape, Kind.IMAGING, dtype=np.uint8)
    kind[calibration] = Kind.CALIBRATION
    kind[both] = Kind.BOTH
    kind[_has(flags, _OTHER)] = Kind.OTHER
    kind[_has(flags, Flag.IS_NOISE_MEASUREMENT)] = Kind.NOISE
    return kind


def names_of_others(flags: NDArray[np.uint64]) -> dict[str, int]:
    """How many acquisitions of each purpose that makes no image, by name."""
    counts = {name: int(_has(flags, flag).sum()) for flag, name in NOT_FOR_IMAGES.items()}
    return {name: count for name, count in counts.items() if count}


def has_any(flags: NDArray[np.uint64], wanted: int) -> NDArray[np.bool_]:
    """Whether any bit of `wanted` is set in each of `flags`."""
    return _has(flags, wanted)


def _has(flags: NDArray[Any], wanted: int) -> NDArray[np.bool_]:
    return np.asarray((flags & np.uint64(wanted)) != 0)

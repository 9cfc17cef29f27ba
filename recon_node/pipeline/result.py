"""What comes out of the row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, Prompts, Verdict
from recon_node.dicom import WrittenInstance

Metrics = Mapping[str, Mapping[str, float]]
"""By method, figures such as ``psnr``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reconstruction:
    """Everything known about one reconstructed slice."""

    kspace: KSpace
    maps: CoilMaps
    prompts: Prompts
    images: ImageSeries
    """At the recon matrix, made by the method that the verdict lets stand."""
    verdict: Verdict
    withheld: ImageSeries | None = None
    """The method's own images at the recon matrix, where they failed the check and the settings want both."""
    held: bool = False
    """Nothing of it leaves this machine before somebody has looked at it."""
    validated: bool = False
    """Whether the method that made the images was validated for clinical use."""
    source_id: str = ""
    """What tells its raw data from others whose headers are equal; goes into the UIDs."""
    seconds: Mapping[str, float]
    """Wall time by stage."""
    metrics: Metrics | None = None
    """Against the truth, where one is known."""
    reference: NDArray[np.complex64] | None = None
    """That truth, `(phase, y, x)` at the recon matrix, where somebody wants to look at it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """What came of one slice."""

    result: Reconstruction | DataError
    """Images, or why there are none."""
    arrived: float
    """When its last line came, `time.monotonic()` seconds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """One slice at the end of the row."""

    result: Reconstruction
    instances: tuple[WrittenInstance, ...] = ()
    """Its DICOM instances, complete on disk."""
    seconds: Mapping[str, float]
    """Wall time by stage, writing and queueing included."""
    arrived: float
    """When its last line came, `time.monotonic()` seconds."""

"""What the demo knows of its scan, and what the node made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import ImageSeries
from recon_node.lab.evaluation import Metrics
from recon_node.pipeline.result import Reconstruction, Slice
from recon_node.report import Layer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """What the simulator knows about the scan."""

    images: NDArray[np.complex64]
    """`(slice, phase, y, x)`."""
    lv_volume_ml: NDArray[np.float64]
    """`(phase,)`"""
    lvef_percent: float
    trigger_times_ms: NDArray[np.float64]
    lv: NDArray[np.float32]
    """`(slice, phase, y, x)` share of each pixel that is left ventricular cavity."""
    myocardium: NDArray[np.float32]
    """`(slice, phase, y, x)`"""
    pixel_mm: float
    slice_spacing_mm: float


@dataclass(slots=True, kw_only=True, eq=False)
class SliceResult:
    """One slice by every method."""

    done: Slice
    beside: dict[str, ImageSeries] = field(default_factory=dict)
    metrics: dict[str, Metrics] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    """Maps of the slice, pixel by pixel."""

    @property
    def result(self) -> Reconstruction:
        """The node's reconstruction."""
        return self.done.result

    @property
    def number(self) -> int:
        """Of the slice, from 0."""
        return self.result.kspace.index.slice


def read_truth(path: Path) -> Truth:
    """Read what `simulate_scan` wrote beside the raw data."""
    with h5py.File(path, "r") as file:
        return Truth(
            images=file["images"][:],
            lv_volume_ml=file["lv_volume_ml"][:],
            lvef_percent=float(file.attrs["lvef_percent"]),
            trigger_times_ms=file["trigger_times_ms"][:],
            lv=file["lv"][:],
            myocardium=file["myocardium"][:],
            pixel_mm=float(file.attrs["pixel_mm"]),
            slice_spacing_mm=float(file.attrs["slice_spacing_mm"]),
        )

"""What finds the left ventricle in images: two built in, others by entry point or ``module:Class``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import ConfigError, DataError, ReconNodeError
from recon_node.core.plugins import FAILURES, imported, installed, told
from recon_node.methods.table import is_address

F32 = NDArray[np.float32]
GROUP = "recon_node.segmenters"
"""Entry point group of segmenters from other packages."""
BUILT_IN: Mapping[str, str] = {
    "exact": "recon_node.lab.biomarkers.exact:ExactRegion",
    "acdc": "recon_node.lab.biomarkers.acdc:AcdcNetwork",
}
"""Name to class."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmentation:
    """Where the left ventricle is; shares of pixels from 0 to 1, on a grid of its own."""

    cavity: F32
    """`(phase, y, x)` share of each pixel that is left ventricular cavity."""
    wall: F32
    """`(phase, y, x)` share that is left ventricular wall."""
    pixel_mm: tuple[float, float]
    """(y, x)"""

    def __post_init__(self) -> None:
        if self.cavity.ndim != 3 or self.cavity.shape != self.wall.shape:
            raise DataError(
                f"segmentation: cavity has shape {self.cavity.shape} and wall {self.wall.shape}, expected "
                "the same (phase, y, x)"
            )

    def areas_cm2(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`(phase,)` area of the cavity, and of the wall."""
        pixel = self.pixel_mm[0] * self.pixel_mm[1] / 100
        cavity, wall = (one.sum(axis=(1, 2), dtype=np.float64) * pixel for one in (self.cavity, self.wall))
        return cavity, wall


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceImages:
    """One slice's images, as a segmenter gets them."""

    images: F32
    """`(phase, y, x)` float32 magnitudes, any unit."""
    pixel_mm: tuple[float, float]
    """(y, x)"""
    centre: tuple[int, int]
    """Row and column of the heart, the same for all images of a stack."""
    truth: Segmentation | None = None
    """Exact shares on the grid of the images; drawn hearts only."""


@runtime_checkable
class Segmenter(Protocol):
    """Finds cavity and wall of the left ventricle in short-axis cines."""

    name: str

    def segment(self, images: SliceImages) -> Segmentation:
        """Shares of cavity and wall in every phase; none where the slice misses the ventricle."""


def segmenter_names() -> tuple[str, ...]:
    """Every name that can be chosen here: built-in ones, then those of installed packages."""
    return (*BUILT_IN, *sorted(set(installed(GROUP)) - set(BUILT_IN)))


def find_segmenter(name: str) -> Segmenter:
    """Make a segmenter.

    Parameters
    ----------
    name : str
        A built-in name, that of an entry point of group ``recon_node.segmenters``, or ``module:Class`` (or a
        function) that is called without arguments.

    Raises
    ------
    ConfigError
        There is none of that name, or it cannot be imported or made.
    """
    address = BUILT_IN.get(name, name)
    if name in installed(GROUP) and name not in BUILT_IN:
        address = installed(GROUP)[name].value
    if not is_address(address):
        known = ", ".join(segmenter_names())
        raise ConfigError(
            f"segmenter: found {name[:60]!r}, expected one of {known}, or module:Class of your own"
        )
    target = imported(f"segmenter {name}", address)
    made = _made(name, target)
    if not callable(getattr(made, "segment", None)):
        raise ConfigError(f"segmenter {name}: {type(made).__name__} has no method segment(images)")
    return made if name in BUILT_IN else _Held(name, made)


def _made(name: str, target: Any) -> Any:
    try:
        return target() if callable(target) else target
    except ReconNodeError:
        raise
    except FAILURES as error:
        raise ConfigError(f"segmenter {name} cannot be made: {told(error)}") from error


class _Held:
    """A foreign segmenter, whose failures are one line and whose result is checked."""

    def __init__(self, name: str, inner: Segmenter) -> None:
        self.name, self._inner = name, inner

    def segment(self, images: SliceImages) -> Segmentation:
        """As the other one does.

        Raises
        ------
        DataError
            It failed, or returned something else than a segmentation of these phases.
        """
        try:
            found = self._inner.segment(images)
        except ReconNodeError:
            raise
        except FAILURES as error:
            raise DataError(f"segmenter {self.name} failed: {told(error)}") from error
        if not isinstance(found, Segmentation) or len(found.cavity) != len(images.images):
            raise DataError(
                f"segmenter {self.name} returned {type(found).__name__}, expected a Segmentation of "
                f"{len(images.images)} phases"
            )
        return found

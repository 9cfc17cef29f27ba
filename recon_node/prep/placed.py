"""Lines of k-space on their way into it, for those who look on while a scan arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_node.core.choices import Orientation
from recon_node.core.scan import ScanHeader
from recon_node.prep.readout import Lines, ReadoutGrid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedLines:
    """Whitened lines of one encoding, for calibration, images or both as their flags say."""

    encoding: int
    lines: Lines
    rows: NDArray[np.intp]
    """`(line,)`: ``kz * ny + ky``."""
    header: ScanHeader
    grid: ReadoutGrid
    dynamic: str
    """Counter that makes the phase axis."""
    orientation: Orientation
    whitened: bool


OnLines = Callable[[PlacedLines], None]
"""Told of lines once they are in k-space, in the thread that reads; must neither raise nor wait."""

"""Contours that experts drew, beside the clips that they drew them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.lab.cines.npz import read_arrays
from recon_node.simulate.cine import Cine

_KEY = "endocardium_"


def expert_areas(folder: Path, cine: Cine) -> dict[int, float]:
    """Area in cm2 within the endocardial contour of each frame that has one.

    Contours lie in the clip's npz file as ``endocardium_<frame>`` `(point, (x, y))` in pixels of its images;
    a clip from another file has none.

    Raises
    ------
    DataError
        A contour is no polygon, its frame is not of the clip, or the file is damaged.
    """
    path = folder / f"{cine.name}.npz"
    if not path.is_file():
        return {}
    held = read_arrays(path, cine.name, lambda key: key == "pixel_mm" or key.startswith(_KEY))
    pixel = np.atleast_1d(held.pop("pixel_mm")).astype(float)
    found = {}
    for key, points in sorted(held.items()):
        frame = key.removeprefix(_KEY)
        if not frame.isdigit() or int(frame) >= len(cine.images) or points.ndim != 2 or points.shape[1] != 2:
            raise DataError(
                f"{cine.name}: contour {key} has shape {points.shape}, expected (point, (x, y)) and a frame "
                f"below {len(cine.images)}"
            )
        found[int(frame)] = polygon_area(points) * float(pixel[0] * pixel[1]) / 100
    return found


def polygon_area(points: NDArray[Any]) -> float:
    """Area of a polygon `(point, 2)`, in squared units of its coordinates (shoelace formula)."""
    x, y = np.asarray(points, np.float64).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)

"""From areas over the heart cycle to the numbers a cardiologist reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recon_node.lab.evaluation.biomarkers import function_of

DENSITY = 1.05
"""g/ml of myocardium, as cardiac mass is computed with."""
VOLUMES: Mapping[str, str] = {
    "edv": "EDV, ml",
    "esv": "ESV, ml",
    "sv": "stroke volume, ml",
    "ef": "ejection fraction, points",
    "mass": "mass, g",
    "thickness": "wall thickness, mm",
}
"""Of a stack: key to name and unit."""
AREAS: Mapping[str, str] = {
    "eda": "largest area, cm2",
    "esa": "smallest area, cm2",
    "fac": "fractional area change, points",
    "wall": "wall area, cm2",
    "slice_thickness": "wall thickness in the slice, mm",
}
"""Of a single slice."""
Areas = NDArray[np.float64]


def of_stack(cavity: Areas, wall: Areas, pitch_mm: float) -> dict[str, float]:
    """Volumes by the sum of slices (areas times their distance), and what follows from them.

    Parameters
    ----------
    cavity, wall : ndarray
        `(slice, phase)` cm2.
    pitch_mm : float
        Distance of neighbouring slices.

    Returns
    -------
    dict
        By the keys of `VOLUMES`; empty where no slice has a cavity. End diastole is the phase of the largest
        volume; mass and thickness are of that phase.
    """
    volume = cavity.sum(axis=0) * pitch_mm / 10
    if not volume.max() > 0:
        return {}
    function = function_of(volume)
    phase = int(volume.argmax())
    cut = [(c, w) for c, w in zip(cavity[:, phase], wall[:, phase], strict=True) if c > 0 and w > 0]
    found = {
        "edv": function.edv_ml,
        "esv": function.esv_ml,
        "sv": function.stroke_volume_ml,
        "ef": function.ejection_fraction_percent,
        "mass": float(wall[:, phase].sum()) * pitch_mm / 10 * DENSITY,
    }
    if cut:
        found["thickness"] = float(np.mean([thickness_mm(c, w) for c, w in cut]))
    return found


def of_slice(cavity: Areas, wall: Areas) -> dict[str, float]:
    """What one slice says: `(phase,)` cm2 to the keys of `AREAS`; areas of 0 alone where it has no cavity."""
    if not cavity.max() > 0:
        return {"eda": 0.0, "esa": 0.0, "wall": 0.0}
    phase = int(cavity.argmax())
    largest, smallest = float(cavity.max()), float(cavity.min())
    found = {
        "eda": largest,
        "esa": smallest,
        "fac": 100 * (1 - smallest / largest),
        "wall": float(wall[phase]),
    }
    if wall[phase] > 0:
        found["slice_thickness"] = thickness_mm(largest, float(wall[phase]))
    return found


def thickness_mm(cavity_cm2: float, wall_cm2: float) -> float:
    """Mean thickness of a wall that is a ring: difference of the radii of two circles of these areas."""
    return 10 * float(np.sqrt((cavity_cm2 + wall_cm2) / np.pi) - np.sqrt(cavity_cm2 / np.pi))


def against_experts(
    cavity: Areas, pitch_mm: float, experts: Sequence[Mapping[int, float]]
) -> tuple[dict[str, float], dict[str, float]] | None:
    """The same volumes twice, in the slices and frames that experts drew: measured, and theirs.

    Parameters
    ----------
    cavity : ndarray
        `(slice, phase)` cm2.
    pitch_mm : float
        Distance of neighbouring slices.
    experts : sequence of mapping
        Area by frame of each slice.

    Returns
    -------
    tuple or None
        Keys edv, esv, sv and ef each; None where no slice has two frames drawn.
    """
    frames = sorted({frame for drawn in experts if len(drawn) >= 2 for frame in drawn})
    drawn = [place for place, areas in enumerate(experts) if len(areas) >= 2 and set(areas) >= set(frames)]
    if len(frames) != 2 or not drawn:
        return None
    theirs = np.array([[experts[place][frame] for frame in frames] for place in drawn])
    ours = cavity[np.ix_(drawn, frames)]
    order = np.argsort(-theirs.sum(axis=0))
    pair = []
    for areas in (ours, theirs):
        large, small = (areas[:, order].sum(axis=0) * pitch_mm / 10).tolist()
        ef = 100 * (1 - small / large) if large > 0 else 0.0
        pair.append({"edv": large, "esv": small, "sv": large - small, "ef": ef})
    return pair[0], pair[1]

"""How well the numbers of undersampled images agree with those of fully sampled ones, and with experts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recon_node.core.errors import DataError
from recon_node.lab.biomarkers.measures import AREAS, VOLUMES, against_experts, of_slice, of_stack
from recon_node.lab.biomarkers.stacks import heart_of
from recon_node.lab.biomarkers.study import FULL, arrays
from recon_node.lab.evaluation.biomarkers import bland_altman, function_of, intraclass_correlation
from recon_node.lab.evaluation.records import Record
from recon_node.trust import conformal_quantile

Numbers = Mapping[str, float]
BOUND_LEVEL = 0.9
REFERENCES = {
    "full": "the fully sampled images, same segmenter",
    "experts": "the experts' contours, in their slices and frames",
    "shape": "the drawn ventricle's own volume",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One number of one heart, twice."""

    source: str
    unit: str
    """Stack or slice."""
    condition: str
    method: str
    reference: str
    """Of `REFERENCES`."""
    biomarker: str
    measured: float
    expected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One biomarker by one method under one condition, over hearts."""

    source: str
    condition: str
    method: str
    reference: str
    biomarker: str
    count: int
    bias: float
    """Mean of measured minus expected."""
    low: float | None
    """Lower limit of agreement (bias - 1.96 sd); None for one heart."""
    high: float | None
    icc: float | None
    """ICC(2,1); None where it is not defined."""
    bound: float | None
    """Absolute difference within which `BOUND_LEVEL` of new hearts stay (split conformal, a scan of each
    heart); None for slices, and where there are too few hearts."""


def pairs(records: Sequence[Record]) -> list[Pair]:
    """Every number that was measured, beside what it should be.

    Stacks whose slices are not all done are left out; slices that cut the ventricle count on their own,
    whatever stack they are of.
    """
    series: dict[tuple[str, str], dict[tuple[str, str], list[Record]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for one in records:
        series[one["source"], one["stack"]][one["condition"], one["method"]].append(one)
    found: list[Pair] = []
    for (source, stack), by in series.items():
        full = by.get((FULL, FULL), [])
        for (condition, method), some in by.items():
            tags = {"source": source, "condition": condition, "method": method}
            found += _of_slices(tags, some, full)
            if full and full[0]["pitch_mm"] is not None and len(some) == len(full):
                found += _of_stack({**tags, "unit": stack}, some, full)
    return found


def _of_slices(tags: Mapping[str, str], some: Sequence[Record], full: Sequence[Record]) -> list[Pair]:
    if tags["method"] == FULL:
        return []
    whole = {one["slice"]: one for one in full}
    found = []
    for one in some:
        if one["slice"] in whole:
            ours, theirs = (
                of_slice(np.array(r["cavity_cm2"]), np.array(r["wall_cm2"]))
                for r in (one, whole[one["slice"]])
            )
            if theirs["eda"] > 0:  # a slice that undersampling alone makes empty counts with area 0
                found += _paired({**tags, "unit": one["slice"], "reference": "full"}, ours, theirs)
    return found


def _of_stack(tags: Mapping[str, str], some: Sequence[Record], full: Sequence[Record]) -> list[Pair]:
    pitch = float(full[0]["pitch_mm"])
    cavity, wall = arrays(some)
    ours = of_stack(cavity, wall, pitch)
    found = []
    if tags["method"] != FULL:
        found += _paired({**tags, "reference": "full"}, ours, of_stack(*arrays(full), pitch))
    ordered = sorted(full, key=lambda one: one["place"])
    drawn = [{int(k): float(v) for k, v in one["expert_cm2"].items()} for one in ordered]
    twice = against_experts(cavity, pitch, drawn)
    if twice is not None:
        found += _paired({**tags, "reference": "experts"}, *twice)
    true = ordered[0]["true_ml"]
    if true is not None:
        function = function_of(np.array(true))
        shape = {
            "edv": function.edv_ml,
            "esv": function.esv_ml,
            "sv": function.stroke_volume_ml,
            "ef": function.ejection_fraction_percent,
        }
        found += _paired({**tags, "reference": "shape"}, ours, shape)
    return found


def _paired(tags: Mapping[str, str], ours: Numbers, theirs: Numbers) -> list[Pair]:
    return [
        Pair(**tags, biomarker=name, measured=ours[name], expected=theirs[name])
        for name in (*VOLUMES, *AREAS)
        if name in ours and name in theirs
    ]


def agreements(found: Sequence[Pair]) -> list[Agreement]:
    """Bias, limits of agreement and ICC of every group of pairs, in the order they first appear."""
    groups: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    for one in found:
        groups[one.source, one.reference, one.condition, one.method, one.biomarker].append(one)
    return [_agreement(some) for some in groups.values()]


def _agreement(some: Sequence[Pair]) -> Agreement:
    one = some[0]
    scores = np.array([[pair.measured, pair.expected] for pair in some])
    low = high = icc = None
    if len(some) > 1:
        limits = bland_altman(scores[:, 0], scores[:, 1])
        low, high = limits.low, limits.high
        try:
            icc = intraclass_correlation(scores)
        except DataError:
            icc = None
    return Agreement(
        source=one.source,
        condition=one.condition,
        method=one.method,
        reference=one.reference,
        biomarker=one.biomarker,
        count=len(some),
        bias=float((scores[:, 0] - scores[:, 1]).mean()),
        low=low,
        high=high,
        icc=icc,
        bound=_bound(some),
    )


def _bound(some: Sequence[Pair]) -> float | None:
    if some[0].biomarker not in VOLUMES:
        return None
    hearts: dict[str, float] = {}
    for one in some:
        hearts.setdefault(heart_of(one.unit), abs(one.measured - one.expected))
    found = conformal_quantile(list(hearts.values()), BOUND_LEVEL)
    return found if math.isfinite(found) else None

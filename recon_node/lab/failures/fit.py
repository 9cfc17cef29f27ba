"""Limits and an error model from the cases of a failure benchmark, judged on hearts that made neither.

Limits come from clean scans alone: what happens to scans in a benchmark says nothing of how often it does.
They lie a quarter farther, on a logarithmic scale, than any of the good clean scans went. How many clean
scans of other hearts go beyond is measured, not promised (`judged_apart`). Bounds are promised, by split
conformal prediction.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from recon_node.core.errors import DataError
from recon_node.lab.evaluation.limits import Scanned
from recon_node.lab.failures.kinds import CLEAN
from recon_node.lab.failures.run import Record
from recon_node.lab.failures.score import NMSE_TIMES, is_bad, medians
from recon_node.trust import (
    DEFAULTS,
    MEASURES,
    ErrorModel,
    Limit,
    Limits,
    Line,
    Measures,
    conformal_quantile,
    doubt,
    judge,
)
from recon_node.trust.expected import EVERYTHING

BOUND_LEVEL = 0.9
DRAWN = "drawn"
"""Group of all drawn hearts, beside real ones."""
FOLDS = 10
BY_GROUP = (
    "predicted_nmse",
    "likely_nmse",
    "heldout_share",
    "heldout_ratio",
    "noise_share",
    "disorder",
    "folded",
)
"""Measures whose usual value depends on the sampling, or on whether hearts are drawn."""
IN_OTHERS = ("moved",)
"""Measures that are part of another: they keep their default limits, and serve the error model."""
NEVER_LOOSER = ("heldout_ratio", "offgrid_ratio")
"""Measures against parallel imaging: their default limits are not loosened."""
FLOORS = {"coil_gain": 0.005, "line_gain": 0.05, "own_residual": 0.005, "map_residual": 0.005, "folded": 0.02}
"""Values below which a measure says nothing."""
LEAST_WARN = {
    "heldout_ratio": 1.1,
    "heldout_share": 0.95,
    "fit_ratio": 1.2,
    "peak_ratio": 1.8,
    "consistency": 0.05,
    "consistency_noise": 2.0,
    "coil_gain": 0.035,
    "line_gain": 0.25,
    "noise_mismatch": 1.45,
    "spike": 15.0,
    "disorder": 1.1,
    "folded": 0.05,
    "noise_share": 0.1,
    "map_residual": 0.03,
    "own_residual": 0.035,
}
"""Limits that lie no nearer: scans of a benchmark have no other imperfections than those that it knows."""
LEAST_REACH = 0.1
"""How far clean scans go at least, in the logarithm of a measure from its median."""
NEARER = {"disorder": 0.08}
"""The same of measures that hardly vary: clean scans of Sunnybrook SCD2 and SCD3 stay well within, and a
drawn heart that breathes reaches 1.07."""
FARTHER = 1.25
"""Limits lie so many times as far as any good clean scan went."""
MOST = {"predicted_nmse": 1.25 * NMSE_TIMES, "likely_nmse": 1.25 * NMSE_TIMES}
"""Limits that lie no farther from the median, whatever clean scans do: an image beyond it is likely bad."""
LEAST = 19
"""Clean scans that limits can be made of."""
LEAST_REAL = 12
"""Real hearts that make limits, below which nothing is promised of a scanner's scans."""
RIDGE = 0.3


def measures_of(record: Record) -> Measures:
    """The measures that were kept of a case."""
    return Measures(**record["measures"])


def groups_of_record(record: Record) -> tuple[str, ...]:
    """Its groups of limits, the narrowest first.

    Drawn hearts have groups of their own, which no scanner's scan is in: their errors are another's.
    """
    pattern, _, rate = record["condition"].partition(" ")
    group = record.get("group", f"cine {rate}")
    groups = f"{group} {pattern}", group
    return groups if record["source"] == "real" else tuple(f"drawn {group}" for group in groups)


def make_limits(records: Iterable[Record], *, weights_sha256: str | None = None) -> Limits:
    """Limits and error model from the cases of some hearts.

    Parameters
    ----------
    records : iterable
        Clean ones make the limits, all of them the error model, and those within the limits its bounds.

    Raises
    ------
    DataError
        There are fewer than 19 clean scans.
    """
    made = [one for one in records if "measures" in one and one["measures"]["finite"]]
    usual = medians(made)
    clean = [one for one in made if one["kind"] == CLEAN and not is_bad(one, usual)]
    if len(clean) < LEAST:
        raise DataError(f"trust limits: found {len(clean)} good clean scans, expected at least {LEAST}")
    default, groups = _limits(clean)
    limits = Limits(
        default=default,
        groups=groups,
        weights_sha256=weights_sha256,
        hearts=tuple(
            f"{len({one['heart'] for one in clean if one['source'] == source})} {source} scans"
            for source in sorted({one["source"] for one in clean})
        ),
    )
    return with_bounds(limits, made)


def with_bounds(limits: Limits, records: Sequence[Record]) -> Limits:
    """The limits with an error model of these cases, whose bounds those within the limits make."""
    within = [one for one in records if _within(one, limits)]
    return dataclasses.replace(limits, errors=_bounded(_model(records), within))


def clean_record(scanned: Scanned) -> Record:
    """A scan of known quality as a case that nothing happened to."""
    return {
        "kind": CLEAN,
        "source": "drawn" if scanned.heart is None else "real",
        "heart": scanned.heart or "",
        "condition": scanned.condition,
        "group": scanned.group,
        "measures": dataclasses.asdict(scanned.measures),
        "truth": {"psnr": scanned.psnr, "ssim": scanned.ssim},
    }


def _within(record: Record, limits: Limits) -> bool:
    return judge(measures_of(record), limits.of(*groups_of_record(record))).verdict == "pass"


def _values(records: Sequence[Record], name: str) -> list[float]:
    found = [one["measures"].get(name) for one in records]
    return [max(float(value), FLOORS.get(name, 1e-6)) for value in found if value is not None]


def _limits(clean: Sequence[Record]) -> tuple[dict[str, Limit], dict[str, dict[str, Limit]]]:
    """Limits of everything, and by group."""
    by_group: dict[str, list[Record]] = defaultdict(list)
    for one in clean:
        by_group[groups_of_record(one)[0]].append(one)
    usual: dict[str, dict[str, float]] = {"": {}}
    for name in (one for one in MEASURES if one not in IN_OTHERS):
        values = _values(clean, name)
        if len(values) < LEAST:
            continue
        usual[""][name] = float(np.median(values))
        for group, some in by_group.items() if name in BY_GROUP else ():
            if own := _values(some, name):
                usual.setdefault(group, {})[name] = float(np.median(own))
    reach = _reach(clean, usual)
    of_real = reach | _reach([one for one in clean if one["source"] == "real"], usual)
    tables = {
        group: {name: _limit(name, value, math.exp(FARTHER * far[name])) for name, value in some.items()}
        for group, some in usual.items()
        for far in (reach if group.startswith(DRAWN) else of_real,)
    }
    default = tables.pop("")
    scanned = [some for group, some in tables.items() if not group.startswith(DRAWN)] or [*tables.values()]
    for name in BY_GROUP:  # sampling that nobody measured has the widest of these
        if found := [some[name] for some in scanned if name in some]:
            default[name] = max(found, key=lambda limit: limit.warn)
    return default, tables


def _reach(clean: Sequence[Record], usual: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How far any of the clean scans goes from what is usual, in the logarithm of each measure.

    Of measures that enough of them have: the limits of real scans are of real ones, where there are some.
    """
    found = {}
    for name in usual[""]:
        far = [
            math.log(values[0] / _usual_of(one, name, usual))
            for one in clean
            if (values := _values([one], name))
        ]
        if len(far) >= LEAST:
            found[name] = max(NEARER.get(name, LEAST_REACH), *far)
    return found


def _usual_of(record: Record, name: str, usual: Mapping[str, Mapping[str, float]]) -> float:
    return usual.get(groups_of_record(record)[0], {}).get(name, usual[""][name])


def _limit(name: str, typical: float, factor: float) -> Limit:
    default = DEFAULTS[name]
    warn = max(typical * min(factor, MOST.get(name, math.inf)), LEAST_WARN.get(name, 0.0))
    if name in NEVER_LOOSER:
        warn = min(warn, default.warn)
    fallback = max(default.fallback, 2 * warn) if math.isfinite(default.fallback) else math.inf
    if name in NEVER_LOOSER:
        fallback = max(warn, default.fallback)
    return Limit(typical=min(typical, warn), warn=warn, fallback=fallback)


def _errors(record: Record) -> tuple[float, float]:
    """log10 of both errors."""
    truth = record["truth"]
    return -truth["psnr"] / 10, math.log10(max(1 - truth["ssim"], 1e-6))


def _model(records: Sequence[Record]) -> ErrorModel:
    """Non-negative least squares with a little ridge, on what exceeds the lower end of clean scans."""
    clean = [one for one in records if one["kind"] == CLEAN]
    usual = {}
    for name in MEASURES:
        values = _values(clean, name)
        if len(values) >= LEAST:
            low = name in ("predicted_nmse", "moved", "likely_nmse", "heldout_share", "heldout_ratio")
            usual[name] = float(np.quantile(values, 0.02 if low else 0.75))
    empty = Line(start=0.0, slopes={}, spread=1.0)
    model = ErrorModel(usual=usual, lines={"psnr": empty, "ssim": empty}, level=BOUND_LEVEL)
    names = list(usual)
    excess = [model.excess(measures_of(one)) for one in records]
    table = np.array([[some.get(name, 0.0) for name in names] for some in excess])
    weight = np.array([1.0 if one["kind"] == CLEAN else 0.7 for one in records])
    errors = np.array([_errors(one) for one in records])
    lines = {
        target: _line(table, errors[:, place], weight, names) for place, target in enumerate(("psnr", "ssim"))
    }
    return dataclasses.replace(model, lines=lines)


def _line(
    table: NDArray[np.float64], errors: NDArray[np.float64], weight: NDArray[np.float64], names: list[str]
) -> Line:
    start = float(errors.min())
    columns = np.column_stack([np.ones(len(table)), table])
    ridge = math.sqrt(RIDGE) * np.eye(columns.shape[1])
    ridge[0] = 0
    system = np.vstack([columns * weight[:, None], ridge])
    wanted = np.concatenate([(errors - start) * weight, np.zeros(len(ridge))])
    found, _ = nnls(system, wanted)
    left = errors - start - columns @ found
    return Line(
        start=start + float(found[0]),
        slopes={name: float(slope) for name, slope in zip(names, found[1:], strict=True) if slope > 0},
        spread=float(left.std()) or 1.0,
    )


def residual(record: Record, model: ErrorModel) -> float:
    """The larger of both errors' residuals, in units of their spread."""
    expected = model.logarithms(measures_of(record))
    return max(
        (found - expected[target]) / model.lines[target].spread
        for target, found in zip(("psnr", "ssim"), _errors(record), strict=True)
    )


def _bounded(model: ErrorModel, records: Sequence[Record]) -> ErrorModel:
    """Quantiles by source and group. Scanners scan real hearts: where there are any, they make the bounds."""
    some_real = any(one["source"] == "real" for one in records)
    pools: dict[str, list[float]] = defaultdict(list)
    for one in records:
        left = residual(one, model)
        drawn = one["source"] == "drawn"
        everything = DRAWN if drawn and some_real else EVERYTHING
        for group in dict.fromkeys((*groups_of_record(one), everything, *([DRAWN] if drawn else []))):
            pools[group].append(left)
    quantiles = {
        group: quantile
        for group, values in pools.items()
        if math.isfinite(quantile := conformal_quantile(values, BOUND_LEVEL)) or group == EVERYTHING
    }
    return dataclasses.replace(model, quantiles=quantiles)


def folds(records: Sequence[Record], count: int = FOLDS) -> list[set[str]]:
    """Hearts in so many parts; scans of one real heart are one heart."""
    hearts = list(dict.fromkeys(_heart(one) for one in records))
    return [set(hearts[place::count]) for place in range(min(count, len(hearts)))]


def _heart(record: Record) -> str:
    return str(record["heart"]).partition(" #")[0]


def judged_apart(records: Sequence[Record]) -> list[Record]:
    """Every case with the verdict, doubt and bound of limits that other hearts made, nine tenths of all.

    Raises
    ------
    DataError
        There are too few clean scans.
    """
    done = {}
    for part in folds(records):
        limits = make_limits(one for one in records if _heart(one) not in part)
        for record in records:
            if _heart(record) in part:
                done[record["key"]] = judged(record, limits)
    return [done[record["key"]] for record in records]


def judged(record: Record, limits: Limits) -> Record:
    """A case with the verdict, doubt and bound of these limits; doubts that no limit decides stay."""
    if "measures" not in record:
        return dict(record)
    measures, groups = measures_of(record), groups_of_record(record)
    verdict = judge(measures, limits.of(*groups))
    said = verdict.verdict
    if said == "pass" and record.get("doubts"):
        said = "warn"
    bound = None
    if limits.errors is not None and verdict.verdict == "pass":
        bounds = (*groups, *([DRAWN] if record["source"] == "drawn" else []))
        bound = dataclasses.asdict(limits.errors.expect(measures, bounds))
    return {
        **record,
        "verdict": said,
        "reasons": [*verdict.reasons, *record.get("doubts", ())],
        "doubt": max(doubt(measures, limits.of(*groups)), 1.0 if record.get("doubts") else 0.0),
        "expected": bound,
    }

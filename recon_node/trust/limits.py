"""Limits of the measures: shipped defaults, and tables calibrated for given weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recon_node.core import durable
from recon_node.core.errors import WeightsError
from recon_node.trust.expected import ErrorModel, error_model
from recon_node.trust.measures import MEASURES

VERSION = 2
"""Written; 1, which knew no error model and fewer measures, is read as well."""
READABLE = (1, VERSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Where a measure is ordinary, doubtful and unacceptable."""

    typical: float
    """Median of the calibration set: score 1 up to here."""
    warn: float
    """Score 0.5 here; beyond it the verdict is at least ``warn``."""
    fallback: float
    """Score 0 here; beyond it the verdict is ``fallback``."""

    def score(self, value: float) -> float:
        """1 up to `typical`, falling linearly to 0.5 at `warn` and to 0 at `fallback`."""
        if value <= self.typical:
            return 1.0
        if value <= self.warn:
            return 1.0 - 0.5 * (value - self.typical) / (self.warn - self.typical)
        if value >= self.fallback:
            return 0.0
        if math.isinf(self.fallback):
            return 0.5 * self.warn / value
        return 0.5 * (self.fallback - value) / (self.fallback - self.warn)


DEFAULTS: Mapping[str, Limit] = MappingProxyType(
    {
        "heldout_ratio": Limit(typical=0.9, warn=1.1, fallback=1.6),
        "heldout_share": Limit(typical=0.8, warn=0.95, fallback=math.inf),
        "offgrid_ratio": Limit(typical=1.1, warn=1.3, fallback=2.0),
        "fit_ratio": Limit(typical=1.5, warn=4.0, fallback=10.0),
        "consistency": Limit(typical=0.15, warn=0.35, fallback=0.7),
        "consistency_noise": Limit(typical=1.2, warn=8.0, fallback=math.inf),
        "map_residual": Limit(typical=0.03, warn=0.1, fallback=0.5),
        "peak_ratio": Limit(typical=1.5, warn=2.5, fallback=6.0),
        "coil_gain": Limit(typical=0.1, warn=0.4, fallback=math.inf),
        "line_gain": Limit(typical=0.3, warn=1.0, fallback=math.inf),
        "noise_mismatch": Limit(typical=1.3, warn=3.0, fallback=math.inf),
        "spike": Limit(typical=10.0, warn=100.0, fallback=math.inf),
        "disorder": Limit(typical=1.05, warn=1.5, fallback=math.inf),
        "own_residual": Limit(typical=0.03, warn=0.2, fallback=math.inf),
        "predicted_nmse": Limit(typical=0.01, warn=0.1, fallback=math.inf),
        "moved": Limit(typical=0.01, warn=0.2, fallback=math.inf),
        "likely_nmse": Limit(typical=0.01, warn=0.1, fallback=math.inf),
        "folded": Limit(typical=0.02, warn=0.1, fallback=math.inf),
        "noise_share": Limit(typical=0.05, warn=0.3, fallback=math.inf),
    }
)
"""Used for weights without a calibration of their own.

A network has to predict held-out samples about as well as parallel imaging (ratio 1); 10 % worse is
doubtful, 60 % worse means that it invents structure. An image that predicts held-out samples hardly better
than an empty one (share 1) may be right, but nothing vouches for it. The others are wide: they catch coil
maps of another scan, a lost data consistency and intensities that cannot be, not fine differences.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits by group, for example ``cine 8x``, and those for everything else."""

    default: Mapping[str, Limit] = field(default_factory=lambda: DEFAULTS)
    groups: Mapping[str, Mapping[str, Limit]] = field(default_factory=dict)
    weak_patterns: frozenset[str] = frozenset()
    """Sampling at which these weights were measured below parallel imaging, by pattern or by pattern and
    acceleration (``uniform``, ``uniform 8x``): never ``pass``."""

    hearts: tuple[str, ...] = ()
    """Which hearts they were measured on, in words: ``84 drawn hearts``, ``12 real hearts (...)``."""
    weights_sha256: str | None = None
    """Of the weights these limits were measured with; None where it is not said."""
    errors: ErrorModel | None = None
    """What error a scan's measures lead to expect; None where nobody measured it."""

    def of(self, *groups: str) -> Mapping[str, Limit]:
        """Limits by measure of a scan in these groups, the narrowest first, and of the default."""
        found = {**DEFAULTS, **self.default}
        for group in reversed(groups):
            found |= self.groups.get(group, {})
        return found


def save_limits(limits: Limits, path: Path) -> None:
    """Write `limits` as JSON.

    Raises
    ------
    WeightsError
        If the file cannot be written.
    """
    table = {
        "version": VERSION,
        "weights_sha256": limits.weights_sha256,
        "hearts": list(limits.hearts),
        "default": _plain(limits.default),
        "weak_patterns": sorted(limits.weak_patterns),
        "groups": {group: _plain(entries) for group, entries in sorted(limits.groups.items())},
        "errors": None if limits.errors is None else limits.errors.as_dict(),
    }
    try:
        durable.write_text(path, json.dumps(table, indent=1) + "\n")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror})") from error


def load_limits(path: Path) -> Limits:
    """Read what `save_limits` wrote.

    Raises
    ------
    WeightsError
        If the file cannot be read, has another version, or names measures that do not exist.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["version"] not in READABLE:
            raise WeightsError(
                f"{path} has version {table['version']}, expected {' or '.join(map(str, READABLE))}"
            )
        errors = table.get("errors")
        return Limits(
            default=_entries(table["default"]),
            weak_patterns=frozenset(table.get("weak_patterns", ())),
            groups={group: _entries(entries) for group, entries in table["groups"].items()},
            weights_sha256=table.get("weights_sha256"),
            hearts=tuple(map(str, table.get("hearts", ()))),
            errors=None if errors is None else error_model(errors),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is no table of trust limits: {error!r}") from error


def _plain(entries: Mapping[str, Limit]) -> dict[str, list[float | None]]:
    return {
        name: [v if math.isfinite(v) else None for v in (one.typical, one.warn, one.fallback)]
        for name, one in entries.items()
    }


def _entries(table: Mapping[str, Any]) -> dict[str, Limit]:
    unknown = sorted(set(table) - set(MEASURES))
    if unknown:
        raise ValueError(f"unknown measures {', '.join(unknown)}")
    entries = {}
    for name, values in table.items():
        typical, warn, fallback = (math.inf if v is None else float(v) for v in values)
        if not 0 <= typical <= warn <= fallback:
            raise ValueError(f"limits of {name} are not in order: {values}")
        entries[name] = Limit(typical=typical, warn=warn, fallback=fallback)
    return entries

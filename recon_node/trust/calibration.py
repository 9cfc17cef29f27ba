"""Limits from a calibration set of reconstructions, by split conformal prediction.

The k-th smallest of n calibration values, ``k = ceil((n + 1) q)``, is exceeded by a new value of the same
kind with probability at most ``1 - q`` (Vovk et al. 2005; Lei et al. 2018). The promise holds on average over
a group, so limits are kept by modality and acceleration.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from recon_node.core.errors import ConfigError
from recon_node.core.types import Prompts, Sampling
from recon_node.trust.limits import DEFAULTS, Limit, Limits
from recon_node.trust.measures import MEASURES, Measures
from recon_node.trust.novelty import words_of

_ABSOLUTE = ("heldout_ratio", "offgrid_ratio")
"""Measures against parallel imaging: worse than that is worse, however common among the calibration set."""
_OF_THE_HEART = ("consistency", "map_residual", "peak_ratio")
"""Measures that hardly depend on the acceleration: one limit, of all groups together."""


def group_of(prompts: Prompts) -> str:
    """Group of a scan: its modality and acceleration in the words of the prompts, ``cine 8x``."""
    words = words_of(prompts)
    return f"{words.get('modality', 'unknown')} {words.get('acceleration', 'unknown')}"


def groups_of(prompts: Prompts, sampling: Sampling) -> tuple[str, str]:
    """Groups of a scan, the narrowest first: ``cine 8x uniform``, ``cine 8x``."""
    group = group_of(prompts)
    return f"{group} {sampling.pattern}", group


def conformal_quantile(values: Sequence[float], level: float) -> float:
    """Upper limit that a new value of the same kind exceeds with probability at most ``1 - level``.

    Infinite where there are too few values for the level: fewer than ``level / (1 - level)``.

    >>> conformal_quantile([1, 2, 3, 4, 5, 6, 7, 8, 9], 0.5)
    5
    """
    rank = math.ceil((len(values) + 1) * level - 1e-9)
    return math.inf if rank > len(values) else sorted(values)[rank - 1]


def calibrate(
    measured: Iterable[tuple[str, Measures]],
    *,
    warn_level: float = 0.95,
    pooled_level: float = 0.98,
    fallback_level: float = 0.99,
    slack: float = 1.25,
) -> Limits:
    """Limits from reconstructions that are known to be good.

    Parameters
    ----------
    measured : iterable of (group, Measures)
        Held-out scans, never trained on, with their group (`group_of`). Every one another heart: several
        scans of one heart have the same coil maps, and promise less than as many hearts.
    warn_level, fallback_level : float
        Shares of good reconstructions that should stay within the limits.
    pooled_level : float
        The same as `warn_level` for the measures of which all groups share one limit, where there are scans
        enough: several measures are looked at, and one of them beyond its limit is a warning.
    slack : float
        The fallback limit is this factor beyond its quantile: withholding an image needs more than being
        among the worst of the good ones.

    Returns
    -------
    Limits
        A group with too few scans for `warn_level` (19 at 0.95) has no limits of its own and takes those
        of all groups together; a fallback limit that cannot be had from the data is the default one, or twice
        the warning limit if that is larger. Measures against parallel imaging keep their default limits
        where the data would loosen them.

    Raises
    ------
    ConfigError
        If the levels are not ``0 < warn_level <= pooled_level <= fallback_level < 1``, the slack is below 1,
        or there are too few scans altogether.
    """
    if not (0 < warn_level <= pooled_level <= fallback_level < 1 and slack >= 1):
        raise ConfigError(
            f"trust calibration: levels {warn_level}, {pooled_level} and {fallback_level}, slack {slack}; "
            "expected 0 < warn <= pooled <= fallback < 1 and a slack of at least 1"
        )
    pooled: dict[str, list[float]] = defaultdict(list)
    grouped: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, measures in measured:
        for name in MEASURES:
            value = getattr(measures, name)
            if value is not None and math.isfinite(value):
                pooled[name].append(value)
                grouped[group][name].append(value)
    levels = (warn_level, fallback_level, slack)
    shared = {name: pooled[name] for name in _OF_THE_HEART if name in pooled}
    default = {**_limits(pooled, levels), **_limits(shared, (pooled_level, fallback_level, slack))}
    if not default:
        most = max((len(values) for values in pooled.values()), default=0)
        raise ConfigError(
            f"trust calibration: {most} scans are too few for a level of {warn_level}, expected at least "
            f"{math.ceil(warn_level / (1 - warn_level) - 1e-9)}"
        )
    groups = {}
    for group, values in grouped.items():
        own = {name: some for name, some in values.items() if name not in _OF_THE_HEART}
        if found := _limits(own, levels):
            groups[group] = found
    return Limits(default=default, groups=groups)


def _limits(values: Mapping[str, Sequence[float]], levels: tuple[float, float, float]) -> dict[str, Limit]:
    warn_level, fallback_level, slack = levels
    limits = {}
    for name, some in values.items():
        warn = conformal_quantile(some, warn_level)
        if math.isinf(warn):
            continue
        far = conformal_quantile(some, fallback_level)
        fallback = max(DEFAULTS[name].fallback, 2 * warn) if math.isinf(far) else slack * max(far, warn)
        if name in _ABSOLUTE:
            warn, fallback = min(warn, DEFAULTS[name].warn), min(fallback, DEFAULTS[name].fallback)
        typical = sorted(some)[len(some) // 2]
        limits[name] = Limit(typical=min(typical, warn), warn=warn, fallback=fallback)
    return limits

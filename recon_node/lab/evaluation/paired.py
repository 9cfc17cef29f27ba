"""Differences of two ways to do the same on the same hearts, and of two groups of hearts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu, t, wilcoxon

from recon_node.core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean difference, how sure it is, and whether it is one at all."""

    mean: float
    low: float
    """Of the 95 % confidence interval of the mean (Student's t; of two groups Welch's)."""
    high: float
    p: float
    """Two-sided: Wilcoxon's signed-rank test of pairs, Mann and Whitney's of two groups."""
    count: int
    """Pairs, or cases of the smaller group."""
    wins: int
    """Pairs with a positive difference; 0 of two groups."""


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """`ours` minus `theirs`, case by case.

    Raises
    ------
    DataError
        Different numbers of cases, or fewer than two.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size < 2:
        raise DataError(f"a paired test needs two rows of at least two cases, found {a.shape} and {b.shape}")
    gains = a - b
    half = float(t.ppf(0.975, a.size - 1) * gains.std(ddof=1) / np.sqrt(a.size))
    mean = float(gains.mean())
    return Difference(
        mean=mean,
        low=mean - half,
        high=mean + half,
        p=float(wilcoxon(gains).pvalue) if np.any(gains) else 1.0,
        count=int(a.size),
        wins=int((gains > 0).sum()),
    )


def between(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Mean of one group of cases minus that of another.

    Raises
    ------
    DataError
        A group has fewer than two cases.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if min(a.size, b.size) < 2:
        raise DataError(f"two groups of at least two cases are needed, found {a.size} and {b.size}")
    parts = [float(x.var(ddof=1)) / x.size for x in (a, b)]
    error = float(np.sqrt(sum(parts)))
    mean = float(a.mean() - b.mean())
    half = 0.0
    if error > 0:
        freedom = sum(parts) ** 2 / sum(v**2 / (x.size - 1) for v, x in zip(parts, (a, b), strict=True))
        half = float(t.ppf(0.975, freedom) * error)
    return Difference(
        mean=mean,
        low=mean - half,
        high=mean + half,
        p=float(mannwhitneyu(a, b).pvalue),
        count=int(min(a.size, b.size)),
        wins=0,
    )


def holm(values: Sequence[float]) -> list[float]:
    """P values of several tests together (Holm, Scand J Stat 6:65, 1979)."""
    p = np.asarray(values, np.float64)
    order = np.argsort(p)
    raised = np.maximum.accumulate(np.minimum(1.0, p[order] * (p.size - np.arange(p.size))))
    found = np.empty_like(raised)
    found[order] = raised
    return [float(value) for value in found]

"""Comparing methods over many scans: tables by condition, and paired tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from recon_node.core.errors import DataError
from recon_node.lab.evaluation.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One method on one scan."""

    scan: str
    """Identifies the scan, so that methods are compared on the same ones."""
    condition: str
    """For example ``random 8x``."""
    method: str
    metrics: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method under one condition."""

    condition: str
    method: str
    scans: int
    psnr: float
    """Mean, dB."""
    psnr_sd: float
    """Standard deviation over scans, dB (0 for one scan)."""
    ssim: float
    nmse: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One method against another on the same scans."""

    gain_db: float
    """Mean PSNR of the one minus that of the other."""
    p: float
    """Two-sided Wilcoxon signed-rank test on the PSNR of each scan (Wilcoxon 1945)."""
    scans: int
    wins: int
    """Scans on which the one had the higher PSNR."""


def table(results: Iterable[Result]) -> list[Row]:
    """Means by condition and method, in the order they first appear."""
    groups: dict[tuple[str, str], list[Metrics]] = defaultdict(list)
    for result in results:
        groups[result.condition, result.method].append(result.metrics)
    return [
        Row(
            condition=condition,
            method=method,
            scans=len(some),
            psnr=float(np.mean([m.psnr for m in some])),
            psnr_sd=float(np.std([m.psnr for m in some], ddof=1)) if len(some) > 1 else 0.0,
            ssim=float(np.mean([m.ssim for m in some])),
            nmse=float(np.mean([m.nmse for m in some])),
        )
        for (condition, method), some in groups.items()
    ]


def compare(
    results: Sequence[Result], method: str, other: str, *, condition: str | None = None
) -> Comparison:
    """`method` against `other` on the scans that both reconstructed.

    Raises
    ------
    DataError
        If they share fewer than two scans.
    """
    psnr: dict[str, dict[tuple[str, str], float]] = {method: {}, other: {}}
    for result in results:
        if result.method in psnr and condition in (None, result.condition):
            psnr[result.method][result.scan, result.condition] = result.metrics.psnr
    shared = sorted(psnr[method].keys() & psnr[other].keys())
    if len(shared) < 2:
        raise DataError(f"{method} and {other} share {len(shared)} scans, expected at least 2")
    gains = np.array([psnr[method][scan] - psnr[other][scan] for scan in shared])
    return Comparison(
        gain_db=float(gains.mean()),
        p=float(wilcoxon(gains).pvalue) if np.any(gains) else 1.0,
        scans=len(shared),
        wins=int((gains > 0).sum()),
    )

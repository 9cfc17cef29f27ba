"""How well doubts tell bad images from good ones: strata, AUROC, and what verdicts let through."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from recon_node.lab.failures.beside import BESIDE
from recon_node.lab.failures.kinds import CLEAN
from recon_node.lab.failures.run import Record

SSIM_LOST = 0.05
"""Below the median of its stratum by more than this, an image is bad."""
NMSE_TIMES = 2.0
"""Above the median of its stratum by more than this factor, too."""
Stratum = tuple[str, str]
"""Source and condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRow:
    """What became of one kind; AUROCs against the good clean images, None where none of the kind is bad."""

    kind: str
    cases: int
    refused: int
    """By the node itself, before there was an image."""
    bad: int
    auroc: float | None
    """Of the node's own doubt."""
    warned: float | None
    """Share of the bad that were warned of or withheld."""
    passed_bad: int
    others: Mapping[str, float | None]
    """AUROC of the other measures, on those of the cases they were taken on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The whole benchmark in figures."""

    cases: int
    bad: int
    auroc: float | None
    """All bad images against the good clean ones."""
    auroc_all_good: float | None
    """All bad images against all good ones, those of scans that something happened to as well."""
    clean_warned: Mapping[str, float | None]
    """Share of good clean images warned of or withheld, by source."""
    passed: int
    passed_bad: int
    others: Mapping[str, float | None]
    same_cases: float | None
    """AUROC of the node's own doubt on the cases that the others were taken on."""
    cost: Mapping[str, float]
    """CPU seconds of each measure over those of the reconstruction."""
    rows: tuple[KindRow, ...]


def stratum(record: Record) -> Stratum:
    """Of a case."""
    return record["source"], record["condition"]


def medians(records: Sequence[Record]) -> dict[Stratum, dict[str, float]]:
    """Median SSIM and NMSE of the clean images of each stratum."""
    found: dict[Stratum, list[Mapping[str, float]]] = defaultdict(list)
    for one in records:
        if one["kind"] == CLEAN and "truth" in one:
            found[stratum(one)].append(one["truth"])
    return {
        key: {name: float(np.median([truth[name] for truth in some])) for name in ("ssim", "nmse")}
        for key, some in found.items()
    }


def is_bad(record: Record, usual: Mapping[Stratum, Mapping[str, float]]) -> bool:
    """Whether the image of a case is bad; a refused scan has none, and is not."""
    if "truth" not in record or stratum(record) not in usual:
        return False
    own, truth = usual[stratum(record)], record["truth"]
    lost = truth["ssim"] < own["ssim"] - SSIM_LOST or truth["nmse"] > NMSE_TIMES * own["nmse"]
    return bool(lost or not math.isfinite(truth["ssim"] + truth["nmse"]))


def auroc(bad: Sequence[float], good: Sequence[float]) -> float | None:
    """Probability that a bad case is doubted more than a good one, ties half (Mann and Whitney 1947).

    >>> auroc([2, 3], [1, 2])
    0.875
    """
    if not bad or not good:
        return None
    ranks = rankdata([*bad, *good])
    return float((ranks[: len(bad)].sum() - len(bad) * (len(bad) + 1) / 2) / (len(bad) * len(good)))


def summarise(records: Sequence[Record], doubt: Callable[[Record], float]) -> Summary:
    """Figures of a finished run.

    Parameters
    ----------
    records : sequence
        With the verdict of the limits under test in ``verdict``.
    doubt : callable
        The node's own doubt of a case, larger where it doubts more.
    """
    usual = medians(records)
    made = [one for one in records if "truth" in one]
    bad = [one for one in made if is_bad(one, usual)]
    good = [one for one in made if not is_bad(one, usual)]
    clean = [one for one in good if one["kind"] == CLEAN]
    passed = [one for one in made if one["verdict"] == "pass"]
    both = [one for one in made if "beside" in one]
    return Summary(
        cases=len(records),
        bad=len(bad),
        auroc=auroc(list(map(doubt, bad)), list(map(doubt, clean))),
        auroc_all_good=auroc(list(map(doubt, bad)), list(map(doubt, good))),
        clean_warned={
            source: _share([one for one in clean if one["source"] == source], _doubted)
            for source in sorted({one["source"] for one in clean})
        },
        passed=len(passed),
        passed_bad=sum(is_bad(one, usual) for one in passed),
        others=_others(both, usual),
        same_cases=_split(both, usual, doubt),
        cost=_cost(made),
        rows=tuple(
            _row([one for one in records if one["kind"] == kind], kind, usual, clean, doubt)
            for kind in dict.fromkeys(one["kind"] for one in records)
        ),
    )


def _doubted(record: Record) -> bool:
    return bool(record["verdict"] != "pass")


def _share(records: Sequence[Record], asked: Callable[[Record], bool]) -> float | None:
    return sum(map(asked, records)) / len(records) if records else None


def _row(
    records: Sequence[Record],
    kind: str,
    usual: Mapping[Stratum, Mapping[str, float]],
    clean: Sequence[Record],
    doubt: Callable[[Record], float],
) -> KindRow:
    bad = [one for one in records if is_bad(one, usual)]
    looked = [one for one in [*bad, *clean] if "beside" in one]
    return KindRow(
        kind=kind,
        cases=len(records),
        refused=sum("refused" in one for one in records),
        bad=len(bad),
        auroc=auroc(list(map(doubt, bad)), list(map(doubt, clean))),
        warned=_share(bad, _doubted),
        passed_bad=sum(not _doubted(one) for one in bad),
        others=_others(looked, usual),
    )


def _others(
    records: Sequence[Record], usual: Mapping[Stratum, Mapping[str, float]]
) -> dict[str, float | None]:
    found = {}
    for name in BESIDE:
        some = [one for one in records if name in one["beside"]]
        found[name] = _split(some, usual, lambda one, name=name: float(one["beside"][name]["value"]))  # type: ignore[misc]
    return found


def _split(
    records: Sequence[Record],
    usual: Mapping[Stratum, Mapping[str, float]],
    doubt: Callable[[Record], float],
) -> float | None:
    """AUROC of bad cases against good clean ones."""
    bad = [doubt(one) for one in records if is_bad(one, usual)]
    good = [doubt(one) for one in records if one["kind"] == CLEAN and not is_bad(one, usual)]
    return auroc(bad, good)


def _cost(records: Sequence[Record]) -> dict[str, float]:
    whole = sum(one["seconds"]["reconstruction"] for one in records)
    if whole <= 0:
        return {}
    found = {"hold-out and residuals": sum(one["seconds"]["trust"] for one in records) / whole}
    for name in BESIDE:
        some = [one for one in records if name in one.get("beside", {})]
        base = sum(one["seconds"]["reconstruction"] for one in some)
        if base > 0:
            found[name] = sum(one["beside"][name]["seconds"] for one in some) / base
    return found

"""What readers' scores say of methods: means, paired tests, preferences, and how far readers agree."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, wilcoxon

from recon_node.core.errors import DataError
from recon_node.lab.readers.export import COLUMNS

SCORES = (1, 2, 3, 4, 5)
PREFERENCES = ("left", "right", "same")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One reader on one pair."""

    reader: str
    pair: str
    left: int
    right: int
    preferred: str


def read_scores(paths: Sequence[Path]) -> list[Score]:
    """The filled-in tables of one or more readers; rows without scores are left out.

    Raises
    ------
    DataError
        A file cannot be read, lacks a column, or holds a score or a preference that is none.
    """
    found = []
    for path in paths:
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: the scores cannot be read ({error})") from error
        missing = [name for name in COLUMNS[:-1] if rows and name not in rows[0]]
        if missing or not rows:
            raise DataError(
                f"{path}: found no {', '.join(missing) or 'rows'}, expected the columns of scores.csv"
            )
        found += [
            _score(row, f"{path}, line {number}", path.stem)
            for number, row in enumerate(rows, start=2)
            if (row["left"] or "").strip() or (row["right"] or "").strip()
        ]
    if not found:
        raise DataError("reader study: found no scores in the tables, expected numbers from 1 to 5")
    return found


def _score(row: Mapping[str, Any], where: str, stem: str) -> Score:
    sides = [str(row[side] or "").strip() for side in ("left", "right")]
    preferred = str(row["preferred"] or "").strip().lower() or "same"
    if not all(side in map(str, SCORES) for side in sides) or preferred not in PREFERENCES:
        raise DataError(
            f"{where}: found {sides[0]!r}, {sides[1]!r} and {preferred!r}, expected two scores from 1 to 5 "
            "and left, right or same"
        )
    reader = str(row["reader"] or "").strip() or stem
    return Score(
        reader=reader,
        pair=str(row["pair"]).strip().zfill(3),
        left=int(sides[0]),
        right=int(sides[1]),
        preferred=preferred,
    )


def read_key(path: Path) -> dict[str, dict[str, Any]]:
    """The key of a study by pair.

    Raises
    ------
    DataError
        The file cannot be read, or is no key.
    """
    try:
        return {str(entry["pair"]): dict(entry) for entry in json.loads(path.read_text("utf-8"))["pairs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: this is no key of a reader study ({error!r})") from error


def reader_statistics(scores: Sequence[Score], key: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Methods by their scores, and readers by their agreement.

    Repeated pairs count for agreement only.

    Returns
    -------
    dict
        ``methods``: mean, standard deviation and number of scores; ``comparisons`` of every two methods: mean
        difference, two-sided Wilcoxon signed-rank test over pairs (readers averaged), preferences with a
        two-sided sign test; ``agreement``: quadratically weighted kappa of every two readers, and of each
        reader with himself on repeated pairs. JSON-able; None where there is too little to tell.

    Raises
    ------
    DataError
        A pair that the key does not know.
    """
    unknown = sorted({one.pair for one in scores} - set(key))
    if unknown:
        raise DataError(f"reader study: found scores of pair {unknown[0]}, expected pairs of the key")
    first = [one for one in scores if key[one.pair]["repeats"] is None]
    return {
        "readers": sorted({one.reader for one in scores}),
        "methods": _methods(first, key),
        "comparisons": _comparisons(first, key),
        "agreement": {"between": _between(first), "within": _within(scores, key)},
    }


def _methods(scores: Sequence[Score], key: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    values: dict[str, list[int]] = defaultdict(list)
    for one in scores:
        values[key[one.pair]["left"]].append(one.left)
        values[key[one.pair]["right"]].append(one.right)
    return [
        {
            "method": method,
            "scores": len(some),
            "mean": float(np.mean(some)),
            "sd": float(np.std(some, ddof=1)) if len(some) > 1 else 0.0,
        }
        for method, some in sorted(values.items())
    ]


def _comparisons(scores: Sequence[Score], key: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    gains: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    chosen: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in scores:
        left, right = key[one.pair]["left"], key[one.pair]["right"]
        sign = 1 if left < right else -1
        pair = (left, right) if sign == 1 else (right, left)
        gains[pair][one.pair].append(sign * (one.left - one.right))
        chosen[pair].append(sign * {"left": 1, "right": -1, "same": 0}[one.preferred])
    found = []
    for pair, by_pair in sorted(gains.items()):
        means = np.array([np.mean(some) for some in by_pair.values()])
        wins, losses = chosen[pair].count(1), chosen[pair].count(-1)
        found.append(
            {
                "method": pair[0],
                "other": pair[1],
                "pairs": len(means),
                "mean_difference": float(means.mean()),
                "p": float(wilcoxon(means).pvalue) if np.count_nonzero(means) else None,
                "preferred": wins,
                "other_preferred": losses,
                "same": chosen[pair].count(0),
                "p_preference": float(binomtest(wins, wins + losses).pvalue) if wins + losses else None,
            }
        )
    return found


def _between(scores: Sequence[Score]) -> list[dict[str, Any]]:
    by_reader: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for one in scores:
        by_reader[one.reader] |= {(one.pair, "left"): one.left, (one.pair, "right"): one.right}
    readers = sorted(by_reader)
    found = []
    for place, reader in enumerate(readers):
        for other in readers[place + 1 :]:
            shared = sorted(set(by_reader[reader]) & set(by_reader[other]))
            kappa = weighted_kappa(
                [by_reader[reader][one] for one in shared], [by_reader[other][one] for one in shared]
            )
            found.append({"reader": reader, "other": other, "images": len(shared), "kappa": kappa})
    return found


def _within(scores: Sequence[Score], key: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_place = {(one.reader, one.pair): one for one in scores}
    once: dict[str, list[int]] = defaultdict(list)
    again: dict[str, list[int]] = defaultdict(list)
    for one in scores:
        before = by_place.get((one.reader, str(key[one.pair]["repeats"])))
        if before is None:
            continue
        same = key[one.pair]["left"] == key[before.pair]["left"]
        once[one.reader] += [before.left, before.right]
        again[one.reader] += [one.left, one.right] if same else [one.right, one.left]
    return [
        {"reader": reader, "images": len(some), "kappa": weighted_kappa(some, again[reader])}
        for reader, some in sorted(once.items())
    ]


def weighted_kappa(one: Sequence[int], other: Sequence[int]) -> float | None:
    """Agreement of two rows of scores beyond chance, disagreement weighted by its square (Cohen 1968).

    Returns
    -------
    float or None
        1 for full agreement, 0 for chance; None for no scores, or none that differ.
    """
    if not one or len(one) != len(other):
        return None
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    by_chance = float(np.square(a[:, None] - b[None]).mean())
    return None if by_chance == 0 else 1 - float(np.square(a - b).mean()) / by_chance

"""Pairs of images for readers: the same heart by two methods, in random order under neutral names.

What readers get lies in one folder, the key to it in a file beside that folder, so that the folder can be
handed on without the key. Some pairs come twice, sides exchanged at random, to tell how far a reader agrees
with himself.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon_node.core import durable
from recon_node.core.errors import ConfigError, DataError
from recon_node.report import SIDES, write_pairs

KEY = "key.json"
FOLDER = "pairs"
COLUMNS = ("reader", "pair", "left", "right", "preferred", "remark")
"""Of the readers' table: scores 1 (not diagnostic) to 5 (excellent), preferred left, right or same."""
WHITE = 0.995
"""Quantile of the brightest method's image that is shown white, in both images of a pair."""
LONGEST = 512
"""Pixels of the longer side of a picture, at least."""
FRAME_MS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """One heart under one condition by one method."""

    heart: str
    condition: str
    method: str
    images: NDArray[np.complexfloating[Any, Any]]
    """`(phase, y, x)`, only magnitudes count."""


def export_pairs(
    shown: Iterable[Shown], out: Path, *, repeats: float = 0.1, seed: int = 0
) -> list[dict[str, Any]]:
    """Write every pair of methods of every heart and condition.

    Parameters
    ----------
    shown : iterable of Shown
        Two or more methods of the same hearts and conditions.
    out : Path
        Gets ``pairs/`` (for readers: a page, pictures, the table to fill in) and ``key.json`` (not for them).
    repeats : float
        Share of the pairs that come a second time, 0 to 1.
    seed : int
        Of order, sides and repeats.

    Returns
    -------
    list of dict
        The key: pair, heart, condition, left, right, and which pair it repeats.

    Raises
    ------
    ConfigError
        The share of repeats is out of range.
    DataError
        There is no pair, images of a pair differ in shape, or hold no signal.
    """
    if not 0 <= repeats <= 1:
        raise ConfigError(f"reader study: repeats is {repeats}, expected a share from 0 to 1")
    pairs = _pairs(shown)
    rng = np.random.default_rng(seed)
    order = [int(place) for place in rng.permutation(len(pairs))]
    again = [int(place) for place in rng.permutation(len(pairs))[: round(repeats * len(pairs))]]
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    key: list[dict[str, Any]] = []
    names: dict[int, str] = {}
    for number, place in enumerate([*order, *again], start=1):
        name, sides = f"{number:03d}", list(pairs[place])
        if rng.integers(2):
            sides.reverse()
        _write_pictures(folder, name, sides)
        left, right = sides
        entry = {"pair": name, "heart": left.heart, "condition": left.condition}
        key.append({**entry, "left": left.method, "right": right.method, "repeats": names.get(place)})
        names.setdefault(place, name)
    durable.write_text(out / KEY, json.dumps({"seed": seed, "pairs": key}, indent=1) + "\n")
    durable.write_text(folder / "scores.csv", _table([entry["pair"] for entry in key]))
    write_pairs(folder / "index.html", [entry["pair"] for entry in key])
    return key


def _pairs(shown: Iterable[Shown]) -> list[tuple[Shown, Shown]]:
    cases: dict[tuple[str, str], list[Shown]] = {}
    for one in shown:
        cases.setdefault((one.heart, one.condition), []).append(one)
    pairs = [pair for some in cases.values() for pair in itertools.combinations(some, 2)]
    if not pairs:
        raise DataError("reader study: found no heart with images of two methods, expected at least one")
    for one, other in pairs:
        if one.images.shape != other.images.shape or one.images.ndim != 3:
            raise DataError(
                f"reader study: {one.heart} has images {one.images.shape} by {one.method} and "
                f"{other.images.shape} by {other.method}, expected the same (phase, y, x)"
            )
    return pairs


def _write_pictures(folder: Path, name: str, sides: list[Shown]) -> None:
    """A still and a moving picture of each side, with one window for both."""
    top = max(float(np.quantile(np.abs(one.images), WHITE)) for one in sides)
    if not (np.isfinite(top) and top > 0):
        raise DataError(f"reader study: images of {sides[0].heart} hold no signal")
    for side, one in zip(SIDES, sides, strict=True):
        frames = [_picture(frame, top) for frame in np.abs(one.images)]
        frames[0].save(folder / f"{name}-{side}.png")
        frames[0].save(
            folder / f"{name}-{side}-cine.png",
            save_all=True,
            append_images=frames[1:],
            duration=FRAME_MS,
            loop=0,
        )


def _picture(frame: NDArray[np.floating[Any]], top: float) -> Image.Image:
    grey = np.clip(255 * frame / top, 0, 255).astype(np.uint8)
    times = max(1, -(-LONGEST // max(grey.shape)))
    size = (grey.shape[1] * times, grey.shape[0] * times)
    return Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)


def _table(names: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["", name, "", "", "", ""] for name in names)
    return text.getvalue()

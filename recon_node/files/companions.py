"""What lies beside k-space in public data sets: descriptions to be read, arrays that are no k-space."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from recon_node.core.errors import SourceError

MOST_BYTES = 1 << 20
_UNIT = re.compile(r"\(.*?\)|\[.*?\]")
_NOT_KSPACE = (
    (re.compile(r"mask", re.IGNORECASE), "a sampling mask or a segmentation"),
    (re.compile(r"coil_?map|csm|sens(itivit|e?_?map)|smap|espirit", re.IGNORECASE), "coil maps"),
    (re.compile(r"seg(ment|_|$)|label", re.IGNORECASE), "a segmentation"),
    (re.compile(r"^(img|image|recon|rss|im)(_|\d|$)|reconstruction", re.IGNORECASE), "images"),
)


def what_it_is(name: str) -> str | None:
    """What an array of this name is, where that is no k-space."""
    return next((what for pattern, what in _NOT_KSPACE if pattern.search(name)), None)


def read_table(path: Path) -> dict[str, str]:
    """Parameters of a ``.csv`` file by name, in lower case, without units and blanks.

    One parameter a row, name and value, with or without a title row; or names in the first row and values in
    the second.

    Raises
    ------
    SourceError
        The file cannot be read, or is no such table.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SourceError(f"{path.name}: a table of over {MOST_BYTES} bytes describes no scan")
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise SourceError(f"{path.name}: cannot be read ({error.strerror})") from error
    rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    if len(rows) == 2 and len(rows[0]) > 2:
        rows = [list(pair) for pair in zip(*rows, strict=False)]
    return {_plain(row[0]): row[1].strip() for row in rows if len(row) > 1 and row[1].strip()}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9_]", "", _UNIT.sub("", name).lower())


def number(table: Mapping[str, str], name: str) -> float | None:
    """A positive number of a table; None where it is absent, blank or none."""
    try:
        value = float(table.get(name, ""))
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def numbers(table: Mapping[str, str], name: str) -> tuple[float, ...]:
    """Numbers separated by semicolons or blanks; empty where one of them is none."""
    try:
        return tuple(float(part) for part in re.split(r"[;\s]+", table.get(name, "").strip("[]{}")) if part)
    except ValueError:
        return ()

"""A page of moving pictures side by side, for readers who are not to know which is which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recon_node.report.render import render

SIDES = ("left", "right")


def write_pairs(path: Path, names: Sequence[str]) -> None:
    """Write the page; of each pair it shows ``NAME-left-cine.png`` and ``NAME-right-cine.png`` beside it."""
    render(path, "pairs.html", script="overview.js", names=names, sides=SIDES)

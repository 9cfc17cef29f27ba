"""A warning on the picture itself, where the verdict is not "pass"."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from recon_node.core.types import Verdict

_WORDS = {"warn": "WARNING", "fallback": "FALLBACK"}
_MARGIN = 2


def warning_text(verdict: Verdict | None) -> str | None:
    """What to write on the picture; None where the verdict is "pass" or there is none."""
    if verdict is None or verdict.verdict == "pass":
        return None
    return f"{_WORDS[verdict.verdict]} trust {verdict.score:.2f}"


def text_mask(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """`(y, x)` bool, True where `text` is, at the lower left; what does not fit is cut off."""
    picture = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "1"
    font = ImageFont.load_default()
    bottom = draw.textbbox((0, 0), text, font=font)[3]
    draw.text((_MARGIN, max(shape[0] - bottom - _MARGIN, 0)), text, fill=1, font=font)
    return np.array(picture, dtype=np.bool_)


def burnt_in(pixels: NDArray[np.uint16], mask: NDArray[np.bool_], value: int) -> NDArray[np.uint16]:
    """A copy of `pixels` `(phase, y, x)` with the text in `value` on a black ground."""
    marked = pixels.copy()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size:
        top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
        marked[:, top : rows[-1] + 2, left : columns[-1] + 2] = 0
        marked[:, mask] = value
    return marked


def add_overlay(ds: Dataset, mask: NDArray[np.bool_], text: str) -> None:
    """Overlay Plane module (PS3.3 C.9.2): graphics in group 6000, one bit a pixel."""
    bits = np.packbits(mask, axis=None, bitorder="little").tobytes()
    ds.add_new(0x60000010, "US", mask.shape[0])
    ds.add_new(0x60000011, "US", mask.shape[1])
    ds.add_new(0x60000022, "LO", text)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 1)
    ds.add_new(0x60000102, "US", 0)
    ds.add_new(0x60003000, "OW", bits + b"\x00" * (len(bits) % 2))

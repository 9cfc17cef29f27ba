"""The moving pictures of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recon_node.lab.evaluation import pictures
from recon_node.lab.evaluation.sections import Panel, text

Ranges = tuple[slice, slice]

_TILE = 300
_AIR = 0.06
_ZOOM = 2.4
_WHITE = 0.995
"""Share of the enlarged part's pixels below its full brightness."""


def cine(
    panels: Sequence[Panel],
    with_errors: bool,
    frame_ms: float,
    gain: float,
    focus: tuple[int, int] | None = None,
) -> str:
    """All methods moving in step (one picture: they cannot drift apart); enlarged, and errors below."""
    whole = _occupied(panels[0].image)
    tile = _tile(whole, max(160, min(_TILE, 1560 // len(panels))))

    def moving_tile(levels: NDArray[np.uint8], part: Ranges) -> pictures.Bytes:
        return pictures.resized(levels[(slice(None), *part)], tile)

    levels = [pictures.grey(p.image, top=1.0) for p in panels]
    rows: list[list[pictures.Bytes | None]] = [[moving_tile(level, whole) for level in levels]]
    if focus is not None:
        part = _around(focus, whole)
        top = float(np.quantile(panels[0].image[(slice(None), *part)], _WHITE)) or 1.0
        rows.append([moving_tile(pictures.grey(p.image, top=top), part) for p in panels])
    if with_errors:
        errors = [pictures.heat(np.abs(p.image - panels[0].image), top=1 / gain) for p in panels[1:]]
        rows.append([None, *(moving_tile(error, whole) for error in errors)])
    moving = pictures.animation(pictures.mosaic(rows), frame_ms=round(frame_ms))
    heads = "".join(
        f'<div style="--c:{p.colour}"><b>{text(p.name)}</b><span>{_quality_line(p)}</span></div>'
        for p in panels
    )
    legend = (
        f'<div class="scale" style="width:{100 / len(panels):.2f}%"><b>absolute error x{gain:g}</b><i></i>'
        f"<span>0 to {100 / gain:g} % of full brightness</span></div>"
        if with_errors
        else ""
    )
    enlarged = "" if focus is None else ", the heart enlarged below"
    return (
        f"<section><h2>Cine<small>{len(panels[0].image)} phases, {frame_ms:.0f} ms each, one grey scale a "
        f"row{enlarged}</small></h2>"
        f'<div class="cols" style="grid-template-columns:repeat({len(panels)},1fr)">'
        f'{heads}</div><div class="cine"><img alt="moving images of every method, error maps below" '
        f'src="{moving}">{legend}</div></section>'
    )


def _occupied(image: NDArray[np.float32]) -> Ranges:
    """Rows and columns of `(phase, y, x)` that hold anything but air, with a margin."""
    seen = image.max(axis=0) > _AIR
    found = []
    for axis in (1, 0):
        where = np.flatnonzero(seen.any(axis=axis))
        size = seen.shape[1 - axis]
        margin = size // 20
        found.append(slice(max(0, where[0] - margin), min(size, where[-1] + 1 + margin)))
    return found[0], found[1]


def _around(middle: tuple[int, int], whole: Ranges) -> Ranges:
    """A part of `whole` around `middle` that is `_ZOOM` times smaller on each side."""
    found = []
    for centre, part in zip(middle, whole, strict=True):
        size = max(1, round((part.stop - part.start) / _ZOOM))
        start = min(max(centre - size // 2, part.start), part.stop - size)
        found.append(slice(start, start + size))
    return found[0], found[1]


def _tile(part: Ranges, longest: int) -> tuple[int, int]:
    """Rows and columns of a picture of `part` whose longer side has at least `longest` pixels."""
    shape = [r.stop - r.start for r in part]
    factor = max(1.0, longest / max(shape))
    return round(shape[0] * factor), round(shape[1] * factor)


def _quality_line(panel: Panel) -> str:
    if panel.is_truth:
        return "fully sampled, noise-free"
    m = panel.metrics
    return "&nbsp;" if m is None else f"{m.psnr:.2f} dB &middot; SSIM {m.ssim:.3f}"


def profile(panels: Sequence[Panel]) -> str:
    """Brightness along one row through the heart over time, method by method."""
    lead = panels[0].image
    if len(lead) < 2:
        return ""
    row = int(np.argmax(_smooth(lead.std(axis=0).mean(axis=1))))
    tiles = [pictures.grey(np.tile(p.image[:, row], (2, 1)).T, top=1.0) for p in panels]
    heads = "".join(f'<div style="--c:{p.colour}"><b>{text(p.name)}</b></div>' for p in panels)
    return (
        "<section><h2>Motion<small>one row through the heart, two cycles from left to right</small></h2>"
        f'<div class="cols" style="grid-template-columns:repeat({len(panels)},1fr)">{heads}</div>'
        f'<img alt="row through the heart over time" src="{pictures.still(pictures.mosaic([tiles], gap=2))}">'
        "</section>"
    )


def _smooth(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.convolve(np.asarray(values, np.float64), np.ones(5) / 5, mode="same")

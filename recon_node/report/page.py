"""The page about one scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, KSpace, Verdict
from recon_node.report import pixels
from recon_node.report.charts import line_chart
from recon_node.report.content import TRUTH, Layer, Report, SliceView, white_of
from recon_node.report.render import WARNING, as_json, render

__all__ = ["WARNING", "write_report"]

SIBLINGS = '<script type="application/json" id="siblings">'
"""Behind it, at the end of the page, stand the addresses of the scan's other slices."""
_ERROR_SHARE = 0.1
"""Of full brightness, at the bright end of an error map."""
_AIR, _ZOOM = 0.06, 2.4
_MOST_VALUES = 60_000_000
"""In a page; of scans with more, phases are left out."""
_VERDICTS = {"pass": "pass", "warn": "look twice", "fallback": "network withheld"}
_WITHIN = (
    "Held-out measured lines, data consistency, coil maps and brightness are within their limits, and "
    "nothing about the scan is new to the network."
)


def write_report(path: Path, report: Report) -> None:
    """Write a page about one scan.

    Parameters
    ----------
    path : Path
        The file; an older one is replaced only once the new one is complete.
    report : Report
        What to show.

    Raises
    ------
    DataError
        There are no images, more than six side by side, of different shapes or methods, or without
        brightness.
    """
    report.check()
    step = _phase_step(report.slices)
    render(
        path,
        "scan.html",
        script="viewer.js",
        report=report,
        names=[*report.slices[0].panels],
        slices=[_part(one, step) for one in report.slices],
        phase_step=step,
        chart=_chart(report),
        data=as_json({"shown": report.shown, "slices": [_pixels(one, step) for one in report.slices]}),
        siblings_tag=SIBLINGS,
    )


def _phase_step(slices: Sequence[SliceView]) -> int:
    values = sum(image.size for one in slices for image in one.panels.values())
    return max(1, math.ceil(values / _MOST_VALUES))


def _chart(report: Report) -> Any:
    if not report.curves_ml:
        return None
    times = report.slices[report.shown].times_ms
    count = len(next(iter(report.curves_ml.values())))
    known = times is not None and len(times) == count
    return line_chart(
        times if known and times is not None else [*map(float, range(count))],
        report.curves_ml,
        x_label="time after the R wave (ms)" if known else "phase",
        y_label="volume (ml)",
        dashed=frozenset({TRUTH}),
    )


def _pixels(one: SliceView, step: int) -> dict[str, Any]:
    """One slice for the script."""
    white = white_of(one)
    panels = {name: np.abs(image[::step]) for name, image in one.panels.items()}
    top = max(white, *(float(np.nanmax(image, initial=0.0)) for image in panels.values()))
    times = one.times_ms if one.times_ms is None else one.times_ms[::step]
    ny, nx = next(iter(panels.values())).shape[1:]
    return {
        "panels": [
            {
                "image": pixels.packed(pixels.companded(image, top)),
                "error": _error(one, image, white, step) if name != TRUTH else None,
            }
            for name, image in panels.items()
        ],
        "white": white / top,
        "boxes": _boxes(one, next(iter(panels.values())) / white),
        "aspect": nx * one.pixel_mm[0] / (ny * one.pixel_mm[1]),
        "frameMs": one.frame_ms * step,
        "times": times,
        "layers": [_layer(layer, step, [*panels]) for layer in one.layers],
        "kspace": None if one.kspace is None else pixels.packed(_kspace(one.kspace, step)),
    }


def _error(
    one: SliceView, magnitude: NDArray[np.floating[Any]], white: float, step: int
) -> dict[str, Any] | None:
    if one.truth is None:
        return None
    off = np.abs(magnitude - np.abs(one.truth[::step]))
    return pixels.packed(pixels.linear(off, _ERROR_SHARE * white))


def _layer(layer: Layer, step: int, names: list[str]) -> dict[str, Any]:
    data = layer.data[None] if layer.data.ndim == 2 else layer.data[::step]
    return {
        "name": layer.name,
        "top": f"{layer.top:.3g}{' ' if layer.unit else ''}{layer.unit}",
        "said": layer.said,
        "panel": names.index(layer.of) if layer.of in names else len(names) - 1,
        "image": pixels.packed(pixels.linear(data, layer.top)),
    }


def _kspace(kspace: KSpace, step: int) -> pixels.Bytes:
    return pixels.sampled(kspace.data[::step], kspace.mask[::step])


def _boxes(one: SliceView, image: NDArray[Any]) -> dict[str, list[float]]:
    """Parts of the image to look at: top, left, height, width as shares."""
    seen = np.nan_to_num(image).max(axis=0) > _AIR
    found = {"whole": [0.0, 0.0, 1.0, 1.0]}
    if not seen.any():
        return found
    spans = []
    for axis in (1, 0):
        where, size = np.flatnonzero(seen.any(axis=axis)), seen.shape[1 - axis]
        low, high = max(0, where[0] - size // 20), min(size, where[-1] + 1 + size // 20)
        spans.append((low / size, (high - low) / size))
    found["object"] = [spans[0][0], spans[1][0], spans[0][1], spans[1][1]]
    if one.focus is not None:
        part = [length / _ZOOM for _, length in spans]
        middle = [(place + 0.5) / size for place, size in zip(one.focus, seen.shape, strict=True)]
        start = [min(max(m - p / 2, 0.0), 1 - p) for m, p in zip(middle, part, strict=True)]
        found["heart"] = [*start, *part]
    return found


def _part(one: SliceView, step: int) -> dict[str, Any]:
    """One slice for the template."""
    last = [*one.images][-1]
    return {
        "view": one,
        "last": last,
        "still": pixels.still(pixels.grey(one.images[last][0], top=white_of(one))),
        "phases": len(one.images[last][::step]),
        "verdict": None if one.verdict is None else verdict_words(one.verdict),
        "mask": None if one.kspace is None else _mask(one.kspace),
        "sampling": None if one.kspace is None else _sampling(one.kspace),
        "coils": None if one.maps is None else _coils(one.maps),
        "facts": {} if one.kspace is None else _facts(one.kspace),
        "longest": max(one.seconds.values(), default=1.0) or 1.0,
        "total": sum(one.seconds.values()),
    }


def verdict_words(verdict: Verdict) -> dict[str, Any]:
    """The verdict as people say it."""
    reasons = list(verdict.reasons) or [_WITHIN]
    return {
        "kind": verdict.verdict,
        "word": _VERDICTS[verdict.verdict],
        "score": verdict.score,
        "expected": None if verdict.expected is None else verdict.expected.sentence,
        "reasons": reasons,
    }


def _mask(kspace: KSpace) -> dict[str, Any]:
    """Where k-space was sampled: lines over time, or the first phase's points."""
    found = kspace.mask
    lines = bool(np.all(found == found.any(axis=2, keepdims=True)))
    shown: NDArray[np.bool_] = np.any(found, axis=2).T if lines else found[0]
    picture = np.where(shown[:, :, None], (76, 194, 255), (18, 25, 34)).astype(np.uint8)
    if lines:
        picture = np.repeat(picture, max(1, round(shown.shape[0] * 1.6 / shown.shape[1])), axis=1)
    said = "phase encoding (down) by phase (right)" if lines else "first phase, phase encoding down"
    return {"said": said, "picture": pixels.still(picture)}


def _sampling(kspace: KSpace) -> str:
    s = kspace.sampling
    ratio = f"{s.pattern}, {s.acceleration:.3g}x"
    if s.acs:
        ratio = (
            f"{s.pattern}, one of {s.acceleration:.3g} lines outside the {s.acs} central ones (all sampled)"
        )
    ratio += f": {100 / s.effective_acceleration:.0f} % of k-space in all."
    found = f" {kspace.lines_found} lines found"
    found += f", the header announces {kspace.lines_expected}." if kspace.lines_expected else "."
    return ratio + found


def _coils(maps: CoilMaps) -> dict[str, Any]:
    """First map set of every coil: brightness is magnitude, hue is phase."""
    some = maps.data[0][:16]
    step = max(1, min(some.shape[1:]) // 128)
    top = float(np.abs(some).max()) or 1.0
    tiles = [pixels.complex_colour(coil[::step, ::step], top=top) for coil in some]
    across = math.ceil(math.sqrt(1.6 * len(tiles)))
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    return {
        "method": maps.method.upper(),
        "shown": len(some),
        "all": maps.data.shape[1],
        "picture": pixels.still(pixels.mosaic(rows)),
    }


def _facts(kspace: KSpace) -> dict[str, str]:
    h, (phases, coils, ky, kx) = kspace.header, kspace.data.shape
    fov = kspace.geometry.fov_mm
    found = {
        "scanner": " ".join(filter(None, (h.vendor, h.model))),
        "field strength": h.field_strength_t and f"{h.field_strength_t:.3g} T",
        "protocol": h.protocol,
        "matrix": f"{ky} x {kx}, {coils} coils, {phases} phases",
        "field of view": f"{fov[1]:.0f} x {fov[0]:.0f} x {fov[2]:.0f} mm",
        "RR interval": kspace.rr_interval_ms and f"{kspace.rr_interval_ms:.0f} ms",
    }
    return {name: str(value) for name, value in found.items() if value}

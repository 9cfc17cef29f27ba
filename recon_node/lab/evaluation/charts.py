"""Inline SVG charts for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 520, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 34


def line_chart(
    x: Sequence[float],
    curves: Mapping[str, NDArray[np.float64]],
    colours: Mapping[str, str],
    *,
    x_label: str,
    y_label: str,
    dashed: frozenset[str] = frozenset(),
) -> str:
    """Curves over `x` with round axis marks; names and colours by curve."""
    values = np.concatenate([np.asarray(c, np.float64) for c in curves.values()])
    y_marks = marks(float(values.min()), float(values.max()))
    x_marks = [m for m in marks(min(x), max(x), 6) if min(x) <= m <= max(x)]
    low, high = y_marks[0], y_marks[-1]
    span = (max(x) - min(x)) or 1.0

    def px(value: float) -> float:
        return _LEFT + (value - min(x)) / span * (_WIDTH - _LEFT - _RIGHT)

    def py(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(y_label)}">']
    parts += [
        f'<path class="grid" d="M{_LEFT} {py(mark):.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 7}" y="{py(mark) + 4:.1f}" text-anchor="end">{mark:g}</text>'
        for mark in y_marks
    ]
    parts += [
        f'<text x="{px(mark):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{mark:g}</text>'
        for mark in x_marks
    ]
    for name, curve in curves.items():
        points = " ".join(f"{px(a):.1f},{py(b):.1f}" for a, b in zip(x, curve, strict=True))
        dash = ' stroke-dasharray="5 4"' if name in dashed else ""
        parts.append(f'<polyline points="{points}" stroke="{colours[name]}"{dash}/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{_HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return "".join(parts) + "</svg>"


def marks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers at equal steps of 1, 2 or 5 times a power of ten that enclose `low` and `high`."""
    span = (high - low) or max(abs(high), 1.0)
    power = 10.0 ** np.floor(np.log10(span / about))
    step = float(next(power * f for f in (1, 2, 5, 10) if span / (power * f) <= about))
    first = np.floor(low / step)
    last = max(np.ceil(high / step), first + 1)
    return [float(np.round(n * step, 10)) for n in np.arange(first, last + 1)]

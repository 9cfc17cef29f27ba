"""Where the marks and lines of a chart go; the templates draw them as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 520, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 40


@dataclass(kw_only=True, eq=False)
class Axes:
    """Axes with round marks; pixels of an SVG of 520 x 320."""

    x: Sequence[float]
    """Smallest and largest value, or all of them."""
    y: Sequence[float]
    x_label: str
    y_label: str
    lines: list[dict[str, Any]] = field(default_factory=list)
    """``name``, ``points`` as SVG wants them, ``dashed``."""
    dots: list[dict[str, Any]] = field(default_factory=list)
    """``x``, ``y``, ``name``, ``kind``, ``href``."""

    def __post_init__(self) -> None:
        self._y_marks = marks(float(np.min(self.y)), float(np.max(self.y)))
        self._low, self._high = float(np.min(self.x)), float(np.max(self.x))
        if self._low == self._high:
            self._low, self._high = self._low - 1, self._high + 1

    @property
    def top(self) -> float:
        """Value at the upper end of the y axis."""
        return self._y_marks[-1]

    @property
    def x_marks(self) -> list[tuple[float, str]]:
        """Pixel and text."""
        found = marks(self._low, self._high, 6)
        return [(self.px(m), f"{m:g}") for m in found if self._low <= m <= self._high]

    @property
    def y_marks(self) -> list[tuple[float, str]]:
        """Pixel and text."""
        return [(self.py(m), f"{m:g}") for m in self._y_marks]

    def px(self, value: float) -> float:
        """Pixel from the left."""
        return round(_LEFT + (value - self._low) / (self._high - self._low) * (WIDTH - _LEFT - _RIGHT), 1)

    def py(self, value: float) -> float:
        """Pixel from the top."""
        low, high = self._y_marks[0], self._y_marks[-1]
        return round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    def dot(self, x: float, y: float, name: str, kind: str, href: str | None) -> None:
        """Add a point."""
        self.dots.append({"x": self.px(x), "y": self.py(y), "name": name, "kind": kind, "href": href})


def line_chart(
    x: Sequence[float],
    curves: Mapping[str, NDArray[np.float64]],
    *,
    x_label: str,
    y_label: str,
    dashed: frozenset[str] = frozenset(),
) -> Axes:
    """Curves over `x`, by name."""
    axes = Axes(x=x, y=np.concatenate([*curves.values()]).tolist(), x_label=x_label, y_label=y_label)
    for name, curve in curves.items():
        points = " ".join(f"{axes.px(a)},{axes.py(float(b))}" for a, b in zip(x, curve, strict=True))
        axes.lines.append({"name": name, "points": points, "dashed": name in dashed})
    return axes


def bland_altman_chart(
    measured: Sequence[float],
    expected: Sequence[float],
    names: Sequence[str],
    *,
    unit: str,
    bias: float,
    limits: tuple[float, float] | None,
) -> Axes:
    """Differences over means, with the bias and the limits of agreement as lines.

    Parameters
    ----------
    measured, expected : sequence of float
        The same number of each heart twice.
    names : sequence of str
        Of the hearts.
    unit : str
        For the axes.
    bias : float
        Drawn as a line.
    limits : tuple of float, optional
        Drawn as dashed lines.
    """
    a, b = np.asarray(measured, float), np.asarray(expected, float)
    means, differences = (a + b) / 2, a - b
    spread = float(np.ptp(means)) or abs(float(means[0])) or 1.0
    ends = [float(means.min()) - 0.05 * spread, float(means.max()) + 0.05 * spread]
    levels = {"bias": bias, **({} if limits is None else {"lower": limits[0], "upper": limits[1]})}
    axes = Axes(
        x=ends,
        y=[*differences.tolist(), *levels.values(), 0.0],
        x_label=f"mean of both, {unit}",
        y_label=f"difference, {unit}",
    )
    for name, level in levels.items():
        points = " ".join(f"{axes.px(x)},{axes.py(level)}" for x in ends)
        axes.lines.append({"name": name, "points": points, "dashed": name != "bias"})
    for mean, difference, name in zip(means, differences, names, strict=True):
        axes.dot(float(mean), float(difference), name, "pass", None)
    return axes


def marks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers at equal steps of 1, 2 or 5 times a power of ten that enclose `low` and `high`."""
    span = (high - low) or max(abs(high), 1.0)
    power = 10.0 ** np.floor(np.log10(span / about))
    step = float(next(power * f for f in (1, 2, 5, 10) if span / (power * f) <= about))
    first = np.floor(low / step)
    last = max(np.ceil(high / step), first + 1)
    return [float(np.round(n * step, 10)) for n in np.arange(first, last + 1)]

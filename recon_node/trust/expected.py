r"""From measures to the error to be expected, with a bound that new scans keep nine times in ten.

The model can be read: an error grows by a factor with the factor by which a measure exceeds what is usual,

.. math:: \log_{10} e = a + \sum_j b_j \, \max(0, \log_{10}(m_j / u_j)),

once for the squared error relative to the brightest pixel (PSNR is minus ten times its logarithm), once
for 1 - SSIM. Slopes are never negative: no measure speaks for an image by being worse. The bound is split
conformal, for both errors jointly: the largest of both residuals, in units of their spread, stays below the
quantile kept for the group (Vovk et al. 2005; Lei et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recon_node.core.types import Expected
from recon_node.trust.measures import Measures

TARGETS = ("psnr", "ssim")
EVERYTHING = ""
"""Key of the quantile that every scan falls back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The model of one error."""

    start: float
    """`a`: log10 of the error where every measure is usual."""
    slopes: Mapping[str, float]
    """`b` by measure."""
    spread: float
    """Standard deviation of the residuals."""

    def of(self, excess: Mapping[str, float]) -> float:
        """log10 of the error for measures that exceed the usual by these powers of ten."""
        return self.start + sum(slope * excess.get(name, 0.0) for name, slope in self.slopes.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorModel:
    """Expected errors of one method's images, and their bounds."""

    usual: Mapping[str, float]
    """`u` by measure."""
    lines: Mapping[str, Line]
    """By error: ``psnr`` and ``ssim``."""
    quantiles: Mapping[str, float] = field(default_factory=dict)
    """Conformal quantiles by group, and of everything; infinite where there were too few scans."""
    level: float = 0.9
    """Share of new scans whose both errors stay within their bounds."""

    def excess(self, measures: Measures) -> dict[str, float]:
        """By how many powers of ten each measure exceeds what is usual, 0 where it does not."""
        found = {}
        for name, usual in self.usual.items():
            value = getattr(measures, name)
            if value is not None and value > usual:
                found[name] = min(math.log10(value / usual), 6.0)
        return found

    def logarithms(self, measures: Measures) -> dict[str, float]:
        """log10 of each expected error."""
        excess = self.excess(measures)
        return {target: self.lines[target].of(excess) for target in TARGETS}

    def quantile(self, groups: Sequence[str]) -> float:
        """That of the first of these groups that has one, else of everything."""
        for group in (*groups, EVERYTHING):
            if group in self.quantiles:
                return self.quantiles[group]
        return math.inf

    def expect(self, measures: Measures, groups: Sequence[str] = ()) -> Expected:
        """Errors to be expected of an image with these measures, and their bounds.

        Parameters
        ----------
        measures : Measures
        groups : sequence of str
            The scan's groups, the narrowest first.

        Returns
        -------
        Expected
            Without bounds where too few scans were measured for one.
        """
        found = self.logarithms(measures)
        quantile = self.quantile(groups)
        worst = {target: found[target] + quantile * self.lines[target].spread for target in TARGETS}
        bounded = math.isfinite(quantile)
        return Expected(
            psnr=-10 * found["psnr"],
            ssim=max(0.0, 1 - 10 ** found["ssim"]),
            psnr_at_least=-10 * worst["psnr"] if bounded else None,
            ssim_at_least=max(0.0, 1 - 10 ** worst["ssim"]) if bounded else None,
            level=self.level,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; undone by `error_model`."""
        return {
            "usual": dict(self.usual),
            "lines": {
                name: {"start": line.start, "slopes": dict(line.slopes), "spread": line.spread}
                for name, line in self.lines.items()
            },
            "quantiles": {
                name: value if math.isfinite(value) else None for name, value in self.quantiles.items()
            },
            "level": self.level,
        }


def error_model(table: Mapping[str, Any]) -> ErrorModel:
    """Read what `ErrorModel.as_dict` gave.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        It is no such table.
    """
    known = set(Measures.__dataclass_fields__)
    usual = {name: float(value) for name, value in table["usual"].items()}
    lines = {
        target: Line(
            start=float(table["lines"][target]["start"]),
            slopes={name: float(slope) for name, slope in table["lines"][target]["slopes"].items()},
            spread=float(table["lines"][target]["spread"]),
        )
        for target in TARGETS
    }
    unknown = sorted({*usual, *(name for line in lines.values() for name in line.slopes)} - known)
    if unknown:
        raise ValueError(f"unknown measures {', '.join(unknown)}")
    if not all(value > 0 for value in usual.values()) or not 0 < float(table["level"]) < 1:
        raise ValueError("an error model has usual values above 0 and a level between 0 and 1")
    return ErrorModel(
        usual=usual,
        lines=lines,
        quantiles={
            name: math.inf if value is None else float(value) for name, value in table["quantiles"].items()
        },
        level=float(table["level"]),
    )

"""Tables of a study: means by condition, paired differences, and whether the issue's figures are reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from recon_node.lab.evaluation.studies import Comparison, Result, compare, table

CARDIOMM = "CardioMM"
TARGETS: dict[str, dict[float, float]] = {
    "BART L1-wavelet": {4: 0.0, 8: 3.0, 16: 3.0, 24: 3.0},
    "kt tuned": {8: 1.0, 16: 1.0, 24: 1.0},
}
"""Least mean gain of CardioMM in dB, by rival and acceleration."""


@dataclass(frozen=True)
class Gain:
    """CardioMM against a rival."""

    rival: str
    condition: str
    """One pattern and acceleration, or one acceleration over all patterns."""
    comparison: Comparison
    target: float | None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "reached" if self.comparison.gain_db >= self.target else "MISSED"

    def as_dict(self) -> dict[str, object]:
        return {
            "rival": self.rival,
            "condition": self.condition,
            **asdict(self.comparison),
            "target_db": self.target,
            "verdict": self.verdict,
        }


def gains(results: Sequence[Result], ours: str = CARDIOMM) -> list[Gain]:
    """Against every rival, over all patterns of each acceleration, then condition by condition."""
    rivals = [name for name in dict.fromkeys(r.method for r in results) if name != ours]
    conditions = list(dict.fromkeys(r.condition for r in results))
    rates = list(dict.fromkeys(c.split()[1] for c in conditions))
    found = []
    for rival in rivals:
        for rate in [*rates, *conditions]:
            some = [r for r in results if rate in (r.condition, r.condition.split()[1])]
            target = TARGETS.get(rival, {}).get(float(rate.split()[-1].removesuffix("x")))
            shown = rate if " " in rate else f"all {rate}"
            found.append(Gain(rival, shown, compare(some, ours, rival), target))
    return found


def quality_tables(results: Sequence[Result]) -> str:
    """PSNR, SSIM and NMSE in Markdown, conditions down, methods across."""
    rows = {(row.condition, row.method): row for row in table(results)}
    methods = list(dict.fromkeys(method for _, method in rows))
    conditions = list(dict.fromkeys(condition for condition, _ in rows))
    parts = []
    for title, shown in (
        ("PSNR, dB", lambda row: f"{row.psnr:.2f}"),
        ("SSIM", lambda row: f"{row.ssim:.4f}"),
        ("NMSE", lambda row: f"{row.nmse:.5f}"),
    ):
        lines = [f"| {title} | scans | {' | '.join(methods)} |", "|---" * (len(methods) + 2) + "|"]
        for condition in conditions:
            cells = " | ".join(shown(rows[condition, method]) for method in methods)
            lines.append(f"| {condition} | {rows[condition, methods[0]].scans} | {cells} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def gain_table(found: Sequence[Gain], ours: str = CARDIOMM) -> str:
    """Differences in Markdown."""
    lines = [
        f"| {ours} over | condition | gain, dB | better on | p | target | |",
        "|---|---|---|---|---|---|---|",
    ]
    for gain in found:
        c, target = gain.comparison, "" if gain.target is None else f"{gain.target:g}"
        lines.append(
            f"| {gain.rival} | {gain.condition} | {c.gain_db:+.2f} | {c.wins} of {c.scans} | {c.p:.1e} "
            f"| {target} | {gain.verdict} |"
        )
    return "\n".join(lines)

"""All slices of an archive at a glance, the least trusted first."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recon_node.core import durable
from recon_node.core.choices import Believed
from recon_node.report.charts import Axes
from recon_node.report.page import SIBLINGS
from recon_node.report.pixels import png_uri
from recon_node.report.render import as_json, render

INDEX = "index.html"
VERDICTS: tuple[Believed, ...] = ("fallback", "warn", "pass")
_MOST_CARDS = 500
_MOST_DOTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One reconstructed slice."""

    name: str
    """Of its input."""
    label: str
    """Of the slice, such as ``slice 2``."""
    trust: str
    score: float
    """0 to 1."""
    method: str
    pattern: str
    acceleration: float
    reasons: str = ""
    field_t: float | None = None
    phases: int | None = None
    seconds: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Against the full reconstruction, where lines were taken away."""
    page: str | None = None
    """Relative address of its page."""
    picture: Path | None = None
    """A small PNG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the overview shows."""

    lines: Sequence[Line]
    troubles: Sequence[tuple[str, str]] = ()
    """Inputs without images, and why."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Relative addresses of more files, by name."""


def write_overview(path: Path, overview: Overview) -> None:
    """Write the page; the least trusted slices come first, with pictures of at most 500."""
    lines = sorted(overview.lines, key=lambda one: (_rank(one.trust), one.score, one.name, one.label))
    seconds = sum(one.seconds or 0.0 for one in lines)
    counts = Counter(one.trust for one in lines)
    render(
        path,
        "overview.html",
        script="overview.js",
        cards=[_card(one) for one in lines[:_MOST_CARDS]],
        total=len(lines),
        counts={word: counts[word] for word in reversed(VERDICTS)},
        shares={word: 100 * counts[word] / max(1, len(lines)) for word in VERDICTS},
        images=sum(one.phases or 0 for one in lines),
        seconds=seconds,
        an_hour=3600 * len(lines) / seconds if seconds else None,
        groups=_groups(lines),
        scores=_scores(lines),
        troubles=overview.troubles,
        files=overview.files,
    )


def link_slices(pages: Sequence[Path], labels: Sequence[str]) -> None:
    """Let the pages of one scan's slices lead to each other; only what changes is written."""
    table = [{"label": label, "page": page.name} for label, page in zip(labels, pages, strict=True)]
    tail = f"{SIBLINGS}{as_json(table)}</script>\n</body>\n</html>\n"
    for page in pages:
        with page.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - len(tail.encode())))
            same = stream.read() == tail.encode()
        if not same:
            head = page.read_text(encoding="utf-8").rpartition(SIBLINGS)[0]
            durable.write_text(page, head + tail)


def siblings_of(page: Path) -> list[dict[str, str]]:
    """What `link_slices` wrote."""
    text = page.read_text(encoding="utf-8").rpartition(SIBLINGS)[2].partition("</script>")[0]
    found: list[dict[str, str]] = json.loads(text)
    return found


def _rank(trust: str) -> int:
    return ("fallback", "warn", "pass").index(trust) if trust in VERDICTS else 0


def _card(one: Line) -> dict[str, Any]:
    picture = None if one.picture is None else png_uri(one.picture.read_bytes())
    return {"line": one, "picture": picture}


def _groups(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Verdicts by method, sampling and field strength: where trouble gathers."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for one in lines:
        found[one.method][one.trust] += 1
        found[f"{round(one.acceleration)}x {one.pattern}"][one.trust] += 1
        if one.field_t is not None:
            found[f"{one.field_t:.2g} T"][one.trust] += 1
    return [
        {
            "name": name,
            "total": count.total(),
            "parts": [(word, count[word], 100 * count[word] / count.total()) for word in VERDICTS],
        }
        for name, count in sorted(found.items(), key=lambda item: -item[1].total())[:12]
    ]


def _scores(lines: Sequence[Line]) -> Axes | None:
    if not lines:
        return None
    rates = [one.acceleration for one in lines]
    whole = [math.floor(min(rates)), math.ceil(max(rates))]
    axes = Axes(x=whole, y=[0.0, 1.0], x_label="acceleration", y_label="trust score")
    for one in lines[:: math.ceil(len(lines) / _MOST_DOTS)]:
        axes.dot(one.acceleration, one.score, f"{one.name}, {one.label}", one.trust, one.page)
    return axes

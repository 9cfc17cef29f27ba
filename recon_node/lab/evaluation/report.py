"""The report of one reconstruction: a single HTML file that needs nothing else, not even a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core import durable
from recon_node.core.errors import DataError
from recon_node.core.types import CoilMaps, KSpace, Prompts, Verdict
from recon_node.lab.evaluation import cine as moving
from recon_node.lab.evaluation import sections
from recon_node.lab.evaluation.metrics import Metrics
from recon_node.lab.evaluation.sections import Panel

MOST_PANELS = 6
_WHITE = 0.985
"""Share of the pixels below full brightness: fat at the coils may saturate, the heart should not be dim."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReportData:
    """Everything a report shows. All images are of one slice, on one grid and of one unit."""

    title: str
    subtitle: str = ""
    images: Mapping[str, NDArray[Any]]
    """Method's name as shown to `(phase, y, x)` complex or real, in the order shown; the method the
    report is about comes last."""
    truth: NDArray[Any] | None = None
    """`(phase, y, x)`; error maps are shown only with it."""
    focus: tuple[int, int] | None = None
    """Row and column around which the images are shown enlarged, too."""
    metrics: Mapping[str, Metrics] = field(default_factory=dict)
    """By the same names; methods that are not among `images` get a line in the table, too."""
    metrics_of: str = "mean over frames, against the truth"
    kspace: KSpace | None = None
    """For the sampling mask and what is known of the scan."""
    maps: CoilMaps | None = None
    prompts: Prompts | None = None
    verdict: Verdict | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by stage."""
    volumes_ml: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Left ventricular volume `(phase,)` by name; ``Truth`` is drawn dashed."""
    volumes_of: str = "blood volume of this slice (ml)"
    times_ms: tuple[float, ...] | None = None
    """Trigger time of each phase."""
    frame_ms: float = 50.0
    """How long the moving pictures show a phase."""
    error_gain: float = 10.0
    facts: Mapping[str, str] = field(default_factory=dict)
    """More lines for the scan's table, for example weights and destination."""
    footer: str = ""


def write_report(path: Path, data: ReportData) -> None:
    """Write the report `data` as one self-contained HTML file.

    Parameters
    ----------
    path : Path
        The file; an older one is replaced only once the new one is complete.
    data : ReportData
        What to show. Parts without data are left out.

    Raises
    ------
    DataError
        If there are no images, more than six columns of them, their shapes differ, or no pixel is
        finite.
    """
    panels = _panels(data)
    blocks = [
        sections.head(data.title, data.subtitle, data.verdict),
        sections.figures(panels, data.kspace, data.seconds),
        moving.cine(panels, data.truth is not None, data.frame_ms, data.error_gain, data.focus),
        _paired(
            sections.quality(panels, data.metrics, data.metrics_of)
            + sections.function(panels, data.volumes_ml),
            sections.volumes(panels, data.volumes_ml, data.times_ms, data.volumes_of),
        ),
        sections.prompts(data.prompts),
        _paired(sections.mask(data.kspace), sections.coil_maps(data.maps)),
        _paired(
            sections.trust(data.verdict) + sections.timing(data.seconds),
            moving.profile(panels),
        ),
        sections.scan(data.kspace, data.facts),
        sections.foot(data.footer),
    ]
    page = resources.files("recon_node.lab.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    text = Template(page).substitute(title=sections.text(data.title), body="\n".join(filter(None, blocks)))
    durable.write_text(path, text)


def _panels(data: ReportData) -> list[Panel]:
    images = dict(data.images)
    if data.truth is not None:
        images = {"Truth": data.truth, **images}
    shapes = {image.shape for image in images.values()}
    if not data.images or len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise DataError(f"a report needs images of one shape (phase, y, x), found {sorted(shapes)}")
    if len(images) > MOST_PANELS:
        raise DataError(f"a report has room for {MOST_PANELS} columns of images, found {len(images)}")
    brightest = [float(np.nanquantile(np.abs(image), _WHITE)) for image in images.values()]
    top = brightest[0] if data.truth is not None else brightest[-1]
    if not np.isfinite(top) or top <= 0:
        raise DataError("the images of the report have no finite, positive brightness")
    return [
        Panel(
            name=name,
            image=np.nan_to_num(np.abs(image)).astype(np.float32) / top,
            colour=sections.COLOURS[number],
            metrics=data.metrics.get(name),
            is_truth=data.truth is not None and number == 0,
        )
        for number, (name, image) in enumerate(images.items())
    ]


def _paired(left: str, right: str) -> str:
    """Two columns, or the one that is not empty."""
    if not (left and right):
        return left or right
    stacked = (f'<div class="stack">{part}</div>' for part in (left, right))
    return f'<div class="grid2">{"".join(stacked)}</div>'

"""What a page about one scan shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError
from recon_node.core.types import CoilMaps, KSpace, Prompts, Verdict

MOST_PANELS = 6
TRUTH = "Truth"
_WHITE = 0.985
"""Share of the pixels below full brightness: fat at the coils may saturate, the heart should not be dim."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A map of real values to lay over the images of a slice: g-factor, SNR, a bound on the error."""

    name: str
    data: NDArray[Any]
    """`(y, x)` or `(phase, y, x)`, real, on the grid of the images; not finite where nothing is known."""
    top: float
    """Value at the bright end of the colours; 0 is at the dark end."""
    unit: str = ""
    said: str = ""
    """What it means, in a sentence."""
    of: str | None = None
    """Name of the images it is shown with; the last ones otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceView:
    """One slice by every method; all images on one grid and of one unit."""

    label: str = "Slice 1"
    images: Mapping[str, NDArray[Any]]
    """Method's name as shown to `(phase, y, x)`, complex or real; the method that the page is about comes
    last."""
    truth: NDArray[Any] | None = None
    """`(phase, y, x)`, fully sampled; error maps are shown only with it."""
    truth_is: str = "fully sampled, noise-free"
    focus: tuple[int, int] | None = None
    """Row and column around which one may look closer: the heart."""
    pixel_mm: tuple[float, float] = (1.0, 1.0)
    """Of a pixel along (x, y)."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """``psnr`` (dB), ``ssim`` and so on by the names of `images`."""
    layers: Sequence[Layer] = ()
    kspace: KSpace | None = None
    maps: CoilMaps | None = None
    prompts: Prompts | None = None
    verdict: Verdict | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by stage."""
    times_ms: tuple[float, ...] | None = None
    """Trigger time of each phase."""
    frame_ms: float = 50.0
    """How long a phase lasts."""

    @property
    def panels(self) -> dict[str, NDArray[Any]]:
        """Everything that is shown side by side, the truth first."""
        return {**({} if self.truth is None else {TRUTH: self.truth}), **self.images}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """Everything a page about one scan shows. Parts without data are left out."""

    title: str
    subtitle: str = ""
    slices: Sequence[SliceView]
    """With the same methods each."""
    shown: int = 0
    """Number of the slice that is shown first."""
    sentences: Sequence[str] = ()
    """What was found, in words."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of the whole scan, by method; may hold methods that have no images here."""
    metrics_of: str = "mean over frames, against the truth"
    curves_ml: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Left ventricular volume `(phase,)` by name; ``Truth`` is drawn dashed."""
    curves_of: str = ""
    function: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Figures of the ventricle by name: columns of a table by their headings."""
    downloads: Mapping[str, str] = field(default_factory=dict)
    """Relative addresses of files beside the page, by what they are."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """More lines for the scan's table, for example weights and destination."""
    back: str | None = None
    """Relative address of the overview."""

    def check(self) -> None:
        """Refuse what no page can show.

        Raises
        ------
        DataError
            No images, more than six side by side, of different shapes or methods, or without brightness.
        """
        if not self.slices:
            raise DataError("a report needs images, found no slice")
        names = [tuple(one.panels) for one in self.slices]
        if len(set(names)) > 1:
            raise DataError(f"a report needs the same methods in every slice, found {sorted(set(names))}")
        if len(names[0]) > MOST_PANELS:
            raise DataError(f"a report has room for {MOST_PANELS} columns of images, found {len(names[0])}")
        for one in self.slices:
            shapes = {image.shape for image in one.panels.values()}
            if not one.images or len(shapes) != 1 or len(next(iter(shapes))) != 3:
                raise DataError(f"a report needs images of one shape (phase, y, x), found {sorted(shapes)}")
            white_of(one)


def white_of(one: SliceView) -> float:
    """Magnitude that is shown white at first: of the truth, else of the last image.

    Raises
    ------
    DataError
        It has no finite, positive brightness.
    """
    return white_of_image(one.truth if one.truth is not None else [*one.images.values()][-1])


def white_of_image(image: NDArray[Any]) -> float:
    """Magnitude below which nearly all pixels lie.

    Raises
    ------
    DataError
        It has no finite, positive brightness.
    """
    magnitude = np.abs(image)
    finite = magnitude[np.isfinite(magnitude)]
    white = float(np.quantile(finite, _WHITE)) if finite.size else 0.0
    white = white or float(finite.max(initial=0.0))
    if white <= 0:
        raise DataError("the images of the report have no finite, positive brightness")
    return white

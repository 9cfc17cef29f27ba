"""How well a method predicts samples that it is not given, beside another method and beside nothing.

Where whole lines were sampled, in as few image columns as either method allows (`ByColumns`), and for both in
the same ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.trust.decimation import decimated_images, decimated_maps, decimation
from recon_node.trust.error_map import moved_by, share_of
from recon_node.trust.holdout import HeldOut, hold_out
from recon_node.trust.prediction import components, powers, squared_errors
from recon_node.trust.window import (
    PHASES,
    beyond_window,
    images_within,
    kspace_within,
    maps_within,
    window_of,
)

Reconstruct = Callable[[KSpace], ImageSeries]
"""A method as a function of k-space alone. It may be `ByColumns`, too."""


class NotFinite(Exception):
    """An image made without some of the samples holds values that are no numbers."""


class ByColumns(ABC):
    """A method that does not need all columns of the image to show how well it predicts lines."""

    __slots__ = ()

    @property
    @abstractmethod
    def columns(self) -> int | None:
        """As many columns, evenly spaced, say as much as all; None where nothing less than all does."""

    @property
    @abstractmethod
    def narrow(self) -> bool:
        """Whether it can be asked for a few neighbouring columns."""

    @abstractmethod
    def __call__(self, kspace: KSpace) -> ImageSeries:
        """The method for all columns."""

    @abstractmethod
    def decimated(self, step: int) -> Reconstruct:
        """The method for every `step`-th column of the image (`recon_node.trust.decimation`)."""

    @abstractmethod
    def within(self, window: slice) -> Reconstruct:
        """The method for these columns (`recon_node.trust.window`)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOutErrors:
    """Means over held-out or kept samples of squared errors."""

    missed: float
    """Held-out samples, by the method in question."""
    kept: float
    """Samples that it was given."""
    reference_missed: float
    reference_kept: float
    nothing: float
    """Held-out samples, by an empty image: their energy."""
    count: int
    """Number of held-out samples, of all coils."""
    moved: NDArray[np.float32]
    """`(y, x)`: how far the image moves without them, see `recon_node.trust.error_map.moved_by`."""
    moved_share: float | None
    """Energy by which it moves, over its own; None where it has none."""
    columns: slice = field(default_factory=lambda: slice(None))
    """Of the image that all this is of."""


def heldout_errors(
    kspace: KSpace,
    maps: CoilMaps,
    images: ImageSeries,
    *,
    reconstruct: Reconstruct,
    reference: Reconstruct,
    frames: int,
    fraction: float | None,
    seed: int,
) -> HeldOutErrors | None:
    """Hold samples out, and ask both methods for them.

    Parameters
    ----------
    kspace, maps, images, reconstruct, reference, frames, fraction, seed
        See `recon_node.trust.measure`.

    Returns
    -------
    HeldOutErrors or None
        None where there is no sample to spare.

    Raises
    ------
    NotFinite
        A method made an image that holds values that are no numbers.
    ReconNodeError
        What the methods raise.
    """
    if isinstance(reconstruct, ByColumns) and isinstance(reference, ByColumns):
        able = reconstruct.narrow and reference.narrow and reconstruct.columns is None
        window = window_of(kspace, images.data, frames) if able else None
        if window is not None:
            return _within(window, kspace, maps, images, reconstruct, reference, fraction=fraction, seed=seed)
    return _of_both(kspace, maps, images, reconstruct, reference, frames=frames, fraction=fraction, seed=seed)


def _within(
    window: slice,
    kspace: KSpace,
    maps: CoilMaps,
    images: ImageSeries,
    reconstruct: ByColumns,
    reference: ByColumns,
    *,
    fraction: float | None,
    seed: int,
) -> HeldOutErrors | None:
    found = _of_both(
        kspace_within(kspace, window),
        maps_within(maps, window),
        images_within(images, window),
        reconstruct.within(window),
        reference.within(window),
        frames=PHASES,
        fraction=fraction,
        seed=seed,
    )
    if found is None:
        return None
    return replace(found, moved=beyond_window(found.moved, window, images.data.shape[2]), columns=window)


def _of_both(
    kspace: KSpace,
    maps: CoilMaps,
    images: ImageSeries,
    reconstruct: Reconstruct,
    reference: Reconstruct,
    *,
    frames: int,
    fraction: float | None,
    seed: int,
) -> HeldOutErrors | None:
    steps = {method: decimation(kspace, _columns(method)) for method in (reconstruct, reference)}
    held = {}
    for step in steps.values():
        part = hold_out(kspace, frames=frames, fraction=fraction, seed=seed, step=step)
        if part is None:
            return None
        held[step] = part
    made = {method: _made(method, held[step].kspace, step) for method, step in steps.items()}
    coarsest = max(steps.values())
    common, few = held[coarsest], decimated_maps(maps, coarsest)
    errors = {
        method: _errors(decimated_images(made[method], coarsest // step), common, few)
        for method, step in steps.items()
    }
    moved = moved_by(images.data, made[reconstruct].data, steps[reconstruct])
    (missed, kept), (reference_missed, reference_kept) = errors[reconstruct], errors[reference]
    return HeldOutErrors(
        missed=missed,
        kept=kept,
        reference_missed=reference_missed,
        reference_kept=reference_kept,
        nothing=mean_power(common.measured, common.lines),
        count=int(common.lines.sum()) * common.measured.shape[1],
        moved=moved,
        moved_share=share_of(moved, images.data, len(made[reconstruct].data)),
    )


def _made(method: Reconstruct, part: KSpace, step: int) -> ImageSeries:
    again = method.decimated(step) if step > 1 and isinstance(method, ByColumns) else method
    made = again(part)
    if not np.isfinite(made.data).all():
        raise NotFinite
    return made


def _columns(method: Reconstruct) -> int | None:
    return method.columns if isinstance(method, ByColumns) else None


def _errors(made: ImageSeries, held: HeldOut, maps: CoilMaps) -> tuple[float, float]:
    """Mean squared errors of held-out samples and of those that were kept."""
    kept = held.kspace.mask
    squared = squared_errors(components(made, held.kspace, maps), held.measured, maps, held.lines | kept)
    coils = held.measured.shape[1]
    missed, given = (
        float(squared[where].sum() / max(1, int(where.sum()) * coils)) for where in (held.lines, kept)
    )
    return missed, given


def mean_power(samples: NDArray[np.complex64], where: NDArray[np.bool_]) -> float:
    """Mean squared magnitude of `(phase, coil, ky, kx)` samples where `(phase, ky, kx)` is true."""
    total = 0.0
    for frame, asked in zip(samples, where, strict=True):
        rows = np.flatnonzero(asked.any(axis=1))
        total += float(powers(frame[:, rows]).sum(axis=0)[asked[rows]].sum(dtype=np.float64))
    count = int(where.sum()) * samples.shape[1]
    return total / count if count else 0.0

"""Methods side by side on measured k-space without a truth: scored on samples they were not given.

An image predicts, through the coil maps, every sample that the scanner took. Fully sampled data is
undersampled and scored on what was left out; of undersampled data some more samples are held back. The error
is the norm of measured minus predicted samples over the norm of the measured ones: 1 is what an empty image
has. It holds the noise of the samples and the faults of the coil maps as well, for every method alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import DataError, ReconNodeError
from recon_node.core.types import CoilMaps, ImageSeries, KSpace
from recon_node.files.open import open_source
from recon_node.methods.registry import Methods, make_methods
from recon_node.pipeline.arrays import kspace_from_arrays
from recon_node.pipeline.scan import prepare
from recon_node.pipeline.stages import calibrate, prompt
from recon_node.settings import CoilSettings, PrepSettings, PromptSettings, ReconSettings
from recon_node.simulate import draw_mask
from recon_node.trust import hold_out
from recon_node.trust.prediction import components, squared_errors

BANDS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Upper ends of the bands of k-space, as shares of its half width (an ellipse; corners are in the last)."""
CONDITIONS = (("uniform", 4.0), ("random", 4.0), ("random", 8.0))
"""How fully sampled data is undersampled unless others are asked for."""
HELD_BACK = 0.25
"""Share of the samples outside the calibration block that undersampled data is scored on."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One slice, what methods get of it, and what they are scored on."""

    name: str
    condition: str
    given: KSpace
    measured: NDArray[np.complex64]
    """`(phase, coil, ky, kx)` complex64"""
    scored: NDArray[np.bool_]
    """`(phase, ky, kx)` bool"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One method on one slice under one condition."""

    name: str
    condition: str
    method: str
    error: float
    """Over all samples that were not given."""
    bands: tuple[float | None, ...]
    """By band of k-space (`BANDS`); None where nothing was scored."""


def read_measured(path: Path, *, frames: bool = False) -> list[KSpace]:
    """The slices of a file of measured k-space.

    Parameters
    ----------
    path : Path
        Raw data of any format that the node reads, or an array: `.npy`, or `.npz` with one array of k-space,
        `(coil, ky, kx)` or `(slice, coil, ky, kx)` complex, or real with a last axis of 2.
    frames : bool
        Whether the first of an array's four axes is time.

    Raises
    ------
    SourceError, DataError
        No such file, or no k-space in it.
    """
    if path.suffix not in (".npy", ".npz"):
        with open_source(path) as source:
            return [prepared.kspace for prepared in prepare(source, PrepSettings())]
    array = _array(path)
    if array.ndim == 3 or frames:
        return [kspace_from_arrays(array)]
    return [kspace_from_arrays(one, slice_number=i) for i, one in enumerate(array)]


def _array(path: Path) -> NDArray[np.complex64]:
    try:
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            single = isinstance(loaded, np.ndarray)
            arrays = [loaded] if single else [loaded[key] for key in loaded.files]
    except FileNotFoundError as error:
        raise DataError(f"{path.name}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path.name}: no array that numpy reads ({str(error).splitlines()[0]})") from error
    found = [array for one in arrays if (array := _complex(one)) is not None]
    if len(found) != 1:
        shapes = ", ".join(str(one.shape) for one in arrays) or "none"
        raise DataError(
            f"{path.name}: found arrays of shape {shapes}; expected one of k-space, (coil, ky, kx) or "
            "(slice, coil, ky, kx), complex or with a last axis of 2"
        )
    return found[0]


def _complex(array: NDArray[Any]) -> NDArray[np.complex64] | None:
    if array.dtype.kind in "iuf" and array.ndim in (4, 5) and array.shape[-1] == 2:
        array = array[..., 0].astype(np.float32) + 1j * array[..., 1].astype(np.float32)
    if array.dtype.kind != "c" or array.ndim not in (3, 4):
        return None
    return array.astype(np.complex64)


def trials(
    name: str,
    kspace: KSpace,
    conditions: Sequence[tuple[str, float]] = CONDITIONS,
    *,
    acs: int = 20,
    seed: int = 0,
) -> Iterator[Trial]:
    """What methods are given of a slice, and scored on.

    Raises
    ------
    DataError
        Nothing can be held back.
    """
    if kspace.sampling.pattern != "full":
        held = hold_out(kspace, frames=len(kspace.data), fraction=HELD_BACK, seed=seed)
        if held is None:
            raise DataError(f"{name}: no sample outside the calibration block could be held back")
        given = _given(held.kspace, held.kspace.mask)
        yield Trial(
            name=name,
            condition=f"as measured ({kspace.sampling}), {HELD_BACK:.0%} held back",
            given=given,
            measured=held.measured,
            scored=held.lines,
        )
        return
    for number, (pattern, rate) in enumerate(conditions):
        rng = np.random.default_rng([seed, number])
        mask = kspace.mask & draw_mask(pattern, rate, shape=kspace.mask.shape, acs=acs, rng=rng)
        yield Trial(
            name=name,
            condition=f"{pattern} {rate:g}x",
            given=_given(kspace, mask),
            measured=kspace.data,
            scored=kspace.mask & ~mask,
        )


def _given(kspace: KSpace, mask: NDArray[np.bool_]) -> KSpace:
    """The slice with these samples `(phase, ky, kx)` alone, its calibration among them."""
    made = kspace_from_arrays(
        kspace.data, mask, whitened=kspace.whitened, header=kspace.header, slice_number=kspace.index.slice
    )
    kept = {name: getattr(kspace, name) for name in ("index", "geometry", "rr_interval_ms")}
    return dataclasses.replace(
        made,
        trigger_times_ms=kspace.trigger_times_ms,
        acquisition_times_s=kspace.acquisition_times_s,
        **kept,
    )


def compare(
    files: Sequence[Path],
    methods: Sequence[str],
    recon: ReconSettings,
    *,
    frames: bool = False,
    conditions: Sequence[tuple[str, float]] = CONDITIONS,
    slices: int | None = None,
    seed: int = 0,
    report: Callable[[Score], None] = lambda one: None,
) -> list[Score]:
    """Reconstruct with every method and score it on what was not given.

    Parameters
    ----------
    files : sequence of Path
        See `read_measured`.
    methods : sequence of str
        ``kt`` is left out where there is but one frame.
    recon : ReconSettings
        Of the methods.
    frames, conditions, seed
        See `read_measured` and `trials`.
    slices : int, optional
        At most so many of each file, evenly taken.
    report : callable
        Told of every score.

    Raises
    ------
    ReconNodeError
        What reading, calibration and methods raise, the file's name before it.
    """
    made = {name: make_methods(dataclasses.replace(recon, method=name)) for name in methods}
    found = []
    for path in files:
        kspaces = read_measured(path, frames=frames)
        for kspace in _some(kspaces, slices):
            name = path.name if len(kspaces) == 1 else f"{path.name} slice {kspace.index.slice}"
            for trial in trials(name, kspace, conditions, seed=seed):
                for score in _scores(trial, made):
                    found.append(score)
                    report(score)
    return found


def _some(kspaces: list[KSpace], count: int | None) -> list[KSpace]:
    if count is None or count >= len(kspaces):
        return kspaces
    return [kspaces[int(place)] for place in np.linspace(0, len(kspaces) - 1, count).round()]


def _scores(trial: Trial, made: dict[str, Methods]) -> Iterator[Score]:
    try:
        maps = calibrate(trial.given, CoilSettings())
    except ReconNodeError as error:
        raise type(error)(f"{trial.name}: {error}") from error
    for name, methods in made.items():
        if name == "kt" and len(trial.given.data) == 1:
            continue
        _, text = prompt(trial.given, PromptSettings(), methods)
        yield score(trial, maps, methods.chosen.reconstruct(trial.given, maps, text), name)


def score(trial: Trial, maps: CoilMaps, images: ImageSeries, method: str) -> Score:
    """How well images predict the samples that were not given."""
    predicted = components(images, trial.given, maps)
    squared = squared_errors(predicted, trial.measured, maps, trial.scored)
    power = np.square(np.abs(trial.measured)).sum(axis=1) * trial.scored
    band = _band(trial.scored.shape[1:])
    return Score(
        name=trial.name,
        condition=trial.condition,
        method=method,
        error=_relative(squared, power) or 0.0,
        bands=tuple(_relative(squared[:, band == i], power[:, band == i]) for i in range(len(BANDS))),
    )


def _relative(squared: NDArray[Any], power: NDArray[Any]) -> float | None:
    total = float(power.sum(dtype=np.float64))
    return float(np.sqrt(squared.sum(dtype=np.float64) / total)) if total > 0 else None


def _band(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """`(ky, kx)`: the number of the band that each point lies in."""
    ny, nx = shape
    y, x = np.ogrid[:ny, :nx]
    radius = np.hypot((y - ny // 2) / (ny / 2), (x - nx // 2) / (nx / 2))
    return np.minimum(np.searchsorted(BANDS, radius), len(BANDS) - 1)

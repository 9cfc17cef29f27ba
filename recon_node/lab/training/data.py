"""Training examples. Each depends on the run's seed and its own number alone, so a run resumes exactly."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from recon_node.coils import espirit
from recon_node.core.errors import CalibrationError, ReconNodeError
from recon_node.lab.training.config import DataConfig
from recon_node.lab.training.example import Example
from recon_node.lab.training.pool import Pool, pool_settings
from recon_node.lab.training.sources import Clip, ClipSource
from recon_node.model.consistency import centred_fft, centred_ifft
from recon_node.model.motion import cut_motion, find_motion
from recon_node.prep import classify_sampling
from recon_node.prompts import undersampling_prompt
from recon_node.simulate import draw_mask
from recon_node.solvers.kt import KtConfig, kt_images

SHUFFLED_AMONG = 64
"""Examples among which sentences are shuffled where a run's number of them is not limited."""
LEAST_ROWS = 8
"""Of a heart that a window shows, for the heart to count."""


def undersample(
    clip: Clip,
    config: DataConfig,
    rng: np.random.Generator,
    *,
    start: KtConfig | None = None,
    aligned: int = 0,
) -> Example:
    """Draw a mask for a fully sampled clip and prepare it as the node would.

    Parameters
    ----------
    clip : Clip
        Fully sampled, whitened k-space with its truth.
    config : DataConfig
        Patterns, accelerations and number of ACS lines to draw from.
    rng : numpy Generator
        Decides the mask.
    start : KtConfig, optional
        Make the first estimate with these settings.
    aligned : int
        Find the motion between so many frames of it; 0 for none.
    """
    frames, _, ky, kx = clip.kspace.shape
    pattern = str(rng.choice(config.patterns))
    acceleration = float(rng.choice(config.accelerations))
    mask = draw_mask(pattern, acceleration, shape=(frames, ky, kx), acs=config.acs, rng=rng)
    kspace = clip.kspace * mask[:, None]
    sampling = classify_sampling(mask)
    use_true = clip.maps is not None and rng.random() < config.true_maps
    maps = clip.maps if use_true else _estimated_maps(clip, kspace, config.acs)
    if maps is None:
        raise CalibrationError("no coil maps for a training example")
    first = None if start is None else kt_images(kspace, mask, maps[None], start, torch.device("cpu"))
    estimate = None if first is None else _rows_are_readout(first)
    motion = None
    if estimate is not None and aligned:
        motion = find_motion(estimate, aligned, periodic=clip.periodic)
    return Example(
        kspace=_rows_are_readout(kspace),
        mask=_rows_are_readout(mask),
        maps=_rows_are_readout(maps),
        first=estimate,
        motion=motion,
        target=_rows_are_readout(np.abs(clip.truth).astype(np.float32)),
        still=None if clip.maps is None else _rows_are_readout(_true_average(clip, maps)),
        heart=_heart(clip),
        metadata=clip.metadata,
        undersampling=str(undersampling_prompt(sampling)),
        periodic=clip.periodic,
    )


def _true_average(clip: Clip, maps: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """`(y, x)` time average of the noise-free coil images, combined with `maps`."""
    assert clip.maps is not None  # noqa: S101 - the caller has looked
    coils = clip.maps * clip.truth.mean(axis=0)
    combined: NDArray[np.complex64] = np.sum(maps.conj() * coils, axis=0).astype(np.complex64)
    return combined


def _heart(clip: Clip) -> Tensor | None:
    if clip.heart is None:
        return None
    y, x = clip.heart
    return torch.tensor([x.start, x.stop, y.start, y.stop])


def _estimated_maps(clip: Clip, kspace: NDArray[np.complex64], acs: int) -> NDArray[np.complex64]:
    if clip.calibration is not None and clip.whole is not None:
        found = espirit(clip.calibration, clip.whole).data[0]
        return np.ascontiguousarray(found[..., clip.begin : clip.begin + kspace.shape[-1]])
    ky, kx = kspace.shape[-2:]
    y, x = (ky - acs) // 2, (kx - acs) // 2
    calibration = kspace[:, :, y : y + acs, x : x + acs].mean(axis=0)
    maps: NDArray[np.complex64] = espirit(calibration, (ky, kx)).data[0]
    return maps


def crops(example: Example, rows: int | None, count: int, seed: Sequence[int]) -> Iterator[Example]:
    """`count` smaller problems cut from one example, each about ``rows / height`` of its size.

    Where the mask consists of whole readout lines, the readout is fully sampled, so a window of image rows
    is a reconstruction problem of its own. Other masks give a run of frames.

    Parameters
    ----------
    example : Example
        One clip.
    rows : int or None
        Rows of a window; None (or more than there are) gives the whole example each time.
    count : int
        Windows, drawn independently.
    seed : sequence of int
        Decides where they lie.
    """
    frames, height = example.target.shape[:2]
    rng = np.random.default_rng(list(seed))
    if rows is None or rows >= height:
        yield from itertools.repeat(example, count)
    elif bool((example.mask == example.mask[:, :1]).all()):
        images = centred_ifft(example.kspace)
        for top in rng.integers(height - rows + 1, size=count):
            yield _row_window(example, images, slice(int(top), int(top) + rows))
    else:
        length = -(-frames * rows // height)
        for begin in rng.integers(frames - length + 1, size=count):
            yield _frame_window(example, slice(int(begin), int(begin) + length))


def _row_window(example: Example, images: Tensor, window: slice) -> Example:
    return replace(
        example,
        kspace=centred_fft(images[..., window, :]),
        mask=example.mask[:, window],
        maps=example.maps[:, window],
        target=example.target[:, window],
        still=None if example.still is None else example.still[window],
        heart=heart_in(example.heart, window, example.target.shape[1]),
        first=None if example.first is None else example.first[:, window],
        motion=None if example.motion is None else example.motion[..., window, :],
    )


def heart_in(heart: Tensor | None, window: slice, height: int) -> Tensor | None:
    """The part of the heart that a window of rows shows; None where it shows less than eight rows of it."""
    if heart is None:
        return None
    first, last = (int(v) for v in heart[:2])
    start, stop, _ = window.indices(height)
    low, high = max(first, start) - start, min(last, stop) - start
    return None if high - low < LEAST_ROWS else torch.tensor([low, high, *heart[2:].tolist()])


def _frame_window(example: Example, window: slice) -> Example:
    return replace(
        example,
        kspace=example.kspace[window],
        mask=example.mask[window],
        target=example.target[window],
        still=None,
        first=None if example.first is None else example.first[window],
        motion=None if example.motion is None else cut_motion(example.motion, window),
        periodic=False,
    )


def _rows_are_readout(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.swapaxes(array, -1, -2)))


class ExampleSet(Dataset[Example]):
    """Examples by number.

    `salt` keeps training and validation apart; `shuffled` gives each one the sentences of another, drawn anew
    each time.
    """

    def __init__(
        self,
        source: ClipSource,
        config: DataConfig,
        *,
        seed: int,
        salt: str,
        start: KtConfig | None = None,
        aligned: int = 0,
        shuffled: bool = False,
    ) -> None:
        self.source, self.config, self.start, self.aligned = source, config, start, aligned
        self.entropy, self.shuffled = [seed, *salt.encode()], shuffled
        self.pool = None if config.pool is None else Pool(Path(config.pool), self._settings())

    def __getitem__(self, number: int) -> Example:
        """Draw example `number`, or take it from the pool."""
        example = self._numbered(number)
        if not self.shuffled:
            return example
        other = self._numbered(number + self._away(number))
        return replace(example, metadata=other.metadata, undersampling=other.undersampling)

    def _away(self, number: int) -> int:
        """How far the example lies whose sentences number `number` gets."""
        among = self.config.examples or SHUFFLED_AMONG
        return int(np.random.default_rng([*self.entropy, number, 2]).integers(1, max(2, among)))

    def _numbered(self, number: int) -> Example:
        number = number if self.config.examples is None else number % self.config.examples
        return self._made(number) if self.pool is None else self.pool.get(number, lambda: self._made(number))

    def _made(self, number: int) -> Example:
        rng = np.random.default_rng([*self.entropy, number])
        clip = self.source.draw(rng)
        return undersample(clip, self.config, rng, start=self.start, aligned=self.aligned)

    def _settings(self) -> dict[str, Any]:
        start = None if self.start is None else dataclasses.asdict(self.start)
        return pool_settings(
            dataclasses.asdict(self.config), start=start, aligned=self.aligned, entropy=self.entropy
        )


class _Told(Dataset[Example | ReconNodeError]):
    """Examples, or the error in place of one: a worker would pass it on as a page of traceback."""

    def __init__(self, examples: ExampleSet) -> None:
        self.examples = examples

    def __getitem__(self, number: int) -> Example | ReconNodeError:
        try:
            return self.examples[number]
        except ReconNodeError as error:
            return error


class _From(Sampler[int]):
    def __init__(self, first: int, stride: int) -> None:
        self.first, self.stride = first, stride

    def __iter__(self) -> Iterator[int]:
        number = self.first
        while True:
            yield number
            number += self.stride


def stream(examples: ExampleSet, *, taken: int, rank: int, world: int, workers: int) -> Iterator[Example]:
    """Endless windows of examples, prepared by `workers` processes, in order.

    Process `rank` of `world` sees every `world`-th example and `windows` of each; `taken` says how many
    windows it has had, so that a resumed run goes on where it stopped.
    """
    config = examples.config
    done, begun = divmod(taken, config.windows)
    first = done * world + rank
    for offset, example in enumerate(_prepared(examples, first=first, stride=world, workers=workers)):
        seed = (*examples.entropy, first + offset * world, 1)
        windows = crops(example, config.rows, config.windows, seed)
        yield from itertools.islice(windows, 0 if offset else begun, None)


def _prepared(examples: ExampleSet, *, first: int, stride: int, workers: int) -> Iterator[Example]:
    loader: DataLoader[Example | ReconNodeError] = DataLoader(
        _Told(examples),
        batch_size=None,
        sampler=_From(first, stride),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_one_thread if workers else None,
    )
    for made in loader:
        if isinstance(made, ReconNodeError):
            raise made
        yield made


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)

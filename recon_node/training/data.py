"""Training examples. Each depends on the run's seed and its own number alone, so a run resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from recon_node.coils import espirit
from recon_node.core.errors import CalibrationError
from recon_node.prep import classify_sampling
from recon_node.prompts import undersampling_prompt
from recon_node.simulate import draw_mask
from recon_node.training.config import DataConfig
from recon_node.training.sources import Clip, ClipSource


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One undersampled clip with its truth, rows along readout and columns along phase encoding."""

    kspace: Tensor
    """`(frame, coil, row, column)` complex64, zero where not sampled."""
    mask: Tensor
    """`(frame, row, column)` bool."""
    maps: Tensor
    """`(coil, row, column)` complex64."""
    target: Tensor
    """`(frame, row, column)` float32 magnitude."""
    metadata: str
    undersampling: str
    periodic: bool
    """Whether the last frame is followed by the first."""


def undersample(clip: Clip, config: DataConfig, rng: np.random.Generator) -> Example:
    """Draw a mask for a fully sampled clip and prepare it as the node would.

    Parameters
    ----------
    clip : Clip
        Fully sampled, whitened k-space with its truth.
    config : DataConfig
        Patterns, accelerations and number of ACS lines to draw from.
    rng : numpy Generator
        Decides the mask.
    """
    frames, _, ky, kx = clip.kspace.shape
    pattern = str(rng.choice(config.patterns))
    acceleration = float(rng.choice(config.accelerations))
    mask = draw_mask(pattern, acceleration, shape=(frames, ky, kx), acs=config.acs, rng=rng)
    kspace = clip.kspace * mask[:, None]
    sampling = classify_sampling(mask)
    use_true = clip.maps is not None and rng.random() < config.true_maps
    maps = clip.maps if use_true else _estimated_maps(kspace, config.acs)
    return Example(
        kspace=_rows_are_readout(kspace),
        mask=_rows_are_readout(mask),
        maps=_rows_are_readout(maps),
        target=_rows_are_readout(np.abs(clip.truth).astype(np.float32)),
        metadata=clip.metadata,
        undersampling=str(undersampling_prompt(sampling)),
        periodic=clip.periodic,
    )


def _estimated_maps(kspace: NDArray[np.complex64], acs: int) -> NDArray[np.complex64]:
    ky, kx = kspace.shape[-2:]
    y, x = (ky - acs) // 2, (kx - acs) // 2
    calibration = kspace[:, :, y : y + acs, x : x + acs].mean(axis=0)
    maps: NDArray[np.complex64] = espirit(calibration, (ky, kx)).data[0]
    return maps


def _rows_are_readout(array: NDArray[Any] | None) -> Tensor:
    if array is None:
        raise CalibrationError("no coil maps for a training example")
    return torch.from_numpy(np.ascontiguousarray(np.swapaxes(array, -1, -2)))


class ExampleSet(Dataset[Example]):
    """Examples by number; `salt` keeps training and validation apart."""

    def __init__(self, source: ClipSource, config: DataConfig, *, seed: int, salt: str) -> None:
        self.source, self.config = source, config
        self.entropy = [seed, *salt.encode()]

    def __getitem__(self, number: int) -> Example:
        """Draw example `number`."""
        rng = np.random.default_rng([*self.entropy, number])
        return undersample(self.source.draw(rng), self.config, rng)


class _From(Sampler[int]):
    def __init__(self, first: int, stride: int) -> None:
        self.first, self.stride = first, stride

    def __iter__(self) -> Iterator[int]:
        number = self.first
        while True:
            yield number
            number += self.stride


def stream(examples: ExampleSet, *, first: int, stride: int, workers: int) -> Iterator[Example]:
    """Endless examples `first`, `first + stride`, ... prepared by `workers` processes, in order."""
    loader: DataLoader[Example] = DataLoader(
        examples,
        batch_size=None,
        sampler=_From(first, stride),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_one_thread if workers else None,
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)

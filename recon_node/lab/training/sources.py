"""Fully sampled clips to undersample: drawn by the simulator, or cut from raw data files."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recon_node.coils import combine, espirit
from recon_node.core.errors import ConfigError, DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.grid import central
from recon_node.core.types import KSpace
from recon_node.lab.training.config import DataConfig
from recon_node.pipeline.scan import open_scan
from recon_node.prompts import metadata_prompt, metadata_sentence
from recon_node.simulate import PHASES, draw_example, find_models

MOVING = ("cine", "phase contrast", "tagging")
"""Modalities whose frames follow the cardiac cycle."""
PERIODIC = ("cine", "phase contrast")
"""Those whose last frame is followed by the first (tags fade)."""
FORGETFUL = 0.1
"""Share of metadata words that a simulated header does not give."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """A fully sampled clip."""

    kspace: NDArray[np.complex64]
    """`(phase, coil, ky, kx)` complex64, unit noise."""
    truth: NDArray[np.complex64]
    """`(phase, y, x)` complex64."""
    maps: NDArray[np.complex64] | None
    """`(coil, y, x)` complex64 true maps, where known."""
    metadata: str
    """The metadata sentence."""
    periodic: bool
    """Whether the last frame is followed by the first."""


class ClipSource(Protocol):
    """Where clips come from."""

    def draw(self, rng: np.random.Generator) -> Clip:
        """One clip, decided by `rng` alone."""


class SimulatorClips:
    """Clips from the simulator."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.models = [
            model
            for model in find_models()
            if model.vendor not in config.hold_out_vendors and model.nominal_t not in config.hold_out_fields
        ]
        if not self.models:
            raise ConfigError("training data: every scanner is held out, expected at least one to be left")

    def draw(self, rng: np.random.Generator) -> Clip:
        """Simulate one clip; words of its metadata are forgotten now and then, as headers do."""
        config = self.config
        modality = str(rng.choice(config.modalities))
        model = self.models[int(rng.integers(len(self.models)))]
        moves = modality in MOVING
        restless = rng.random() < config.free_breathing
        example = draw_example(
            rng,
            matrix=config.matrix,
            phases=config.frames if moves else min(config.frames, PHASES[modality]),
            coils=int(rng.integers(config.coils[0], config.coils[1] + 1)),
            modality=modality,
            vendor=model.vendor,
            model=model.name,
            field_t=model.nominal_t,
            breathing_mm=float(rng.uniform(2, 5)) if restless else None,
            arrhythmia=float(rng.uniform(0.02, 0.08)) if restless else None,
        )
        words = {
            slot: "unknown" if rng.random() < FORGETFUL else word for slot, word in example.metadata.items()
        }
        return Clip(
            kspace=example.kspace,
            truth=example.images,
            maps=example.maps,
            metadata=metadata_sentence(**words),
            periodic=modality in PERIODIC,
        )


def find_files(config: DataConfig) -> list[Path]:
    """The raw data files that the settings name, sorted.

    Raises
    ------
    ConfigError
        If there is none.
    """
    found = {Path(p) for pattern in config.files for p in glob.glob(pattern, recursive=True)}  # noqa: PTH207 - the pattern may be absolute
    if not found:
        raise ConfigError(f"training data: no file matches {list(config.files)}")
    return sorted(found)


class FileClips:
    """Clips from fully sampled raw data: anything `open_scan` reads."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.paths = find_files(config)

    def draw(self, rng: np.random.Generator) -> Clip:
        """Cut one clip from a slice drawn among a file drawn."""
        path = self.paths[int(rng.integers(len(self.paths)))]
        scans = list(open_scan(path))
        if not scans:
            raise DataError(f"training data {path}: no complete slice in it")
        scan = scans[int(rng.integers(len(scans)))]
        if scan.sampling.pattern != "full":
            raise DataError(f"training data {path}: found {scan.sampling.pattern} sampling, expected full")
        return _clip(scan, self.config, rng)


def _clip(scan: KSpace, config: DataConfig, rng: np.random.Generator) -> Clip:
    phases = scan.data.shape[0]
    frames = min(config.frames, phases)
    first = int(rng.integers(phases))
    chosen = scan.data[(first + np.arange(frames)) % phases]
    kspace = _cropped(chosen, config.matrix)
    ky, kx = kspace.shape[-2:]
    images = centred_ifft(kspace)
    side = min(24, ky, kx)
    y, x = (ky - side) // 2, (kx - side) // 2
    maps = espirit(kspace[:, :, y : y + side, x : x + side].mean(axis=0), (ky, kx))
    return Clip(
        kspace=kspace,
        truth=combine(images, maps),
        maps=maps.data[0],
        metadata=str(metadata_prompt(scan.header)),
        periodic=frames == phases,
    )


def _cropped(kspace: NDArray[np.complex64], matrix: tuple[int, int]) -> NDArray[np.complex64]:
    """Crop the field of view to at most `matrix` around the centre (rescaled to keep unit noise)."""
    images = centred_ifft(kspace)
    for axis, size in zip((-2, -1), matrix, strict=True):
        full = images.shape[axis]
        if full > size:
            images = np.take(images, np.arange(full)[central(full, size)], axis=axis)
    return centred_fft(images).astype(np.complex64)


def clip_source(config: DataConfig) -> ClipSource:
    """The source the settings name."""
    return FileClips(config) if config.source == "files" else SimulatorClips(config)

"""Fully sampled clips to undersample: drawn by the simulator, or cut from raw data files."""

from __future__ import annotations

import glob
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recon_node.coils import combine, espirit
from recon_node.core.errors import ConfigError, DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.grid import central
from recon_node.core.types import KSpace
from recon_node.lab.cines import read_cines
from recon_node.lab.training.config import DataConfig
from recon_node.pipeline.scan import open_scan
from recon_node.prompts import metadata_prompt, metadata_sentence
from recon_node.simulate import PHASES, draw_example, find_models
from recon_node.simulate.augment import augmented
from recon_node.simulate.cine import Cine, Imaged, heart_window, imaged
from recon_node.simulate.example import complex_noise

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
    calibration: NDArray[np.complex64] | None = None
    """`(coil, acs, acs)` of the whole field of view, where the clip is a window along the readout."""
    whole: tuple[int, int] | None = None
    """(y, x) of the whole field of view."""
    begin: int = 0
    """First column of the window in it."""
    heart: tuple[slice, slice] | None = None
    """Rows and columns of the clip around the heart."""


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


def trained_on(config: DataConfig) -> list[Cine]:
    """The real hearts that a run with these settings is trained on."""
    return read_cines(Path(config.cines or ""), leave_out=config.leave_out)


class CineClips:
    """Clips from real hearts, augmented, and simulated ones among them."""

    def __init__(self, config: DataConfig, *, validating: bool = False) -> None:
        self.config, self.validating = config, validating
        self.drawn = SimulatorClips(config)
        folder = Path(config.cines or "")
        if validating and config.leave_out:
            self.cines = read_cines(folder, only=config.leave_out)
        else:
            self.cines = trained_on(config)

    def draw(self, rng: np.random.Generator) -> Clip:
        """Scan one heart; one that is validated on is not augmented."""
        config = self.config
        if not self.validating and rng.random() < config.drawn:
            return self.drawn.draw(rng)
        cine = self.cines[int(rng.integers(len(self.cines)))]
        frames = min(config.frames, len(cine.images))
        if self.validating:
            cine = replace(
                cine, images=cine.images[:: max(1, len(cine.images) // frames)], trigger_times_ms=None
            )
        else:
            cine = augmented(rng, cine, frames=frames)
        return clip_of_cine(rng, cine, config)


def clip_of_cine(rng: np.random.Generator, cine: Cine, config: DataConfig) -> Clip:
    """Scan one real heart with drawn coils, and keep the columns around it."""
    seen = imaged(
        rng,
        cine,
        coils=int(rng.integers(config.coils[0], config.coils[1] + 1)),
        shading=float(rng.choice([0.0, 0.0, 0.5])),
    )
    return _windowed(rng, seen, config)


def _windowed(rng: np.random.Generator, seen: Imaged, config: DataConfig) -> Clip:
    """The columns around the heart: where lines are sampled whole, a window is a problem of its own."""
    ny, nx = seen.images.shape[1:]
    rows, columns = heart_window(seen.images, seen.pixel_mm)
    width = min(config.window, nx)
    free = max(width - (columns.stop - columns.start), 0)
    begin = int(np.clip(columns.start - rng.integers(free + 1), 0, nx - width))
    part = np.s_[..., begin : begin + width]
    images, maps = seen.images[part], seen.maps[part]
    kspace = centred_fft(maps[None] * images[:, None]).astype(np.complex64)
    kspace += complex_noise(rng, kspace.shape)
    side = min(config.acs, ny, nx)
    y, x = ny // 2 - side // 2, nx // 2 - side // 2
    calibration = centred_fft(seen.maps * seen.images.mean(axis=0))[:, y : y + side, x : x + side]
    calibration = calibration + complex_noise(rng, calibration.shape) / np.sqrt(len(images))
    words = {slot: "unknown" if rng.random() < FORGETFUL else word for slot, word in seen.metadata.items()}
    return Clip(
        kspace=kspace,
        truth=images,
        maps=maps,
        metadata=metadata_sentence(**words),
        periodic=True,
        calibration=calibration.astype(np.complex64),
        whole=(ny, nx),
        begin=begin,
        heart=(rows, slice(columns.start - begin, min(columns.stop - begin, width))),
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


def clip_source(config: DataConfig, *, validating: bool = False) -> ClipSource:
    """The source the settings name; `validating` gives real hearts that training leaves out."""
    if config.source == "cines":
        return CineClips(config, validating=validating)
    return FileClips(config) if config.source == "files" else SimulatorClips(config)

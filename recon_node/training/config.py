"""Every setting of a training run, from one TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recon_node.core.errors import ConfigError
from recon_node.model import CardioMMConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where training examples come from, and how they are undersampled."""

    source: Literal["simulator", "files"] = "simulator"
    files: tuple[str, ...] = ()
    """Globs of raw data (`source = "files"`): anything `open_scan` reads, fully sampled."""
    matrix: tuple[int, int] = (128, 128)
    """(ky, kx) of simulated examples; files are cropped to it where larger."""
    frames: int = 12
    rows: int | None = None
    """Train on windows of this many rows where the mask consists of whole readout lines."""
    windows: int = 1
    """Windows (optimiser steps) for each example."""
    coils: tuple[int, int] = (5, 10)
    """Smallest and largest number of simulated coils."""
    patterns: tuple[str, ...] = ("uniform", "random", "radial")
    accelerations: tuple[float, ...] = (4, 8, 12, 16, 20, 24)
    acs: int = 20
    modalities: tuple[str, ...] = ("cine",)
    """Modalities the simulator draws from, evenly; one named twice is drawn twice as often."""
    free_breathing: float = 0.0
    """Share of simulated examples with strong breathing and an irregular heartbeat."""
    hold_out_vendors: tuple[str, ...] = ()
    hold_out_fields: tuple[float, ...] = ()
    """Vendors and field strengths (T) that training never sees, for zero-shot measurements."""
    true_maps: float = 0.0
    """Share of examples that use the simulator's true coil maps in place of ESPIRiT's."""
    workers: int = 1
    """Processes that prepare examples; 0 prepares them in the training process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """How the prompts reach the network."""

    encoder: str = "minilm"
    folder: str | None = None
    """Folder of a CLIP text tower in Hugging Face layout (`encoder = "clip"`)."""
    dropout: float = 0.1
    """Share of examples whose sentences are replaced by all-unknown ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """Optimiser and schedule."""

    lr: float = 2e-4
    weight_decay: float = 0.01
    steps: int = 1000
    warmup: int = 50
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    step_at: tuple[float, ...] = (0.73,)
    """For `step`: fractions of the run after which the rate falls tenfold (the paper: after 11 of 15)."""
    accumulate: int = 1
    clip_norm: float = 1.0
    ema: float = 0.995
    """Decay of the moving average that is shipped; 0 ships the raw weights."""
    precision: Literal["fp32", "bf16"] = "fp32"
    loss: Mapping[str, float] = field(default_factory=lambda: {"ssim": 1.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Where the run lives and how often it looks at itself."""

    name: str = "cardiomm"
    out: str = "runs/cardiomm"
    seed: int = 0
    checkpoint_every: int = 100
    validate_every: int = 200
    validation_examples: int = 4
    minutes: float | None = None
    """Wall-clock limit: the schedule runs over this time in place of `optim.steps`."""
    init: str | None = None
    """Weights to start from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run."""

    model: CardioMMConfig
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, JSON-able."""
        plain = {name: dataclasses.asdict(getattr(self, name)) for name in _SECTIONS}
        return {"model": self.model.to_dict(), **plain}


_SECTIONS: dict[str, type[Any]] = {
    "data": DataConfig,
    "text": TextConfig,
    "optim": OptimConfig,
    "run": RunConfig,
}


def load_train_config(path: Path) -> TrainConfig:
    """Read a run's settings.

    Raises
    ------
    ConfigError
        File missing, not TOML, or with a section or key that does not exist.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"training settings {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"training settings {path} are not TOML: {error}") from error
    return train_config_from_dict(tree)


def train_config_from_dict(tree: Mapping[str, Any]) -> TrainConfig:
    """Build the settings from nested tables; an unknown key is an error."""
    unknown = sorted(set(tree) - {"model", *_SECTIONS})
    if unknown:
        raise ConfigError(
            f"training settings: unknown section {unknown}, expected model, {', '.join(_SECTIONS)}"
        )
    sections = {name: _section(name, kind, tree.get(name, {})) for name, kind in _SECTIONS.items()}
    return TrainConfig(model=CardioMMConfig.from_dict(dict(tree.get("model", {}))), **sections)


def _section(name: str, kind: type[Any], table: Mapping[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            f"training settings [{name}]: unknown key {unknown}, expected some of {sorted(known)}"
        )
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in table.items()})

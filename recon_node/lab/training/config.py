"""Every setting of a training run, from one TOML file."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recon_node.core.errors import ConfigError
from recon_node.model import CardioMMConfig
from recon_node.simulate import MODALITIES, NOMINAL_FIELDS_T, PATTERNS, VENDORS


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
    """Vendors and field strengths (T) that neither training nor its validation sees (simulator only), for
    zero-shot measurements."""
    true_maps: float = 0.0
    """Share of examples that use the simulator's true coil maps in place of ESPIRiT's."""
    pool: str | None = None
    """Folder that keeps prepared examples: runs that ask for the same ones make each once."""
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


def load_train_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Read a run's settings.

    Parameters
    ----------
    path : Path
        TOML file.
    changes : sequence of str
        Settings in place of the file's, each ``section.key=value``; a value that is not TOML is text.

    Raises
    ------
    ConfigError
        File missing, not TOML, or with a section or key that does not exist; a change without a key or value.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"training settings {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"training settings {path} are not TOML: {error}") from error
    for change in changes:
        _change(tree, change)
    return train_config_from_dict(tree)


def _change(tree: dict[str, Any], change: str) -> None:
    where, equals, value = change.partition("=")
    *sections, key = where.strip().split(".")
    if not (equals and sections and key and all(sections)):
        raise ConfigError(f"training settings: found {change!r}, expected section.key=value")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"training settings: {change!r} goes through {section}, which is no section")
    try:
        tree[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        tree[key] = value.strip()


def train_config_from_dict(tree: Mapping[str, Any]) -> TrainConfig:
    """Build the settings from nested tables; an unknown key is an error."""
    unknown = sorted(set(tree) - {"model", *_SECTIONS})
    if unknown:
        raise ConfigError(
            f"training settings: unknown section {unknown}, expected model, {', '.join(_SECTIONS)}"
        )
    sections = {name: _section(name, kind, tree.get(name, {})) for name, kind in _SECTIONS.items()}
    model = CardioMMConfig.from_dict(dict(tree.get("model", {})))
    if model.sensitivity is not None:
        raise ConfigError(
            "training settings [model]: found a sensitivity network; training uses ESPIRiT maps, and would "
            "leave it untrained"
        )
    _check_words(sections["data"])
    return TrainConfig(model=model, **sections)


def _check_words(data: DataConfig) -> None:
    """Refuse words that the simulator doesn't know, and hold-outs that nothing would hold to."""
    vocabulary: dict[str, Collection[object]] = {
        "patterns": PATTERNS,
        "modalities": tuple(MODALITIES),
        "hold_out_vendors": VENDORS,
        "hold_out_fields": NOMINAL_FIELDS_T,
    }
    for key, known in vocabulary.items():
        for word in getattr(data, key):
            expected = ", ".join(map(str, known))
            _expect(word in known, f"[data] {key}", word, f"one or more of {expected}")
        if data.source == "files" and key.startswith("hold_out") and getattr(data, key):
            raise ConfigError(
                f'training settings [data] {key}: only source = "simulator" can hold scanners out'
            )


def _section(name: str, kind: type[Any], table: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise ConfigError(
            f"training settings [{name}]: unknown key {unknown}, expected some of {sorted(hints)}"
        )
    return kind(**{key: _value(f"[{name}] {key}", hints[key], value) for key, value in table.items()})


_LEAST: dict[str, float] = {
    **dict.fromkeys(("steps", "accumulate", "frames", "windows", "rows", "acs"), 1),
    **dict.fromkeys(("checkpoint_every", "validate_every", "validation_examples"), 1),
}
"""Smallest values; 0 for all other numbers."""
_SHARES = ("ema", "dropout", "true_maps", "free_breathing")
_MAY_BE_EMPTY = ("files", "hold_out_vendors", "hold_out_fields", "step_at")


def _value(where: str, hint: Any, value: Any) -> Any:
    """`value` as the type that `hint` asks for, within its range."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    name = where.rsplit(maxsplit=1)[-1]
    if origin is types.UnionType:
        return None if value is None else _value(where, options[0], value)
    if origin is typing.Literal:
        return _expect(value in options, where, value, " or ".join(options))
    if origin is tuple:
        some = isinstance(value, list | tuple)
        items = options[:1] * len(value) if some and options[-1] is Ellipsis else options
        fits = some and len(items) == len(value) and (len(value) > 0 or name in _MAY_BE_EMPTY)
        wanted = "a list, not empty" if options[-1] is Ellipsis else "two numbers"
        _expect(fits, where, value, wanted)
        return tuple(_value(where, kind, item) for kind, item in zip(items, value, strict=True))
    if origin is not None:
        return _expect(isinstance(value, Mapping), where, value, "a table of weights")
    if hint is str:
        return _expect(isinstance(value, str), where, value, "text")
    kinds = int if hint is int else int | float
    wanted = "a whole number" if hint is int else "a number"
    _expect(isinstance(value, kinds) and not isinstance(value, bool), where, value, wanted)
    least, most = _LEAST.get(name, 0), 1 if name in _SHARES else math.inf
    return _expect(
        least <= value <= most, where, value, f"{least:g} or more" if most == math.inf else "0 to 1"
    )


def _expect(fits: bool, where: str, value: Any, expected: str) -> Any:
    if not fits:
        raise ConfigError(f"training settings {where}: found {value!r}, expected {expected}")
    return value

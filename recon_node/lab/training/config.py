"""Every setting of a training run, from one TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from recon_node.core.errors import ConfigError
from recon_node.model import CardioMMConfig
from recon_node.schema import Checked, Refused, checked, make, read_toml, setting
from recon_node.simulate import MODALITIES, NOMINAL_FIELDS_T, PATTERNS, VENDORS

LABEL = "training settings"
Count = Annotated[int, Field(ge=1, le=10**9)]
Number = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Acceleration = Annotated[
    float, Field(ge=1, le=1000), AfterValidator(lambda r: int(r) if r.is_integer() else r)
]
"""A whole one stays whole, so that a run's settings, and the examples kept for them, are named as before."""


@checked(section="data", label=LABEL)
class DataConfig(Checked):
    """Where training examples come from, and how they are undersampled."""

    source: Literal["simulator", "files", "cines"] = "simulator"
    """The simulator on the fly, raw data files, or images of real hearts made scans."""
    files: tuple[Text, ...] = ()
    """Globs of raw data (`source = "files"`): anything `open_scan` reads, fully sampled."""
    cines: Text | None = None
    """Folder of real hearts (`source = "cines"`): npz, DICOM series or NIfTI."""
    leave_out: tuple[Text, ...] = ()
    """Clips of that folder that are kept for validation, by parts of their names or patterns with ``*``."""
    drawn: Share = 0.25
    """Share of simulated hearts among real ones."""
    window: Count = 96
    """Columns (along the readout) around a real heart that an example shows."""
    examples: Count | None = None
    """Number of different examples of a run, which then come again; None makes each one new."""
    matrix: tuple[Count, Count] = (128, 128)
    """(ky, kx) of simulated examples; files are cropped to it where larger."""
    frames: Count = 12
    """Heart phases of an example."""
    rows: Count | None = None
    """Train on windows of this many rows where the mask consists of whole readout lines."""
    windows: Count = 1
    """Windows (optimiser steps) for each example."""
    coils: tuple[Count, Count] = (5, 10)
    """Smallest and largest number of simulated coils."""
    patterns: tuple[str, ...] = setting(("uniform", "random", "radial"), min_length=1)
    """Sampling patterns that masks are drawn from."""
    accelerations: tuple[Acceleration, ...] = setting((4, 8, 12, 16, 20, 24), min_length=1)
    """Factors that they are drawn from."""
    acs: Count = 20
    """Central lines that every mask keeps."""
    modalities: tuple[str, ...] = setting(("cine",), min_length=1)
    """Modalities the simulator draws from, evenly; one named twice is drawn twice as often."""
    free_breathing: Share = 0.0
    """Share of simulated examples with strong breathing and an irregular heartbeat."""
    hold_out_vendors: tuple[str, ...] = ()
    """Vendors that neither training nor its validation sees (simulator only), for zero-shot measurements."""
    hold_out_fields: tuple[float, ...] = setting((), unit="T")
    """The same for field strengths."""
    true_maps: Share = 0.0
    """Share of examples that use the simulator's true coil maps in place of ESPIRiT's."""
    pool: Text | None = None
    """Folder that keeps prepared examples: runs that ask for the same ones make each once."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 1
    """Processes that prepare examples; 0 prepares them in the training process."""

    @model_validator(mode="after")
    def _words_are_known(self) -> Self:
        vocabulary: dict[str, Collection[object]] = {
            "patterns": PATTERNS,
            "modalities": tuple(MODALITIES),
            "hold_out_vendors": VENDORS,
            "hold_out_fields": NOMINAL_FIELDS_T,
        }
        if self.source == "cines" and self.cines is None:
            raise Refused('a folder of real hearts, with source = "cines"', key="cines", found=None)
        if self.coils[0] > self.coils[1]:
            raise Refused("the smaller number first", key="coils", found=self.coils)
        for key, known in vocabulary.items():
            for word in getattr(self, key):
                if word not in known:
                    raise Refused(f"one or more of {', '.join(map(str, known))}", key=key, found=word)
            if self.source != "simulator" and key.startswith("hold_out") and getattr(self, key):
                told = 'only source = "simulator" can hold scanners out'
                raise Refused(key=key, told=told)
        return self


@checked(section="text", label=LABEL)
class TextConfig(Checked):
    """How the prompts reach the network."""

    encoder: Text = "minilm"
    """Text encoder, which the weights then stay bound to."""
    folder: Text | None = None
    """Folder of a CLIP text tower in Hugging Face layout (`encoder = "clip"`)."""
    dropout: Share = 0.1
    """Share of examples whose sentences are replaced by all-unknown ones."""
    shuffled: bool = False
    """Give every example the sentences of another: a network with all the parameters for texts, and none
    of what they say (`recon-node evaluate ablation`)."""


@checked(section="optim", label=LABEL)
class OptimConfig(Checked):
    """Optimiser and schedule."""

    lr: Number = 2e-4
    """Highest learning rate (AdamW)."""
    weight_decay: Number = 0.01
    """Of AdamW."""
    steps: Count = 1000
    """Optimiser steps of the run, where `run.minutes` is not set."""
    warmup: Annotated[int, Field(ge=0, le=10**9)] = 50
    """Steps in which the rate rises to `lr`."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """How the rate falls after that."""
    step_at: tuple[Share, ...] = (0.73,)
    """For `step`: fractions of the run after which the rate falls tenfold (the paper: after 11 of 15)."""
    accumulate: Count = 1
    """Examples whose gradients make one step."""
    clip_norm: Number = 1.0
    """Largest norm of a step's gradient."""
    ema: Share = 0.995
    """Decay of the moving average that is shipped; 0 ships the raw weights."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the network while it trains."""
    parts: tuple[Literal["last", "last-two", "cascades", "heads"], ...] = ()
    """Parts of the network that are trained; all if empty. ``last`` or ``last-two`` alone (cascades)
    are trained on a few frames at a time, while what the cascades before them make is kept in memory."""
    loss: Mapping[str, float] = setting(factory=lambda: {"ssim": 1.0})
    """Weights of the loss's terms: `ssim` (the paper's), `l1`, `rms`, `relative`, `heart`, `heart_ssim`."""


@checked(section="run", label=LABEL)
class RunConfig(Checked):
    """Where the run lives and how often it looks at itself."""

    name: Text = "cardiomm"
    """Name of the weights."""
    out: Text = "runs/cardiomm"
    """Folder of the run."""
    seed: Annotated[int, Field(ge=0, le=10**18)] = 0
    """Of everything that is drawn."""
    checkpoint_every: Count = 100
    """Steps between two checkpoints."""
    validate_every: Count = 200
    """Steps between two looks at examples that are not trained on."""
    validation_examples: Count = 4
    """How many of them."""
    minutes: Number | None = setting(None, unit="min")
    """Wall-clock limit: the schedule runs over this time in place of `optim.steps`."""
    init: Text | None = None
    """Weights to start from."""


@checked(label=LABEL)
class TrainConfig(Checked):
    """One run."""

    model: CardioMMConfig = CardioMMConfig()
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, JSON-able."""
        return dataclasses.asdict(self)

    @model_validator(mode="after")
    def _every_part_is_trained(self) -> Self:
        if self.model.sensitivity is not None:
            told = "found a sensitivity network; training uses ESPIRiT maps, and would leave it untrained"
            raise Refused(key=("model", "sensitivity"), told=told)
        return self


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
    tree = read_toml(path, LABEL)
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
    """Build the settings from nested tables.

    Raises
    ------
    ConfigError
        An unknown section or key, or a value that is not allowed.
    """
    return make(TrainConfig, tree)

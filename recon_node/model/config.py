"""The frozen description of a CardioMM network; two networks with equal configurations have equal shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from recon_node.core.errors import ConfigError
from recon_node.solvers.kt import KtConfig

TextNorm = Literal["l2", "sign"]
Start = Literal["zero-filled", "kt"]
Consistency = Literal["step", "proximal"]
Triple = tuple[int, int, int]

DEPTH = 8
"""Three stride-2 levels: image sides are padded to multiples of this."""


def _check_int(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"network configuration: {name} is {value!r}, expected a whole number >= {least}")


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"network configuration: {name} is {value!r}, expected true or false")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"network configuration: {name} is {value!r}, expected {' or '.join(choices)}")


def _check_triple(name: str, value: Any, least: int) -> None:
    if not isinstance(value, tuple) or len(value) != 3:
        raise ConfigError(f"network configuration: {name} is {value!r}, expected three whole numbers")
    for item in value:
        _check_int(name, item, least)


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """Widths of one prompted UNet; the defaults are the published cascade's."""

    stem: int = 48
    """Features at full resolution."""
    levels: Triple = (72, 96, 120)
    """Features after each of the three stride-2 steps."""
    prompts: Triple = (24, 48, 72)
    """Prompt channels at decoder levels 1, 2, 3 (1 is the one nearest to the image)."""
    bank_sizes: Triple = (64, 32, 16)
    """Side of the prompt bank at decoder levels 1, 2, 3; resized to the feature map."""
    bank_components: int = 3
    """Prompts that the undersampling text mixes."""
    encoder_blocks: Triple = (2, 3, 3)
    decoder_blocks: Triple = (2, 2, 3)
    skip_blocks: Triple = (1, 1, 1)
    bottleneck_blocks: int = 3
    reduction: int = 4
    """Channel attention squeezes to ``features // reduction``."""

    def __post_init__(self) -> None:
        for name in ("levels", "prompts", "bank_sizes", "encoder_blocks", "decoder_blocks", "skip_blocks"):
            least = 0 if name.endswith("blocks") else 1
            _check_triple(name, getattr(self, name), least)
        for name, least in (("stem", 1), ("bank_components", 1), ("bottleneck_blocks", 0), ("reduction", 1)):
            _check_int(name, getattr(self, name), least)

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Features at full, half, quarter and eighth resolution."""
        return (self.stem, *self.levels)


PUBLISHED_SENSITIVITY = UNetConfig(stem=24, levels=(36, 48, 60), prompts=(12, 24, 36))


@dataclass(frozen=True, slots=True, kw_only=True)
class CardioMMConfig:
    """A CardioMM network: cascades of a text-aware UNet and data consistency.

    The defaults follow the paper (arXiv 2512.21652) without the learned coil maps; `published` adds
    what a published checkpoint needs.
    """

    cascades: int = 10
    unet: UNetConfig = UNetConfig()
    sensitivity: UNetConfig | None = None
    """Widths of the network that learns coil maps; None where maps are always given."""
    frames: int = 1
    """Odd number of neighbouring frames the UNet sees for each frame it makes."""
    temporal_mean: bool = False
    """Also show the UNet the mean over frames of the first estimate (two more channels)."""
    start: Start = "zero-filled"
    """First estimate: zero-filled as published, or k-t sparse SENSE, which the cascades then improve."""
    kt: KtConfig = KtConfig()
    """Settings of the first estimate where `start` is ``kt``."""
    aligned: bool = False
    """Move neighbouring frames onto the one they are shown for, by the motion found in the first estimate,
    and show their agreeing mean as well (two more channels), which a third output channel blends in."""
    consistency: Consistency = "step"
    """Data consistency: one gradient step as published, or the proximal step, solved by conjugate gradients
    (Aggarwal et al., IEEE Trans Med Imaging 38:394, 2019, eq. 9)."""
    residual: bool = False
    """Whether the UNet's output is a correction of its (centre) input."""
    metadata_text: bool = True
    """Whether the metadata adapters see the text; without it their gates are plain parameters."""
    undersampling_text: bool = True
    """Whether the prompters see the text; without it the mixture of the bank is a plain parameter."""
    text_features: int = 512
    """Length of the text encoder's vectors (CLIP ViT-B/16: 512, MiniLM: 384)."""
    text_size: int = 256
    """Length of the vectors after the text heads."""
    text_norm: TextNorm = "l2"
    """``l2``: unit vectors, as the paper means it; ``sign``: what published weights were made with."""
    shared_prelu: bool = False
    """One PReLU slope for all but four blocks of each UNet, as published, or one for each block."""
    train_bank: bool = True
    """Whether the prompt banks are trained (published: they stay at their random values)."""

    def __post_init__(self) -> None:
        for name in ("cascades", "frames", "text_features", "text_size"):
            _check_int(name, getattr(self, name), 1)
        if self.frames % 2 == 0:
            raise ConfigError(f"network configuration: frames is {self.frames}, expected an odd number")
        _check_choice("text_norm", self.text_norm, get_args(TextNorm))
        _check_choice("start", self.start, get_args(Start))
        _check_choice("consistency", self.consistency, get_args(Consistency))
        for field in fields(self):
            if field.type == "bool":
                _check_bool(field.name, getattr(self, field.name))
        if self.aligned and not (self.frames > 1 and self.start == "kt" and self.residual):
            raise ConfigError(
                "network configuration: aligned frames need frames of at least 3, start kt (motion is found "
                "in the first estimate) and residual"
            )
        if self.sensitivity is not None and self.consistency != "step":
            raise ConfigError("network configuration: learned coil maps come with consistency step only")

    @property
    def channels(self) -> int:
        """Input channels of a cascade's UNet: two for each image it sees."""
        return 2 * (self.frames + int(self.temporal_mean) + int(self.aligned))

    @property
    def variant(self) -> str:
        """Name of the ablation variant: CardioMM, CardioSM, CardioSM+UT or CardioSM+MT."""
        names = {(True, True): "CardioMM", (True, False): "CardioSM+MT", (False, True): "CardioSM+UT"}
        return names.get((self.metadata_text, self.undersampling_text), "CardioSM")

    @classmethod
    def published(cls) -> CardioMMConfig:
        """The configuration of the published checkpoint: learned maps, signs, one shared slope."""
        return cls(sensitivity=PUBLISHED_SENSITIVITY, text_norm="sign", shared_prelu=True, train_bank=False)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return asdict(self)

    def to_json(self) -> str:
        """As one line of JSON, keys sorted."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CardioMMConfig:
        """Back from `to_dict`; keys left out take their defaults.

        Raises
        ------
        ConfigError
            On an unknown key or a value of the wrong kind.
        """
        plain = dict(values)
        for name, kind in (("unet", UNetConfig), ("sensitivity", UNetConfig), ("kt", KtConfig)):
            part = plain.get(name)
            if isinstance(part, Mapping):
                plain[name] = kind(**_known(part, kind, name))
            elif name in plain and (part is not None or name != "sensitivity"):
                raise ConfigError(f"network configuration: {name} is {part!r}, expected a table of settings")
        return cls(**_known(plain, cls, "network configuration"))

    @classmethod
    def from_json(cls, text: str) -> CardioMMConfig:
        """Back from `to_json`."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"network configuration is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"network configuration is a JSON {type(values).__name__}, expected an object")
        return cls.from_dict(values)


def _known(values: Mapping[str, Any], kind: type[Any], where: str) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ConfigError(f"{where}: unknown keys {', '.join(unknown)}; known are {', '.join(sorted(names))}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

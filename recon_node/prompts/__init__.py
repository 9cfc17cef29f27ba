"""Sentences for the text-aware network: what was scanned, and how it was undersampled."""

from recon_node.prompts.encoders import embed, load_encoder
from recon_node.prompts.metadata import SLOTS, metadata_prompt, metadata_sentence
from recon_node.prompts.undersampling import (
    UNDERSAMPLING_SLOTS,
    build_prompts,
    undersampling_prompt,
    undersampling_sentence,
)

__all__ = [
    "SLOTS",
    "UNDERSAMPLING_SLOTS",
    "build_prompts",
    "embed",
    "load_encoder",
    "metadata_prompt",
    "metadata_sentence",
    "undersampling_prompt",
    "undersampling_sentence",
]

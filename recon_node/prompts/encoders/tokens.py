"""CLIP's byte-pair tokenizer from either form Hugging Face folders have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recon_node.core.errors import WeightsError

_START, _END = "<|startoftext|>", "<|endoftext|>"
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""How CLIP cuts text before byte pairs: contractions, words, single digits, runs of other signs."""


def clip_tokenizer(folder: Path) -> tuple[Any, tuple[Path, ...]]:
    """The tokenizer of a CLIP folder and the files it was made from.

    ``tokenizer.json`` goes first; otherwise ``vocab.json`` and ``merges.txt`` are put together as CLIP does:
    lower case, single blanks, byte pairs with ``</w>`` at word ends, start and end tokens.

    Raises
    ------
    WeightsError
        If no tokenizer is in the folder, or its files are damaged.
    """
    whole = folder / "tokenizer.json"
    parts = (folder / "vocab.json", folder / "merges.txt")
    files = (whole,) if whole.is_file() else parts
    if not all(path.is_file() for path in files):
        raise WeightsError(f"{folder} holds neither tokenizer.json nor vocab.json with merges.txt")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(whole)) if files == (whole,) else _from_parts(*parts)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise WeightsError(f"{files[0]} is no CLIP tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, files


def _from_parts(vocab: Path, merges: Path) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    model = models.BPE.from_file(str(vocab), str(merges), end_of_word_suffix="</w>", unk_token=_END)
    tokenizer = Tokenizer(model)
    steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    cut = pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    ends = {token: tokenizer.token_to_id(token) for token in (_START, _END)}
    if None in ends.values():
        raise WeightsError(f"{vocab} lacks {_START} or {_END}")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=list(ends.items())
    )
    return tokenizer

"""What families of transformers call their parts; without torch, which only encoding needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockNames:
    """What a family of models calls the parts of a block, below the block's own name."""

    projections: tuple[str, ...]
    """Query, key and value."""
    others: tuple[str, ...]
    """Attention's output, the two layers after it, the normalisations of both parts."""
    norm_first: bool
    """Whether a part's input is normalised (CLIP), or its sum with the part's output (BERT)."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every part, each with a weight and a bias."""
        return self.projections + self.others

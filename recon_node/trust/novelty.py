"""What a scan has that the network never saw in training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from recon_node.core.types import Prompts, Sampling

_METADATA = re.compile(
    r"(?P<lifespan>.+?) cardiac MRI reconstruction\.Vendor: (?P<field>[^,]+), (?P<vendor>[^,]+), "
    r"(?P<scanner>[^,]+)\. Modality: (?P<modality>[^,]+), (?P<view>[^,]+)\."
)
_UNDERSAMPLING = re.compile(r"Undersampling: (?P<acceleration>\S+) (?P<pattern>\S+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """What the training data of some weights covered."""

    max_acceleration: float | None = None
    """Largest nominal acceleration; None leaves it unchecked."""
    words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Words by prompt slot (field, vendor, scanner, modality, view, lifespan, pattern); a slot that is not
    here is not checked."""


def words_of(prompts: Prompts) -> dict[str, str]:
    """Word by slot of both sentences; empty for a sentence of another form."""
    words: dict[str, str] = {}
    for pattern, sentence in ((_METADATA, prompts.metadata), (_UNDERSAMPLING, prompts.undersampling)):
        found = pattern.fullmatch(sentence)
        words |= found.groupdict() if found else {}
    return words


def novelty(prompts: Prompts, sampling: Sampling, trained: TrainedOn) -> tuple[str, ...]:
    """What is new to the network, a sentence each; nothing where all is familiar.

    A measured acceleration may exceed the trained one by a tenth: random masks scatter. The word
    ``unknown`` is not new, but a prompt that knows neither modality nor field strength is said to be poor.
    """
    found = []
    words = words_of(prompts)
    most = trained.max_acceleration
    if most is not None and not sampling.acceleration <= 1.1 * most:
        found.append(f"acceleration {sampling.acceleration:.1f} is above the {most:g} of the training data")
    for slot, known in trained.words.items():
        word = words.get(slot, "unknown")
        if word != "unknown" and word not in known:
            found.append(f"{slot} {word} was not in the training data")
    if words.get("modality", "unknown") == words.get("field", "unknown") == "unknown":
        found.append("the header names neither modality nor field strength")
    return tuple(found)

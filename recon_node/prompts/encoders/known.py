"""Prompts a text encoder cannot encode, replaced by the nearest it can."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import combinations

from recon_node.core.types import Prompt, Prompts
from recon_node.prompts.encoders.sentences import MAX_ACCELERATION
from recon_node.prompts.metadata import metadata_sentence
from recon_node.prompts.undersampling import undersampling_sentence
from recon_node.prompts.vocabulary import UNKNOWN

Knows = Callable[[str], bool]

_METADATA = re.compile(
    r"(?P<lifespan>.+?) cardiac MRI reconstruction\.Vendor: (?P<field>[^,]+), (?P<vendor>[^,]+), "
    r"(?P<scanner>[^,]+)\. Modality: (?P<modality>[^,]+), (?P<view>[^,]+)\."
)
_UNDERSAMPLING = re.compile(r"Undersampling: (?P<acceleration>\S+?)x? (?P<pattern>\S+)\.")
_LEAST_MISSED = ("scanner", "view", "field", "lifespan", "vendor", "modality")


def known_prompts(prompts: Prompts, knows: Knows) -> Prompts:
    """Prompts with the fewest words replaced by ``unknown`` that `knows` accepts.

    Parameters
    ----------
    prompts : Prompts
        As built from the header and the mask.
    knows : callable
        Sentence to bool: whether the encoder can encode it (`CataloguedMiniLM.knows`).

    Returns
    -------
    Prompts
        The same prompts where both are known. Otherwise one word after another becomes ``unknown``, the
        scanner model first, and an acceleration above the catalogue's becomes its largest; the
        provenance of a replaced word says so. A sentence without any known neighbour is left as it is, and
        encoding it raises.
    """
    return Prompts(
        metadata=_nearest(prompts.metadata, _metadata_neighbours, knows),
        undersampling=_nearest(prompts.undersampling, _undersampling_neighbours, knows),
    )


Neighbours = Callable[[str], Iterator[tuple[str, dict[str, str]]]]


def _nearest(prompt: Prompt, neighbours: Neighbours, knows: Knows) -> Prompt:
    if knows(prompt):
        return prompt
    for sentence, replaced in neighbours(prompt):
        if knows(sentence):
            origin = dict(prompt.provenance)
            for slot, word in replaced.items():
                origin[slot] = f"{word}, as the text encoder at hand does not know: {origin.get(slot, slot)}"
            return Prompt(sentence, origin)
    return prompt


def _metadata_neighbours(sentence: str) -> Iterator[tuple[str, dict[str, str]]]:
    found = _METADATA.fullmatch(sentence)
    if found is None:
        return
    for count in range(1, len(_LEAST_MISSED) + 1):
        for slots in combinations(_LEAST_MISSED, count):
            replaced = dict.fromkeys(slots, UNKNOWN)
            yield metadata_sentence(**(found.groupdict() | replaced)), replaced


def _undersampling_neighbours(sentence: str) -> Iterator[tuple[str, dict[str, str]]]:
    found = _UNDERSAMPLING.fullmatch(sentence)
    if found is None:
        return
    for replaced in (
        {"acceleration": f"{MAX_ACCELERATION}"},
        {"acceleration": UNKNOWN},
        {"pattern": UNKNOWN},
        {"acceleration": UNKNOWN, "pattern": UNKNOWN},
    ):
        too_small = found["acceleration"].isdigit() and int(found["acceleration"]) < MAX_ACCELERATION
        if replaced.get("acceleration") != f"{MAX_ACCELERATION}" or not too_small:
            yield undersampling_sentence(**(found.groupdict() | replaced)), replaced

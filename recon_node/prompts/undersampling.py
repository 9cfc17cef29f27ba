"""The undersampling sentence of CardioMM from the sampling really found in a mask."""

from __future__ import annotations

import math
from collections.abc import Mapping

from recon_node.core.scan import ScanHeader
from recon_node.core.types import Prompt, Prompts, Sampling
from recon_node.prompts.metadata import SLOTS, checked_overrides, metadata_prompt
from recon_node.prompts.vocabulary import UNKNOWN, Vocabulary, load_vocabulary

UNDERSAMPLING_SLOTS = ("acceleration", "pattern")
"""Slots of the undersampling sentence, and the keys of its provenance and overrides."""


def undersampling_prompt(sampling: Sampling, *, overrides: Mapping[str, str] | None = None) -> Prompt:
    """The sentence ``Undersampling: {AF}x {pattern}.`` for a sampling.

    Parameters
    ----------
    sampling : Sampling
        As found in the mask; its acceleration counts the lines outside the ACS.
    overrides : Mapping[str, str], optional
        Words for ``acceleration`` (a number) or ``pattern``.

    Returns
    -------
    Prompt
        The sentence; `provenance` has the entries ``acceleration`` and ``pattern``.

    Raises
    ------
    ConfigError
        If `overrides` names another slot.

    Notes
    -----
    The acceleration is rounded to an integer. A random or radial mask scatters about its nominal
    acceleration (each of the N lines outside the ACS is kept with probability 1/R, so the number kept
    has a relative standard deviation of ``sqrt((R - 1) / N)``, about 20 % at 8x for one frame of 192 lines):
    it takes the nearest acceleration the network was trained with (4, 8, 12, 16, 20, 24) where the ratio of
    both is at most 1.25. Uniform masks are exact and are only rounded. Everything sampled is ``1x uniform``
    (every line at a distance of one). A pattern that was not recognised is the word ``unknown``, and so is an
    acceleration without any line outside the ACS.

    Examples
    --------
    >>> str(undersampling_prompt(Sampling(pattern="random", acceleration=14.75,
    ...     effective_acceleration=7.2, acs=20)))
    'Undersampling: 16x random.'
    """
    given = checked_overrides(overrides or {}, UNDERSAMPLING_SLOTS)
    vocabulary = load_vocabulary()
    factor, factor_origin = _acceleration(sampling, vocabulary)
    pattern, pattern_origin = _pattern(sampling, vocabulary)
    if "acceleration" in given:
        factor, factor_origin = given["acceleration"].text.removesuffix("x"), "from the override"
    if "pattern" in given:
        pattern, pattern_origin = given["pattern"].text, "from the override"
    return Prompt(
        undersampling_sentence(acceleration=factor, pattern=pattern),
        {"acceleration": f"{factor} {factor_origin}", "pattern": f"{pattern} {pattern_origin}"},
    )


def undersampling_sentence(*, acceleration: int | str, pattern: str) -> str:
    """The sentence with these words in its slots, nothing checked."""
    factor = UNKNOWN if acceleration == UNKNOWN else f"{acceleration}x"
    return f"Undersampling: {factor} {pattern}."


def build_prompts(
    header: ScanHeader, sampling: Sampling, *, overrides: Mapping[str, str] | None = None
) -> Prompts:
    """Both sentences that condition CardioMM.

    Parameters
    ----------
    header, sampling
        What is known of the scan, and the sampling found in its mask.
    overrides : Mapping[str, str], optional
        Words by slot of either sentence (`SLOTS`, `UNDERSAMPLING_SLOTS`).

    Raises
    ------
    ConfigError
        If `overrides` names a slot that neither sentence has.
    """
    given = overrides or {}
    checked_overrides(given, SLOTS + UNDERSAMPLING_SLOTS)
    return Prompts(
        metadata=metadata_prompt(header, overrides={k: v for k, v in given.items() if k in SLOTS}),
        undersampling=undersampling_prompt(
            sampling, overrides={k: v for k, v in given.items() if k in UNDERSAMPLING_SLOTS}
        ),
    )


def _acceleration(sampling: Sampling, vocabulary: Vocabulary) -> tuple[str, str]:
    measured = sampling.acceleration
    if sampling.pattern == "full":
        return "1", "as every line was sampled"
    if not math.isfinite(measured) or measured <= 0:
        return UNKNOWN, "as no line outside the ACS was sampled"
    found = f"from the mask: {measured:.2f} outside the ACS"
    if sampling.pattern != "uniform":
        nearest = min(vocabulary.accelerations, key=lambda trained: abs(math.log(trained / measured)))
        if max(nearest / measured, measured / nearest) <= vocabulary.snap_ratio:
            return f"{nearest}", found
    return f"{max(1, round(measured))}", found


def _pattern(sampling: Sampling, vocabulary: Vocabulary) -> tuple[str, str]:
    if sampling.pattern == "full":
        return "uniform", "as every line was sampled"
    if sampling.pattern == "mixed" and sampling.parts[0][0] in vocabulary.patterns:
        return sampling.parts[0][0], f"as the wider part of a mask of two schemes: {sampling}"
    if sampling.pattern in vocabulary.patterns:
        return sampling.pattern, "from the mask"
    return UNKNOWN, "as the mask is none of the known patterns"

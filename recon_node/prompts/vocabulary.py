"""The words of the prompts and the rules that find them, read from ``vocabulary.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

UNKNOWN = "unknown"
"""What a prompt says where nothing is known."""

Words = re.Pattern[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """A scanner model as the prompts name it."""

    vendor: str
    name: str
    fields_t: tuple[float, ...]
    match: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Modality:
    """A kind of acquisition, with the views it is known in."""

    name: str
    match: Words
    views: tuple[str, ...]
    default_view: str
    after_contrast: str | None
    """Name of the same acquisition after contrast agent, where the vocabulary has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Everything the prompts can say, in the order the rules are tried."""

    lifespans: tuple[str, ...]
    lifespan_words: Mapping[str, Words]
    adult_from_years: int
    fields_t: tuple[float, ...]
    field_tolerance: float
    vendors: Mapping[str, Words]
    scanners: tuple[Scanner, ...]
    scanner_noise: Words
    modalities: tuple[Modality, ...]
    post_contrast: Words
    cine_from_phases: int
    views: Mapping[str, Words]
    patterns: tuple[str, ...]
    accelerations: tuple[int, ...]
    snap_ratio: float

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Every modality once, variants after contrast included."""
        names: dict[str, None] = {}
        for modality in self.modalities:
            names[modality.name] = None
            if modality.after_contrast:
                names[modality.after_contrast] = None
        return tuple(names)


def field_word(tesla: float) -> str:
    """Field strength as the prompts write it: ``0.55T``, ``1.5T``, ``3.0T``."""
    return f"{tesla:.1f}T" if tesla >= 1 else f"{tesla:.2g}T"


def normalised(text: str) -> str:
    """Lower-case words separated by single blanks; letters, digits and ``*`` are kept.

    >>> normalised("CineSAx_12sl")
    'cine sax 12sl'
    """
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z]{2})(?=[A-Z]{2})", " ", text)
    return " ".join(re.sub(r"[^a-z0-9*]+", " ", split.lower()).split())


def _modality(entry: Mapping[str, Any]) -> Modality:
    return Modality(
        name=entry["name"],
        match=re.compile(entry["match"]),
        views=tuple(entry["views"]),
        default_view=entry.get("default", UNKNOWN),
        after_contrast=entry.get("after_contrast"),
    )


def _scanners(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> tuple[Scanner, ...]:
    return tuple(
        Scanner(vendor=vendor, name=name, fields_t=tuple(entry["field_t"]), match=re.compile(entry["match"]))
        for vendor, models in tables.items()
        for name, entry in models.items()
    )


@cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary shipped with the package (read once)."""
    text = resources.files("recon_node.prompts").joinpath("vocabulary.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    lifespan, field, under = table["lifespan"], table["field"], table["undersampling"]
    return Vocabulary(
        lifespans=tuple(lifespan["words"]),
        lifespan_words={word: re.compile(match) for word, match in lifespan["match"].items()},
        adult_from_years=lifespan["adult_from_years"],
        fields_t=tuple(field["words_t"]),
        field_tolerance=field["relative_tolerance"],
        vendors={name: re.compile(match) for name, match in table["vendors"].items()},
        scanners=_scanners(table["scanners"]),
        scanner_noise=re.compile(table["scanner"]["noise"]),
        modalities=tuple(_modality(entry) for entry in table["modalities"]),
        post_contrast=re.compile(table["modality"]["post_contrast"]),
        cine_from_phases=table["modality"]["cine_from_phases"],
        views={entry["name"]: re.compile(entry["match"]) for entry in table["views"]},
        patterns=tuple(under["patterns"]),
        accelerations=tuple(under["accelerations"]),
        snap_ratio=under["snap_ratio"],
    )

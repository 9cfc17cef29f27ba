"""The scans of a zero-shot study: drawn ones by scanner, real ones by patient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from recon_node.core.errors import ConfigError
from recon_node.lab.evaluation.hearts import around_heart
from recon_node.lab.evaluation.heldout import SALT
from recon_node.prompts import SLOTS
from recon_node.simulate import draw_example, find_models
from recon_node.simulate.cine import Cine, scan_of_cine
from recon_node.simulate.example import FullScan

_LAST = re.compile(r"[-_ ]?(?:sl(?:ice)?[-_ ]?[pm]?\d+(?:\.\d+)?|se\d+)$", re.IGNORECASE)
METADATA = ("right", "wrong", "missing")
"""What a network is told about a scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """A vendor's scanners of one field strength; the layout of their coils is the vendor's."""

    vendor: str
    field_t: float

    @property
    def name(self) -> str:
        """For example ``GE 1.5 T``."""
        return f"{self.vendor} {self.field_t:g} T"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One heart on one scanner."""

    source: str
    """``drawn`` or ``real``."""
    group: str
    """Scanner of a drawn heart, patient of a real one."""
    name: str
    unseen: bool
    """Whether training left this scanner, or this patient, out."""
    scanner: Scanner | None = None
    cine: Cine | None = None


def scanners(vendors: Sequence[str] = (), fields_t: Sequence[float] = ()) -> list[Scanner]:
    """Every combination of vendor and field strength that the simulator has, or some of them.

    Raises
    ------
    ConfigError
        None is left.
    """
    pairs = dict.fromkeys((model.vendor, model.nominal_t) for model in find_models())
    kept = [
        Scanner(vendor=vendor, field_t=field)
        for vendor, field in pairs
        if (not vendors or vendor.lower() in {one.lower() for one in vendors})
        and (not fields_t or any(abs(field - one) < 0.2 for one in fields_t))
    ]
    if not kept:
        known = ", ".join(f"{vendor} {field:g} T" for vendor, field in pairs)
        raise ConfigError(
            f"zero-shot: no scanner of vendors {vendors} and fields {fields_t}; there are {known}"
        )
    return kept


def is_unseen(scanner: Scanner, data: Mapping[str, Any]) -> bool:
    """Whether training with these data settings (of a card) left the scanner out."""
    fields = [float(one) for one in data.get("hold_out_fields", ())]
    return scanner.vendor in data.get("hold_out_vendors", ()) or any(
        abs(scanner.field_t - one) < 0.2 for one in fields
    )


def patient_of(name: str) -> str:
    """A clip's name without what tells slices and series of one patient apart."""
    return _LAST.sub("", name) or name


def scan_of(case: Case, *, seed: int, phases: int, matrix: int, coils: int, size: int | None) -> FullScan:
    """The fully sampled scan of a case, the same each time."""
    rng = np.random.default_rng([*SALT, seed, crc32(case.name.encode())])
    if case.cine is not None:
        cine = case.cine if size is None else around_heart(case.cine, size, len(case.cine.images))
        return scan_of_cine(rng, cine, coils=coils)
    if case.scanner is None:
        raise ConfigError(f"zero-shot: {case.name} has neither a scanner nor a cine")
    return draw_example(
        rng,
        matrix=(matrix, matrix),
        phases=phases,
        coils=coils,
        modality="cine",
        vendor=case.scanner.vendor,
        field_t=case.scanner.field_t,
    )


def told(words: Mapping[str, str], kind: str, rng: np.random.Generator) -> dict[str, str]:
    """Words of the metadata prompt: as they are, of a scanner of another vendor and field, or none.

    Modality, view and lifespan stay right where the scanner is wrong.
    """
    if kind == "right":
        return dict(words)
    if kind == "missing":
        return dict.fromkeys(SLOTS, "unknown")
    others = [
        model
        for model in find_models()
        if model.vendor != words["vendor"] and f"{model.nominal_t}T" != words["field"]
    ]
    other = others[int(rng.integers(len(others)))]
    return {
        **words,
        "vendor": other.vendor,
        "scanner": other.name,
        "field": f"{other.nominal_t}T",
    }


def drawn_cases(chosen: Sequence[Scanner], count: int, data: Mapping[str, Any]) -> list[Case]:
    """`count` hearts on each scanner."""
    return [
        Case(
            source="drawn",
            group=scanner.name,
            name=f"{scanner.name} {number}",
            unseen=is_unseen(scanner, data),
            scanner=scanner,
        )
        for scanner in chosen
        for number in range(count)
    ]


def real_cases(cines: Sequence[Cine]) -> list[Case]:
    """Clips that training never saw, by patient."""
    return [
        Case(source="real", group=patient_of(cine.name), name=cine.name, unseen=True, cine=cine)
        for cine in cines
    ]

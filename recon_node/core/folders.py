"""Names of folders that a person can read, from a template such as ``{patient}/{date}/{protocol}``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter

FIELDS = ("study", "series", "patient", "date", "time", "protocol", "slice", "number", "method")
"""study and series UID; pseudonym of the patient; day and time of the study; protocol; slice, from 01; series
number; method."""
PLAIN = "{study}/{series}"
_LONGEST = 64
"""Characters of a value: those of a UID."""
_MOST_PARTS = 8
_TAG = 10


def trouble_with(template: str) -> str | None:
    """What a template lacks; None where it can be used."""
    parts = template.split("/")
    try:
        names = [name for _, name, spec, conversion in Formatter().parse(template) if name is not None]
        odd = [spec or conversion for _, name, spec, conversion in Formatter().parse(template) if name]
    except ValueError:
        return "balanced braces"
    if any(name not in FIELDS for name in names) or any(odd):
        return f"fields of {', '.join(FIELDS)} in braces"
    fixed = re.sub(r"\{[a-z]+\}", "x", template)
    if not names or len(parts) > _MOST_PARTS or not re.fullmatch(r"[A-Za-z0-9._/-]+", fixed):
        return f"1 to {_MOST_PARTS} parts between slashes, of fields, letters, digits, dots, dashes"
    if any(not part or part.startswith(".") for part in fixed.split("/")):
        return "no part that is empty or begins with a dot"
    return None


def depth(template: str, *, stack: bool) -> int:
    """How many folders lie within each other."""
    return template.count("/") + 1 + (stack and "{slice}" not in template)


def filled(template: str, values: Mapping[str, str], *, unique: str, whole_series: bool = True) -> Path:
    """The relative folder of one series (or of one slice of it).

    Parameters
    ----------
    template : str
        One that `trouble_with` has nothing against.
    values : mapping
        One of each of `FIELDS`.
    unique : str
        What tells the folder's content from all else. Its hash ends the last name, unless that holds the
        series UID and `whole_series`.
    """
    parts = template.split("/")
    clean = {name: _word(value) for name, value in values.items()}
    if not whole_series and "{slice}" not in template:
        parts.append("slice{slice}")
    named = [part.format_map(clean) for part in parts]
    if not whole_series or "{series}" not in parts[-1]:
        named[-1] += f"-{hashlib.sha256(unique.encode()).hexdigest()[:_TAG]}"
    return Path(*named)


def pseudonym(*identifying: str | None) -> str:
    """Eight digits in place of a patient: the same for the same values.

    No anonymisation: who has a list of patients can find out which of them it is.
    """
    text = "|".join(value or "" for value in identifying)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def _word(value: str) -> str:
    """No separator, no leading dot, never empty."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "_", value).strip("._")[:_LONGEST]
    return word or "unnamed"

"""Whether a de-identified instance still names its patient.

The names are looked for as whole words in text, not as letters within other words: a patient called Short
would otherwise be found in every "short-axis", one called Heart in every ``BodyPartExamined``. In text that
the node itself or a machine wrote, and in coded words, a single name is a coincidence; there it takes two
names of the patient, or the name written together, to be a leak.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from recon_node.dicom.provenance import CREATOR, MANUFACTURER, PRIVATE_GROUP

_TEXT = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
"""Value representations (PS3.5 section 6.2) that a person's name fits into; the others hold numbers, dates,
UIDs and bytes. The ones with private, unknown content (UN) are searched like text."""
_MACHINE = frozenset({0x00080070, 0x00081090, 0x0008103E, 0x00120063})
"""Manufacturer and its model; series description and method of de-identification, written anew."""
_LEAST_NAME = 3
"""Letters: shorter parts (initials, "de") are in every text."""
_LEAST_ID = 4
_LEAST_TOGETHER = 8
"""Letters of two names written together."""


def leak(before: Dataset, after: Dataset, *, ours: bool) -> DataElement | None:
    """The first element of `after` that still holds the patient's name or ID; None where there is none.

    Parameters
    ----------
    before : Dataset
        With the patient's name and ID.
    after : Dataset
        De-identified.
    ours : bool
        Whether `before` was written by this package, so that its private block is the node's own text.
    """
    person = _Person(str(before.get("PatientName", "")), str(before.get("PatientID", "")))
    for element, machine in _elements(after, ours=ours, machine=False):
        if element.VR != "UN" and element.VR not in _TEXT:
            continue
        if person.is_in(_text(element), by_machine=machine):
            return element
    return None


class _Person:
    def __init__(self, name: str, patient_id: str) -> None:
        names = [_words(part) for part in re.split(r"[\^=]", name)]
        self._names = {word for part in names for word in part if len(word) >= _LEAST_NAME}
        joined = ["".join(part) for part in names if part]
        self._together = {
            one + other
            for one in joined
            for other in joined
            if one != other and len(one + other) >= _LEAST_TOGETHER
        }
        plain = _plain(patient_id.strip())
        self._id = re.compile(rf"(?<!\w){re.escape(plain)}(?!\w)") if len(plain) >= _LEAST_ID else None
        self._telling_id = any(letter.isdigit() for letter in plain)

    def is_in(self, text: str, *, by_machine: bool) -> bool:
        """Whether `text` names the person."""
        plain, words = _plain(text), _words(text)
        named = (word in self._names for word in words)
        beside = (self._names.issuperset(pair) and pair[0] != pair[1] for pair in pairwise(words))
        if any(beside if by_machine else named):
            return True
        if any(one in plain.replace(" ", "") for one in self._together):
            return True
        telling = self._telling_id or not by_machine
        return self._id is not None and telling and bool(self._id.search(plain))


def _elements(ds: Dataset, *, ours: bool, machine: bool) -> Iterator[tuple[DataElement, bool]]:
    """Every element at every depth, and whether a single name in it may be a coincidence."""
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                own = ours and item.get("Manufacturer") == MANUFACTURER
                coded = "CodeMeaning" in item and "CodingSchemeDesignator" in item
                yield from _elements(item, ours=ours, machine=machine or own or coded)
        else:
            private = (
                ours and element.tag.group == PRIVATE_GROUP and element.private_creator in (None, CREATOR)
            )
            yield element, machine or element.VR == "CS" or int(element.tag) in _MACHINE or private


def _text(element: DataElement) -> str:
    value = element.value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    many = value if isinstance(value, list | tuple) or element.VM > 1 else [value]
    return "\n".join(map(str, many))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", _plain(text))


def _plain(text: str) -> str:
    """Lower case without accents, underscores as spaces."""
    letters = unicodedata.normalize("NFKD", text.casefold()).replace("_", " ")
    return "".join(letter for letter in letters if not unicodedata.combining(letter))

"""The metadata sentence of CardioMM from an ISMRMRD header, each word with its provenance.

The form is fixed by the network (arXiv 2512.21652): ``{lifespan} cardiac MRI reconstruction.Vendor:
{field}, {vendor}, {scanner}. Modality: {modality}, {view}.`` with no blank after the first full stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from recon_node.core.errors import ConfigError
from recon_node.core.physics import GYROMAGNETIC_HZ_PER_T
from recon_node.core.scan import ScanHeader
from recon_node.core.types import Prompt
from recon_node.prompts.vocabulary import (
    UNKNOWN,
    Modality,
    Vocabulary,
    field_word,
    load_vocabulary,
    normalised,
)

SLOTS = ("lifespan", "field", "vendor", "scanner", "modality", "view")
"""Slots of the metadata sentence, and the keys of its provenance and overrides."""


@dataclass(frozen=True, slots=True)
class _Word:
    """A slot's word and where it came from."""

    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class _Text:
    """One free text of the header, normalised for matching."""

    path: str
    words: str


def metadata_prompt(header: ScanHeader, *, overrides: Mapping[str, str] | None = None) -> Prompt:
    """The sentence that tells CardioMM what was scanned, where and how.

    Parameters
    ----------
    header : ScanHeader
        The scan. What it does not say becomes the word ``unknown``.
    overrides : Mapping[str, str], optional
        Words by slot (`SLOTS`) that replace what the header says; white space collapses, an empty one
        is ``unknown``. A modality given here also decides the default view.

    Returns
    -------
    Prompt
        The sentence; `provenance` has one entry a slot.

    Raises
    ------
    ConfigError
        If `overrides` names a slot that does not exist, or a word would break the sentence's form.

    Notes
    -----
    Field strengths within 10 % of a vocabulary value take it (2.89362 T is ``3.0T``); others are written
    as found, rounded (``7.0T``). Age below 18 years at the study is ``Pediatric``; without a birth or
    study date the lifespan is ``unknown``.

    Examples
    --------
    >>> header = ScanHeader(encoded_matrix=(256, 128, 1), encoded_fov_mm=(300, 300, 8),
    ...     recon_matrix=(128, 128, 1), recon_fov_mm=(300, 300, 8), vendor="SIEMENS",
    ...     model="MAGNETOM Vida", field_strength_t=2.89362, protocol="cine_sax")
    >>> str(metadata_prompt(header))
    'unknown cardiac MRI reconstruction.Vendor: 3.0T, Siemens, Vida. Modality: cine, short-axis.'
    """
    given = checked_overrides(overrides or {}, SLOTS)
    vocabulary = load_vocabulary()
    texts = tuple(_texts(header))
    vendor = given.get("vendor") or _vendor(header, vocabulary)
    modality = given.get("modality") or _modality(header, texts, vocabulary)
    words = {
        "lifespan": given.get("lifespan") or _lifespan(header, texts, vocabulary),
        "field": given.get("field") or _field(header, vocabulary),
        "vendor": vendor,
        "scanner": given.get("scanner") or _scanner(header, vendor.text, vocabulary),
        "modality": modality,
        "view": given.get("view") or _view(modality.text, texts, vocabulary),
    }
    slots = {slot: word.text for slot, word in words.items()}
    return Prompt(metadata_sentence(**slots), {slot: f"{w.text} {w.origin}" for slot, w in words.items()})


def metadata_sentence(
    *, lifespan: str, field: str, vendor: str, scanner: str, modality: str, view: str
) -> str:
    """The sentence with these words in its slots, nothing checked."""
    return (
        f"{lifespan} cardiac MRI reconstruction.Vendor: {field}, {vendor}, {scanner}. "
        f"Modality: {modality}, {view}."
    )


def checked_overrides(overrides: Mapping[str, str], slots: tuple[str, ...]) -> dict[str, _Word]:
    """Overrides as words, refused where they name no slot or would break the sentence."""
    unknown = sorted(set(overrides) - set(slots))
    if unknown:
        raise ConfigError(f"prompt override {', '.join(unknown)} names no slot; slots are {', '.join(slots)}")
    words = {}
    for slot, value in overrides.items():
        text = " ".join(str(value).split()) or UNKNOWN
        if "," in text or text.endswith("."):
            raise ConfigError(f"prompt override {slot}={text!r} may hold no comma and end in no full stop")
        words[slot] = _Word(text, "from the override")
    return words


def _texts(header: ScanHeader) -> Iterator[_Text]:
    """The header's free texts, the most telling first."""
    study = header.study
    sources = {
        "protocol": ("measurementInformation/protocolName", header.protocol),
        "series_description": ("measurementInformation/seriesDescription", study.series_description),
        "sequence": ("sequenceParameters/sequence_type", header.sequence),
        "study_description": ("studyInformation/studyDescription", study.study_description),
        "body_part": ("studyInformation/bodyPartExamined", study.body_part),
    }
    for name, (path, value) in sources.items():
        if value:
            yield _Text(header.origin.get(name, path), normalised(value))
    for name, user_value in header.user.items():
        if isinstance(user_value, str):
            yield _Text(f"userParameters/{name}", normalised(user_value))


def _lifespan(header: ScanHeader, texts: tuple[_Text, ...], vocabulary: Vocabulary) -> _Word:
    for text in texts:
        for word, pattern in vocabulary.lifespan_words.items():
            if found := pattern.search(text.words):
                return _Word(word, f"from {text.path} ({found.group()!r})")
    years = _age_years(header)
    if years is None:
        return _Word(UNKNOWN, "as the header gives no usable birth and study date")
    adult = years >= vocabulary.adult_from_years
    limit = f"{vocabulary.adult_from_years} years"
    return (
        _Word("Adult", f"from the age, at least {limit}")
        if adult
        else _Word("Pediatric", f"from the age, below {limit}")
    )


def _age_years(header: ScanHeader) -> int | None:
    try:
        born = date.fromisoformat(header.patient.birth_date or "")
        then = date.fromisoformat(header.study.study_date or header.study.series_date or "")
    except ValueError:
        return None
    years = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    return years if 0 <= years <= 130 else None


def _field(header: ScanHeader, vocabulary: Vocabulary) -> _Word:
    tesla, path = header.field_strength_t, "acquisitionSystemInformation/systemFieldStrength_T"
    path = header.origin.get("field_strength_t", path)
    shown = f"{tesla}"
    if not tesla and header.resonance_frequency_hz:
        tesla = header.resonance_frequency_hz / GYROMAGNETIC_HZ_PER_T
        path, shown = "experimentalConditions/H1resonanceFrequency_Hz", f"{header.resonance_frequency_hz}"
    if not tesla or not 0 < tesla < 30:
        return _Word(UNKNOWN, "as the header gives no field strength")
    nearest = min(vocabulary.fields_t, key=lambda known: abs(known - tesla))
    if abs(nearest - tesla) <= vocabulary.field_tolerance * nearest:
        return _Word(field_word(nearest), f"from {path} = {shown}")
    return _Word(field_word(tesla), f"from {path} = {shown}, not in the vocabulary")


def _vendor(header: ScanHeader, vocabulary: Vocabulary) -> _Word:
    if not header.vendor:
        return _Word(UNKNOWN, "as the header names no vendor")
    path = header.origin.get("vendor", "acquisitionSystemInformation/systemVendor")
    words = normalised(header.vendor)
    for name, pattern in vocabulary.vendors.items():
        if pattern.search(words):
            return _Word(name, f"from {path}")
    return _Word(_plain(header.vendor), f"from {path}, not in the vocabulary")


def _scanner(header: ScanHeader, vendor: str, vocabulary: Vocabulary) -> _Word:
    if not header.model:
        return _Word(UNKNOWN, "as the header names no scanner model")
    path = header.origin.get("model", "acquisitionSystemInformation/systemModel")
    words = normalised(header.model)
    for scanner in vocabulary.scanners:
        if scanner.vendor == vendor and scanner.match.search(words):
            return _Word(scanner.name, f"from {path}")
    plain = _plain(vocabulary.scanner_noise.sub(" ", header.model.replace("_", " ")))
    if plain == UNKNOWN:
        plain = _plain(header.model)
    return _Word(plain, f"from {path}, not in the vocabulary")


def _plain(text: str) -> str:
    """Free text that fits into a slot: no commas or full stops at its end, single blanks."""
    return " ".join(text.replace(",", " ").replace("_", " ").split()).strip(" .") or UNKNOWN


def _modality(header: ScanHeader, texts: tuple[_Text, ...], vocabulary: Vocabulary) -> _Word:
    for text in texts:
        for modality in vocabulary.modalities:
            if found := modality.match.search(text.words):
                return _with_contrast(modality, f"from {text.path} ({found.group()!r})", texts, vocabulary)
    phases = header.limits.get("phase")
    if phases is not None and phases.size >= vocabulary.cine_from_phases:
        return _Word("cine", f"assumed, as encodingLimits/phase counts {phases.size} cardiac phases")
    return _Word(UNKNOWN, "as no text of the header names a modality")


def _with_contrast(
    modality: Modality, origin: str, texts: tuple[_Text, ...], vocabulary: Vocabulary
) -> _Word:
    if modality.after_contrast is not None:
        for text in texts:
            if found := vocabulary.post_contrast.search(text.words):
                return _Word(modality.after_contrast, f"{origin} and {text.path} ({found.group()!r})")
    return _Word(modality.name, origin)


def _view(modality: str, texts: tuple[_Text, ...], vocabulary: Vocabulary) -> _Word:
    known = next((m for m in vocabulary.modalities if modality in (m.name, m.after_contrast)), None)
    allowed = known.views if known else tuple(vocabulary.views)
    for text in texts:
        for view, pattern in vocabulary.views.items():
            if view in allowed and (found := pattern.search(text.words)):
                return _Word(view, f"from {text.path} ({found.group()!r})")
    if known and known.default_view != UNKNOWN:
        return _Word(known.default_view, f"by default for {modality}")
    return _Word(UNKNOWN, "as no text of the header names a view")

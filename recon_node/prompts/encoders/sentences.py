"""Every sentence whose embedding is shipped: the vocabulary's sensible combinations."""

from __future__ import annotations

from recon_node.prompts.metadata import metadata_sentence
from recon_node.prompts.undersampling import undersampling_sentence
from recon_node.prompts.vocabulary import UNKNOWN, Vocabulary, field_word, load_vocabulary

MAX_ACCELERATION = 32


def metadata_sentences() -> tuple[str, ...]:
    """Metadata sentences: lifespan by scanner (or its vendor and field alone) by modality and view."""
    vocabulary = load_vocabulary()
    sentences: dict[str, None] = {}
    for lifespan in (*vocabulary.lifespans, UNKNOWN):
        for field, vendor, scanner in _systems(vocabulary):
            if lifespan == "Fetal" and scanner != UNKNOWN:
                continue  # rare: its scanners are reached through the fallback
            for modality, view in _acquisitions(vocabulary):
                sentence = metadata_sentence(
                    lifespan=lifespan,
                    field=field,
                    vendor=vendor,
                    scanner=scanner,
                    modality=modality,
                    view=view,
                )
                sentences[sentence] = None
    return tuple(sentences)


def undersampling_sentences() -> tuple[str, ...]:
    """Undersampling sentences: every whole acceleration up to `MAX_ACCELERATION` by pattern."""
    factors: list[int | str] = [*range(1, MAX_ACCELERATION + 1), UNKNOWN]
    patterns = (*load_vocabulary().patterns, UNKNOWN)
    return tuple(undersampling_sentence(acceleration=f, pattern=p) for f in factors for p in patterns)


def _systems(vocabulary: Vocabulary) -> list[tuple[str, str, str]]:
    """(field, vendor, scanner) that exist, and the same with what is not known left out."""
    models = [(field_word(f), s.vendor, s.name) for s in vocabulary.scanners for f in s.fields_t]
    fields = [*(field_word(f) for f in vocabulary.fields_t), UNKNOWN]
    vendors = [*vocabulary.vendors, UNKNOWN]
    return models + [(field, vendor, UNKNOWN) for vendor in vendors for field in fields]


def _acquisitions(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """(modality, view) pairs that the rules of the vocabulary can give."""
    pairs: dict[tuple[str, str], None] = {}
    for modality in vocabulary.modalities:
        for name in filter(None, (modality.name, modality.after_contrast)):
            views = modality.views if modality.default_view != UNKNOWN else (*modality.views, UNKNOWN)
            pairs.update(dict.fromkeys((name, view) for view in views))
    pairs.update({(UNKNOWN, view): None for view in ("short-axis", "long-axis", UNKNOWN)})
    return list(pairs)

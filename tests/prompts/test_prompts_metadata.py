from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import ConfigError
from recon_node.core.scan import PatientInfo, ScanHeader, StudyInfo
from recon_node.prompts import SLOTS, metadata_prompt
from recon_node.prompts.vocabulary import load_vocabulary

FORM = re.compile(
    r"(.+?) cardiac MRI reconstruction\.Vendor: ([^,]+), ([^,]+), ([^,]+)\. Modality: ([^,]+), ([^,]+)\."
)


def slot(prompt, name):
    return FORM.fullmatch(prompt).groups()[SLOTS.index(name)]


def test_the_sentence_has_exactly_the_published_form(header):
    assert metadata_prompt(header()) == (
        "Adult cardiac MRI reconstruction.Vendor: 3.0T, Siemens, Vida. Modality: cine, short-axis."
    )


def test_an_empty_header_gives_unknown_in_every_slot():
    bare = ScanHeader(
        encoded_matrix=(1, 1, 1),
        encoded_fov_mm=(1.0, 1.0, 1.0),
        recon_matrix=(1, 1, 1),
        recon_fov_mm=(1.0, 1.0, 1.0),
    )
    assert metadata_prompt(bare) == (
        "unknown cardiac MRI reconstruction.Vendor: unknown, unknown, unknown. Modality: unknown, unknown."
    )


@pytest.mark.parametrize(
    ("tesla", "word"),
    [
        (2.89362, "3.0T"),
        (1.494, "1.5T"),
        (0.55, "0.55T"),
        (5.0, "5.0T"),
        (4.9, "5.0T"),
        (7.0, "7.0T"),
        (0.35, "0.35T"),
        (1.0, "1.0T"),
        (None, "unknown"),
        (0.0, "unknown"),
        (float("nan"), "unknown"),
    ],
)
def test_the_field_strength_is_rounded_to_the_vocabulary_or_written_as_found(header, tesla, word):
    assert slot(metadata_prompt(header(field_strength_t=tesla)), "field") == word


def test_the_resonance_frequency_stands_in_for_a_missing_field_strength(header):
    prompt = metadata_prompt(header(field_strength_t=None, resonance_frequency_hz=63_600_000))
    assert slot(prompt, "field") == "1.5T"
    assert "63600000" in prompt.provenance["field"]


@pytest.mark.parametrize(
    ("vendor", "model", "expected"),
    [
        ("Siemens Healthineers", "MAGNETOM Sola", ("Siemens", "Sola")),
        ("SIEMENS", "MAGNETOM Avanto_fit", ("Siemens", "Avantofit")),
        ("SIEMENS", "MAGNETOM Free.Max", ("Siemens", "Free.Max")),
        ("GE MEDICAL SYSTEMS", "SIGNA Premier", ("GE", "Premier")),
        ("GE Healthcare", "DISCOVERY MR750w", ("GE", "MR750w")),
        ("UIH", "uMR 790", ("UIH", "790")),
        ("Shanghai United Imaging Healthcare Co., Ltd.", "umr_880", ("UIH", "880")),
        ("Philips Medical Systems", "Ingenia Ambition X", ("Philips", "Ambition")),
        ("Philips", "Ingenia", ("Philips", "Ingenia")),
        ("SIEMENS", "MAGNETOM Terra", ("Siemens", "Terra")),
        ("SIEMENS", "MAGNETOM", ("Siemens", "MAGNETOM")),
        ("Hitachi,  Ltd.", "Echelon  Smart.", ("Hitachi Ltd", "Echelon Smart")),
        ("  ", None, ("unknown", "unknown")),
    ],
)
def test_vendors_and_scanner_models_take_one_name(header, vendor, model, expected):
    prompt = metadata_prompt(header(vendor=vendor, model=model))
    assert (slot(prompt, "vendor"), slot(prompt, "scanner")) == expected


@pytest.mark.parametrize(
    ("protocol", "modality", "view"),
    [
        ("cine_sax", "cine", "short-axis"),
        ("CINE_SAx_12sl_bSSFP", "cine", "short-axis"),
        ("cine_lax", "cine", "long-axis"),
        ("trufi_4ch", "cine", "long-axis"),
        ("tfi2d_retro_2Ch", "cine", "long-axis"),
        ("cine_lvot", "cine", "outflow tract"),
        ("aorta_sag", "cine", "sagittal aorta"),
        ("aorta_tra", "cine", "transversal aorta"),
        ("T1map", "T1 mapping", "short-axis"),
        ("ShMOLLI_pre", "T1 mapping", "short-axis"),
        ("T1map_post", "T1 mapping post", "short-axis"),
        ("MOLLI_192i_postGd_4ch", "T1 mapping post", "long-axis"),
        ("T1rho", "T1 rho mapping", "short-axis"),
        ("T2map", "T2 mapping", "short-axis"),
        ("T2prep_Map_SAX", "T2 mapping", "short-axis"),
        ("T2star", "T2 star mapping", "short-axis"),
        ("t2*_map", "T2 star mapping", "short-axis"),
        ("tagging_lax", "tagging", "long-axis"),
        ("flow2d", "phase contrast", "through-plane"),
        ("PC_venc150_aorta", "phase contrast", "through-plane"),
        ("flow_inplane_3ch", "phase contrast", "in-plane"),
        ("perfusion_stress", "perfusion", "short-axis"),
        ("LGE_4CH", "late Gadolinium enhancement", "long-axis"),
        ("PSIR_SA", "late Gadolinium enhancement", "short-axis"),
        ("PSIR", "late Gadolinium enhancement", "unknown"),
        ("blackblood", "blackblood", "short-axis"),
        ("BB_HASTE", "blackblood", "short-axis"),
        ("HASTE_axial", "blackblood", "short-axis"),
        ("T1w", "T1 weighted", "short-axis"),
        ("T2w_TSE", "T2 weighted", "short-axis"),
        ("scout", "unknown", "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_modality_and_view_are_found_in_the_protocol_name(header, protocol, modality, view):
    prompt = metadata_prompt(header(protocol=protocol))
    assert (slot(prompt, "modality"), slot(prompt, "view")) == (modality, view)


@pytest.mark.parametrize(
    ("fields", "modality", "path"),
    [
        ({"series": "T2map_SAX"}, "T2 mapping", "seriesDescription"),
        ({"sequence": "TrueFISP"}, "cine", "sequence"),
        ({"user": {"imaging": "lge"}}, "late Gadolinium enhancement", "userParameters/imaging"),
        ({"phases": 25}, "cine", "encodingLimits/phase"),
    ],
)
def test_other_texts_are_asked_where_the_protocol_is_silent(header, fields, modality, path):
    prompt = metadata_prompt(header(protocol="scan 7", **fields))
    assert slot(prompt, "modality") == modality
    assert path in prompt.provenance["modality"]


def test_the_protocol_outranks_the_series_description(header):
    assert slot(metadata_prompt(header(protocol="cine_sax", series="LGE")), "modality") == "cine"


@pytest.mark.parametrize(
    ("birth", "study", "lifespan"),
    [
        ("1970-05-17", "2025-03-01", "Adult"),
        ("2007-03-01", "2025-03-01", "Adult"),
        ("2007-03-02", "2025-03-01", "Pediatric"),
        ("2024-12-31", "2025-03-01", "Pediatric"),
        ("2030-01-01", "2025-03-01", "unknown"),
        (None, "2025-03-01", "unknown"),
        ("1970-05-17", None, "unknown"),
        ("19700517T", "2025-03-01", "unknown"),
    ],
)
def test_the_lifespan_is_the_age_at_the_study(header, birth, study, lifespan):
    assert slot(metadata_prompt(header(birth=birth, study=study)), "lifespan") == lifespan


def test_a_fetal_protocol_outranks_the_mothers_age(header):
    assert slot(metadata_prompt(header(protocol="fetal_cine")), "lifespan") == "Fetal"


def test_every_slot_says_where_its_word_came_from_without_naming_the_patient(header):
    prompt = metadata_prompt(header())
    assert set(prompt.provenance) == set(SLOTS)
    assert "systemFieldStrength_T = 2.89362" in prompt.provenance["field"]
    assert "protocolName" in prompt.provenance["modality"]
    assert "1970" not in str(prompt.provenance)


def test_the_headers_own_origin_of_a_field_is_shown(header):
    prompt = metadata_prompt(header(origin={"vendor": "fallback: institution"}))
    assert "fallback: institution" in prompt.provenance["vendor"]


def test_overrides_replace_words_and_the_view_follows_an_overridden_modality(header):
    prompt = metadata_prompt(
        header(protocol="scan"), overrides={"modality": "T2  mapping", "scanner": "  Skyra ", "vendor": ""}
    )
    assert prompt == (
        "Adult cardiac MRI reconstruction.Vendor: 3.0T, unknown, Skyra. Modality: T2 mapping, short-axis."
    )
    assert prompt.provenance["modality"] == "T2 mapping from the override"


@pytest.mark.parametrize("overrides", [{"colour": "red"}, {"view": "a, b"}, {"scanner": "Vida."}])
def test_an_override_that_would_break_the_sentence_is_refused(header, overrides):
    with pytest.raises(ConfigError, match="prompt override"):
        metadata_prompt(header(), overrides=overrides)


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.text(max_size=30), min_size=4, max_size=4),
    tesla=st.one_of(st.none(), st.floats()),
    dates=st.lists(st.one_of(st.none(), st.text(max_size=10)), min_size=2, max_size=2),
)
def test_any_header_gives_a_well_formed_sentence(texts, tesla, dates):
    strange = ScanHeader(
        encoded_matrix=(1, 1, 1),
        encoded_fov_mm=(1.0, 1.0, 1.0),
        recon_matrix=(1, 1, 1),
        recon_fov_mm=(1.0, 1.0, 1.0),
        vendor=texts[0],
        model=texts[1],
        protocol=texts[2],
        user={"note": texts[3]},
        field_strength_t=tesla,
        patient=PatientInfo(birth_date=dates[0]),
        study=StudyInfo(study_date=dates[1]),
    )
    prompt = metadata_prompt(strange)
    assert FORM.fullmatch(prompt)
    assert "  " not in prompt
    assert prompt == prompt.strip()


def test_every_word_of_the_vocabulary_is_recognised_as_itself(header):
    vocabulary = load_vocabulary()
    for name in vocabulary.modality_names:
        assert slot(metadata_prompt(header(protocol=name)), "modality") == name
    for scanner in vocabulary.scanners:
        prompt = metadata_prompt(header(vendor=scanner.vendor, model=scanner.name))
        assert slot(prompt, "scanner") == scanner.name
    for vendor in vocabulary.vendors:
        assert slot(metadata_prompt(header(vendor=vendor)), "vendor") == vendor

from __future__ import annotations

import math

import numpy as np
import pytest

from recon_node.core.errors import ConfigError
from recon_node.core.types import Sampling
from recon_node.prompts import build_prompts, undersampling_prompt


def sampling(pattern, acceleration):
    return Sampling(pattern=pattern, acceleration=acceleration, effective_acceleration=2.0, acs=20)


@pytest.mark.parametrize(
    ("pattern", "acceleration", "sentence"),
    [
        ("random", 16.0, "Undersampling: 16x random."),
        ("radial", 14.75, "Undersampling: 16x radial."),
        ("random", 8.9, "Undersampling: 8x random."),
        ("random", 2.1, "Undersampling: 2x random."),
        ("random", 40.0, "Undersampling: 40x random."),
        ("uniform", 7.96, "Undersampling: 8x uniform."),
        ("uniform", 5.0, "Undersampling: 5x uniform."),
        ("uniform", 0.9, "Undersampling: 1x uniform."),
        ("full", 1.0, "Undersampling: 1x uniform."),
        ("unknown", 6.0, "Undersampling: 6x unknown."),
        ("uniform", math.inf, "Undersampling: unknown uniform."),
        ("random", math.nan, "Undersampling: unknown random."),
    ],
)
def test_the_sentence_says_what_was_found_in_words_the_network_knows(pattern, acceleration, sentence):
    assert undersampling_prompt(sampling(pattern, acceleration)) == sentence


@pytest.mark.parametrize("nominal", [4, 8])
def test_a_random_mask_over_many_frames_gets_its_nominal_acceleration(nominal):
    rng = np.random.default_rng(7)
    for _ in range(50):
        kept = rng.random((25, 172)) < 1 / nominal
        assert undersampling_prompt(sampling("random", kept.size / kept.sum())) == (
            f"Undersampling: {nominal}x random."
        )


def test_the_measured_acceleration_stays_in_the_provenance():
    prompt = undersampling_prompt(sampling("radial", 14.75))
    assert "14.75" in prompt.provenance["acceleration"]
    assert prompt.provenance["pattern"] == "radial from the mask"


def test_both_prompts_take_their_own_overrides(header):
    prompts = build_prompts(
        header(), sampling("random", 8.0), overrides={"acceleration": "12x", "view": "long-axis"}
    )
    assert prompts.undersampling == "Undersampling: 12x random."
    assert prompts.metadata.endswith("Modality: cine, long-axis.")
    assert prompts.undersampling.provenance["acceleration"] == "12 from the override"


def test_an_override_for_no_slot_of_either_prompt_is_refused(header):
    with pytest.raises(ConfigError, match="speed names no slot"):
        build_prompts(header(), sampling("random", 8.0), overrides={"speed": "fast"})


def test_a_mask_of_two_schemes_takes_the_word_of_the_wider_one() -> None:
    sampling = Sampling(
        pattern="mixed",
        acceleration=11.3,
        effective_acceleration=5.1,
        acs=20,
        parts=(("random", 10.9), ("uniform", 12.0)),
    )
    prompt = undersampling_prompt(sampling)
    assert prompt == "Undersampling: 12x random."
    assert "11.3x mixed (10.9x random, 12.0x uniform)" in prompt.provenance["pattern"]

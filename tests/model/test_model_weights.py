import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from recon_node.core.errors import WeightsError
from recon_node.core.types import TextEmbedding
from recon_node.model import (
    CardioMM,
    CardioMMConfig,
    UNetConfig,
    list_weights,
    load_weights,
    save_weights,
    verify_weights,
)
from recon_node.model import weights as module

TINY = UNetConfig(
    stem=4,
    levels=(6, 8, 8),
    prompts=(2, 3, 4),
    bank_sizes=(8, 4, 2),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    bottleneck_blocks=1,
)
CONFIG = CardioMMConfig(cascades=1, unet=TINY, text_features=12, text_size=6, shared_prelu=True)
SHA = "ab" * 32


@pytest.fixture
def net():
    torch.manual_seed(3)
    return CardioMM(CONFIG)


@pytest.fixture
def path(net, tmp_path):
    return save_weights(
        tmp_path / "tiny.safetensors", net, encoder="minilm", encoder_sha256=SHA, card={"seed": 3}
    )


def text(encoder="minilm", sha256=SHA, features=12):
    vector = np.ones(features, np.float32)
    return TextEmbedding(metadata=vector, undersampling=vector, encoder=encoder, encoder_sha256=sha256)


def rewrite(path, *, tensors=None, raw=None, **changes):
    with safetensors.safe_open(path, framework="pt") as file:
        known = json.loads(file.metadata()["recon-node"]) | changes
    content = safetensors.torch.load_file(path)
    metadata = {"recon-node": json.dumps(known) if raw is None else raw}
    safetensors.torch.save_file(content | (tensors or {}), path, metadata)


def test_weights_come_back_with_everything_known_about_them(net, path):
    loaded = load_weights(path)
    assert loaded.config == CONFIG
    assert (loaded.name, loaded.encoder, loaded.encoder_sha256) == ("tiny", "minilm", SHA)
    assert loaded.card["seed"] == 3
    assert loaded.card["validated"] is False
    assert "Not for clinical use" in loaded.card["intended_use"]
    assert not loaded.net.training
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.net.state_dict()[name], value), name


def test_a_shared_slope_is_stored_once_and_stays_shared(path):
    stored = safetensors.torch.load_file(path)
    net = load_weights(path).net
    slopes = [name for name in stored if name.endswith("slope.weight")]
    assert len(slopes) == 1 + 4
    assert net.phases[0].model.unet.bottleneck[0].slope is net.phases[0].model.unet.decoder[0].last.slope


def test_text_statistics_travel_with_the_weights(net, tmp_path):
    net.metadata_head.set_statistics(torch.arange(12.0), torch.full((12,), 2.0))
    path = save_weights(tmp_path / "s.safetensors", net, encoder="minilm", encoder_sha256=SHA, card={})
    assert torch.equal(load_weights(path).net.metadata_head.mean, torch.arange(12.0))


def test_half_precision_files_are_smaller_and_load_as_float32(net, path, tmp_path):
    half = save_weights(
        tmp_path / "half.safetensors",
        net,
        encoder="minilm",
        encoder_sha256=SHA,
        card={},
        dtype=torch.float16,
    )
    assert half.stat().st_size < 0.7 * path.stat().st_size
    loaded = load_weights(half).net
    for (name, value), original in zip(loaded.named_parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(value, original.float(), rtol=1e-3, atol=1e-4, msg=name)


def test_a_validated_flag_cannot_be_smuggled_in(net, tmp_path):
    path = save_weights(
        tmp_path / "v.safetensors", net, encoder="e", encoder_sha256=SHA, card={"validated": True}
    )
    assert load_weights(path).card["validated"] is False


def test_the_same_weights_make_the_same_file(net, path, tmp_path):
    again = save_weights(
        tmp_path / "again.safetensors", net, encoder="minilm", encoder_sha256=SHA, card={"seed": 3}
    )
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (text(encoder="clip"), "minilm"),
        (text(sha256="cd" * 32), "cdcdcdcd"),
        (text(features=11), "length 12"),
    ],
)
def test_embeddings_of_another_encoder_are_refused(path, wrong, words):
    loaded = load_weights(path)
    loaded.check_text(text())
    with pytest.raises(WeightsError, match=words):
        loaded.check_text(wrong)


def test_weights_without_an_encoder_hash_go_by_its_name(net, tmp_path):
    path = save_weights(tmp_path / "n.safetensors", net, encoder="clip", encoder_sha256=None, card={})
    loaded = load_weights(path)
    loaded.check_text(text(encoder="clip", sha256="any"))
    with pytest.raises(WeightsError, match="clip"):
        loaded.check_text(text())


def test_verification_notices_a_changed_file(path):
    assert verify_weights(path).name == "tiny"
    name = "cascades.0.dc_weight"
    rewrite(path, tensors={name: torch.tensor([0.5])})
    load_weights(path)
    with pytest.raises(WeightsError, match="damaged or replaced"):
        verify_weights(path)


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
def test_verification_needs_a_readable_manifest(path, content):
    manifest = path.with_suffix(".json")
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    with pytest.raises(WeightsError, match="manifest"):
        verify_weights(path)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": "other"}, "weights import"),
        ({"raw": "{}"}, "format is None"),
        ({"raw": "{"}, "description"),
        ({"raw": "[]"}, "description"),
        ({"config": {"cascades": 0}}, "cascades: found 0"),
        ({"config": 3}, "description"),
        ({"encoder": None}, "description"),
        ({"card": 3}, "description"),
        ({"config": dataclasses.replace(CONFIG, cascades=2).to_dict()}, "cascades.1.dc_weight is missing"),
        ({"config": dataclasses.replace(CONFIG, text_size=7).to_dict()}, "expected"),
        ({"config": dataclasses.replace(CONFIG, metadata_text=False).to_dict()}, "is unknown"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(path, metadata, words):
    rewrite(path, **metadata)
    with pytest.raises(WeightsError, match=words):
        load_weights(path)


def test_numbers_that_are_not_finite_are_neither_written_nor_read(net, path, tmp_path):
    rewrite(path, tensors={"cascades.0.dc_weight": torch.tensor([float("nan")])})
    with pytest.raises(WeightsError, match="dc_weight is not finite"):
        load_weights(path)
    net.phases[0].dc_weight.data.fill_(float("inf"))
    with pytest.raises(WeightsError, match="not finite"):
        save_weights(tmp_path / "x.safetensors", net, encoder="e", encoder_sha256=SHA, card={})
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x10" + b"\0" * 20])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_weights(tmp_path / "x.safetensors")


def test_unknown_names_and_absent_files_are_named(tmp_path):
    with pytest.raises(WeightsError, match="shipped are"):
        load_weights("no-such-weights")
    with pytest.raises(WeightsError, match="no such weights file"):
        load_weights(tmp_path / "absent.safetensors")


def test_weights_are_written_where_they_can_be(net, tmp_path):
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(tmp_path / "no" / "x.safetensors", net, encoder="e", encoder_sha256=SHA, card={})
    with pytest.raises(WeightsError, match="safetensors"):
        save_weights(tmp_path / "x.pt", net, encoder="e", encoder_sha256=SHA, card={})


def test_shipped_weights_load_by_name(net, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_shipped", lambda: {"tiny": tmp_path / "tiny.safetensors"})
    save_weights(tmp_path / "tiny.safetensors", net, encoder="minilm", encoder_sha256=SHA, card={})
    assert load_weights("tiny").name == "tiny"
    assert [info.name for info in list_weights()] == ["tiny"]


def test_everything_shipped_is_intact_and_small():
    for info in list_weights():
        assert verify_weights(info.name).config == info.config
        assert info.path.stat().st_size < 15e6

"""CLIP's text tower against the same network put together from torch's own layers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from recon_node.core.errors import ModelError, WeightsError
from recon_node.prompts import load_encoder

WORDS = ["under", "sampling", "8", "x", "random", ":", "."]
WIDTH, HEADS, LAYERS, FEATURES, POSITIONS = 16, 2, 3, 6, 20


def tiny_vocabulary():
    letters = sorted(set("".join(WORDS)))
    vocab = {}
    for piece in [*letters, *(f"{c}</w>" for c in letters)]:
        vocab[piece] = len(vocab)
    merges = []
    for word in ("random",):
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces[:2] = ["".join(pieces[:2])]
            vocab.setdefault(pieces[0], len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return vocab, merges


def tiny_weights(tokens, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    p = "text_model."
    weights = {
        f"{p}embeddings.token_embedding.weight": draw(tokens, WIDTH),
        f"{p}embeddings.position_embedding.weight": draw(POSITIONS, WIDTH),
        f"{p}final_layer_norm.weight": 1 + draw(WIDTH),
        f"{p}final_layer_norm.bias": draw(WIDTH),
        "text_projection.weight": draw(FEATURES, WIDTH),
        "visual_projection.weight": draw(3, 3),
    }
    for layer in range(LAYERS):
        b = f"{p}encoder.layers.{layer}."
        for part in ("q", "k", "v", "out"):
            weights[f"{b}self_attn.{part}_proj.weight"] = draw(WIDTH, WIDTH)
            weights[f"{b}self_attn.{part}_proj.bias"] = draw(WIDTH)
        for part, shape in (("fc1", (4 * WIDTH, WIDTH)), ("fc2", (WIDTH, 4 * WIDTH))):
            weights[f"{b}mlp.{part}.weight"] = draw(*shape)
            weights[f"{b}mlp.{part}.bias"] = draw(shape[0])
        for part in ("layer_norm1", "layer_norm2"):
            weights[f"{b}{part}.weight"] = 1 + draw(WIDTH)
            weights[f"{b}{part}.bias"] = draw(WIDTH)
    return weights


@pytest.fixture
def folder(tmp_path):
    vocab, merges = tiny_vocabulary()
    config = {
        "text_config": {
            "hidden_size": WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "projection_dim": FEATURES,
        }
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    save_file(tiny_weights(len(vocab)), tmp_path / "model.safetensors")
    return tmp_path


def by_torch(weights, ids):
    """The same tower from torch's layers."""
    w = {key.removeprefix("text_model."): torch.from_numpy(value) for key, value in weights.items()}
    functional = torch.nn.functional
    x = w["embeddings.token_embedding.weight"][ids] + w["embeddings.position_embedding.weight"][: len(ids)]
    mask = torch.triu(torch.ones(len(ids), len(ids), dtype=torch.bool), 1)
    for layer in range(LAYERS):
        b = f"encoder.layers.{layer}."
        attend = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        names = [f"{b}self_attn.{part}_proj" for part in "qkv"]
        with torch.no_grad():
            attend.in_proj_weight.copy_(torch.cat([w[f"{n}.weight"] for n in names]))
            attend.in_proj_bias.copy_(torch.cat([w[f"{n}.bias"] for n in names]))
            attend.out_proj.weight.copy_(w[f"{b}self_attn.out_proj.weight"])
            attend.out_proj.bias.copy_(w[f"{b}self_attn.out_proj.bias"])
        y = functional.layer_norm(x, (WIDTH,), w[f"{b}layer_norm1.weight"], w[f"{b}layer_norm1.bias"])
        x = x + attend(y[None], y[None], y[None], attn_mask=mask)[0][0]
        y = functional.layer_norm(x, (WIDTH,), w[f"{b}layer_norm2.weight"], w[f"{b}layer_norm2.bias"])
        y = functional.linear(y, w[f"{b}mlp.fc1.weight"], w[f"{b}mlp.fc1.bias"])
        y = y * torch.sigmoid(1.702 * y)
        x = x + functional.linear(y, w[f"{b}mlp.fc2.weight"], w[f"{b}mlp.fc2.bias"])
    x = functional.layer_norm(x, (WIDTH,), w["final_layer_norm.weight"], w["final_layer_norm.bias"])
    return (x[-1] @ w["text_projection.weight"].T).detach().numpy()


def test_features_equal_those_of_the_network_built_from_torch_layers(folder):
    vocab, _ = tiny_vocabulary()
    pieces = ["8</w>", "x</w>", "random</w>", ".</w>"]
    ids = [vocab["<|startoftext|>"], *(vocab[p] for p in pieces), vocab["<|endoftext|>"]]
    got = load_encoder("clip", folder=folder).encode(["8x  RANDOM."])
    assert got.shape == (1, FEATURES)
    np.testing.assert_allclose(got[0], by_torch(tiny_weights(len(vocab)), ids), rtol=1e-4, atol=1e-5)


def test_features_are_not_scaled_to_unit_length(folder):
    norms = np.linalg.norm(load_encoder("clip", folder=folder).encode(["8x random.", "random"]), axis=1)
    assert not np.allclose(norms, 1, atol=0.05)


def test_either_tokenizer_form_and_either_weights_form_give_the_same_features(folder):
    from recon_node.prompts.encoders.tokens import clip_tokenizer

    encoder = load_encoder("clip", folder=folder)
    want, first_hash = encoder.encode(["8x random."]), encoder.sha256
    tokenizer, _ = clip_tokenizer(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    vocab, _ = tiny_vocabulary()
    torch.save(
        {k: torch.from_numpy(v) for k, v in tiny_weights(len(vocab)).items()}, folder / "pytorch_model.bin"
    )
    (folder / "model.safetensors").unlink()
    for part in ("vocab.json", "merges.txt"):
        (folder / part).unlink()
    other = load_encoder("clip", folder=folder)
    np.testing.assert_array_equal(other.encode(["8x random."]), want)
    assert other.sha256 != first_hash


def test_the_hash_follows_the_weights(folder):
    before = load_encoder("clip", folder=folder).sha256
    assert load_encoder("clip", folder=folder).sha256 == before
    vocab, _ = tiny_vocabulary()
    save_file(tiny_weights(len(vocab), seed=1), folder / "model.safetensors")
    assert load_encoder("clip", folder=folder).sha256 != before


def test_a_pickle_with_code_in_it_is_refused(folder):
    class Evil:
        def __reduce__(self):
            return (print, ("unpickled",))

    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="nothing else is unpickled"):
        load_encoder("clip", folder=folder).encode(["random"])


def test_missing_tensors_are_listed(folder):
    vocab, _ = tiny_vocabulary()
    weights = tiny_weights(len(vocab))
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 1 tensors: text_projection\.weight"):
        load_encoder("clip", folder=folder).encode(["random"])


def test_a_sentence_longer_than_the_positions_is_an_error_not_a_cut(folder):
    with pytest.raises(ModelError, match="22 tokens"):
        load_encoder("clip", folder=folder).encode(["x " * 20])


def test_damaged_weights_do_not_give_vectors(folder):
    vocab, _ = tiny_vocabulary()
    weights = tiny_weights(len(vocab))
    weights["text_projection.weight"][0, 0] = np.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match="non-finite"):
        load_encoder("clip", folder=folder).encode(["random"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, r"no readable config\.json"),
        ("config.json", "{", "is not JSON"),
        ("config.json", "[]", "expected an object"),
        ("config.json", '{"text_config": {"hidden_act": "mish"}}', "asks for activation 'mish'"),
        ("config.json", '{"text_config": {"hidden_size": "x"}}', "gives no hidden_size"),
        ("vocab.json", None, r"neither tokenizer\.json nor vocab\.json"),
        ("vocab.json", "{", "is no CLIP tokenizer"),
        ("vocab.json", '{"a": 0}', "is no CLIP tokenizer|lacks"),
        ("model.safetensors", None, r"neither model\.safetensors nor"),
        ("model.safetensors", "no tensors", "not a readable safetensors file"),
    ],
)
def test_a_folder_with_a_missing_or_damaged_file_says_which(folder, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(WeightsError, match=message):
        load_encoder("clip", folder=folder).encode(["random"])

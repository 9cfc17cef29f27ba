import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import ConfigError
from recon_node.model import CardioMM, CardioMMConfig, UNetConfig

SMALL = UNetConfig(stem=4, levels=(6, 8, 8), prompts=(2, 3, 4), bank_sizes=(8, 4, 2))

triples = st.tuples(*[st.integers(1, 200)] * 3)
unets = st.builds(
    UNetConfig,
    stem=st.integers(1, 200),
    levels=triples,
    prompts=triples,
    encoder_blocks=st.tuples(*[st.integers(0, 3)] * 3),
    bottleneck_blocks=st.integers(0, 3),
)
configs = st.builds(
    CardioMMConfig,
    cascades=st.integers(1, 12),
    unet=unets,
    sensitivity=st.none() | unets,
    frames=st.sampled_from([1, 3, 5]),
    temporal_mean=st.booleans(),
    start=st.sampled_from(["zero-filled", "kt"]),
    residual=st.booleans(),
    metadata_text=st.booleans(),
    text_norm=st.sampled_from(["l2", "sign"]),
)


@given(configs)
@settings(max_examples=30)
def test_a_configuration_survives_json(config):
    assert CardioMMConfig.from_json(config.to_json()) == config


def test_left_out_keys_take_the_papers_values():
    config = CardioMMConfig.from_dict({"cascades": 4})
    assert (config.cascades, config.unet.stem, config.unet.levels) == (4, 48, (72, 96, 120))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cascade": 3}, r"\[model\] cascade: found an unknown key; did you mean cascades"),
        ({"unet": {"stems": 3}}, r"\[model.unet\] stems: found an unknown key; did you mean stem"),
        ({"unet": None}, "unet: found nothing, allowed a table"),
        ({"sensitivity": 3}, "sensitivity: found 3, allowed a table or none"),
        ({"cascades": 0}, "cascades: found 0, allowed a whole number, 1 to 100"),
        ({"cascades": 10**6}, "cascades: found 1000000, allowed a whole number, 1 to 100"),
        ({"cascades": True}, "cascades: found True"),
        ({"frames": 2}, "frames: found 2, allowed an odd number"),
        ({"text_norm": "max"}, "one of l2, sign"),
        ({"start": "random"}, "one of zero-filled, kt"),
        ({"residual": 1}, "true or false"),
        ({"kt": None}, "kt: found nothing"),
        ({"kt": {"iterations": 0}}, r"\[model.kt\] iterations: found 0"),
        ({"kt": {"spatial": -1}}, "spatial: found -1"),
        ({"kt": {"temporal": "much"}}, "temporal: found 'much', allowed a number"),
        (
            {"unet": {"levels": [1, 2]}},
            "levels: found .*, allowed a list of 3: each a whole number",
        ),
        ({"unet": {"levels": [1, 2, 0]}}, "levels: found 0"),
        ({"unet": {"skip_blocks": [1, 2, -1]}}, "skip_blocks: found -1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        CardioMMConfig.from_dict(change)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_anything_but_a_json_object_is_refused(text):
    with pytest.raises(ConfigError, match="JSON"):
        CardioMMConfig.from_json(text)


def test_the_published_network_has_the_published_number_of_parameters():
    net = CardioMM(CardioMMConfig.published())
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    heads = sum(n for name, n in sizes.items() if "_head." in name)
    assert heads == 2 * (512 * 256 + 256)
    assert sum(sizes.values()) - heads == 68_401_990
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad) - heads
    assert trained == 63_176_518


def test_variants_are_named_as_in_the_ablation():
    names = {
        (m, u): CardioMMConfig(metadata_text=m, undersampling_text=u).variant
        for m in (True, False)
        for u in (True, False)
    }
    assert names == {
        (True, True): "CardioMM",
        (True, False): "CardioSM+MT",
        (False, True): "CardioSM+UT",
        (False, False): "CardioSM",
    }


def test_json_has_plain_values_only():
    config = CardioMMConfig(unet=SMALL)
    assert json.loads(config.to_json())["unet"]["levels"] == [6, 8, 8]
    assert dataclasses.replace(config, cascades=3).cascades == 3

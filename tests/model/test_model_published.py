import csv
import dataclasses
import json
import logging
import pickle

import numpy as np
import pytest
import torch

from benchmarks import golden_cases
from recon_node.core.errors import DataError, ModelError, WeightsError
from recon_node.model import CardioMMConfig, UNetConfig, import_published, load_weights, verify_weights
from recon_node.model.published import convert

TINY = UNetConfig(stem=4, levels=(6, 8, 8), prompts=(2, 3, 4), bank_sizes=(8, 4, 2), encoder_blocks=(1, 1, 2))
CONFIG = dataclasses.replace(
    CardioMMConfig.published(), cascades=2, unet=TINY, sensitivity=TINY, text_features=10, text_size=6
)
PREFIX = "metausunetlight."
LAST = PREFIX + "cascades.1.model.unet.dec_level1.ca.body.1.weight"


@pytest.fixture(scope="module")
def state(golden):
    return golden.checkpoint(CONFIG, "strong")


@pytest.fixture(scope="module")
def checkpoint(golden, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "tiny.ckpt"
    return golden.save_checkpoint(path, CONFIG, "strong")


def inputs(*, items=2, shape=(21, 18), seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((items, *shape)) < 0.5
    mask[:, :, 6:13] = True
    kspace = rng.standard_normal((items, 3, *shape)) + 1j * rng.standard_normal((items, 3, *shape))
    texts = rng.standard_normal((2, items, 10)).astype(np.float32)
    arrays = ((kspace * mask[:, None]).astype(np.complex64), mask, *texts)
    return [torch.from_numpy(array) for array in arrays]


def saved(tmp_path, state):
    torch.save({"state_dict": state}, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


def distance(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", ["A_strong", "B_strong"])
def test_the_whole_network_reproduces_the_golden_outputs(golden, name):
    rows = list(golden.whole(golden.KEPT / f"{name}.npz"))
    assert [row.quantity for row in rows] == ["sens_maps", "c1_image_in", "c1_image_out", "output"]
    assert [row for row in rows if not row.error <= row.limit] == []


def test_in_float64_only_rounding_is_left(golden):
    rows = list(golden.whole(golden.KEPT / "A_strong.npz", double=True))
    assert rows[-1].quantity == "output"
    assert rows[-1].error < 1e-14


def test_the_second_implementation_reproduces_the_golden_output(golden):
    assert golden_cases.anchor(golden.KEPT / "A_strong.npz").error < 1e-12


@pytest.mark.parametrize("case", golden_cases.CASES, ids=lambda case: case.name)
def test_the_network_equals_the_second_implementation(case):
    with torch.no_grad():
        rows = list(golden_cases.compare(case))
    assert [row.quantity for row in rows] == ["float32", "float64"]
    assert [row for row in rows if not row.error <= row.limit] == []


def test_the_second_implementation_notices_a_wrong_rule():
    case = next(case for case in golden_cases.CASES if case.name == "square calibration")
    data, state = golden_cases.inputs(case), golden_cases.checkpoint(case.config, case.weights)
    arrays = [data[name][0] for name in ("kspace", "mask", "meta", "us")]
    square, columns = (golden_cases.Reference(state)(*arrays, acs=8, rule=r) for r in ("square", "columns"))
    assert np.linalg.norm(square - columns) > 1e-4 * np.linalg.norm(square)


def test_every_module_reproduces_its_golden_outputs(golden):
    rows = list(golden.modules(golden.KEPT / "modules_strong.npz"))
    assert len(rows) > 30
    assert [row for row in rows if not row.error <= row.limit] == []


def test_a_wrong_weight_is_noticed_by_the_golden_comparison(golden, monkeypatch):
    real = golden.formula

    def wrong(key, shape, weights):
        value = real(key, shape, weights)
        return value * np.float32(1.001) if key.endswith("metacond_level2.fc.weight") else value

    monkeypatch.setattr(golden, "formula", wrong)
    rows = list(golden.whole(golden.KEPT / "A_strong.npz"))
    assert rows[-1].error > rows[-1].limit


def test_the_configuration_is_found_from_the_shapes(checkpoint):
    assert import_published(checkpoint).network.config == CONFIG


def test_a_batch_with_different_texts_equals_its_items_alone(checkpoint):
    net = import_published(checkpoint)
    for acs, rule in ((6, "columns"), (0, "columns"), (6, "square")):
        batch = inputs()
        together = net(*batch, acs=acs, acs_rule=rule)
        assert together.dtype == torch.float32
        for item in (0, 1):
            alone = net(*(value[item : item + 1] for value in batch), acs=acs, acs_rule=rule)
            assert distance(together[item], alone[0]) < 5e-6


def test_the_two_calibration_rules_differ_and_a_tensor_counts_by_its_minimum(checkpoint):
    net, batch = import_published(checkpoint), inputs()
    columns = net(*batch, acs=6)
    assert distance(net(*batch, acs=6, acs_rule="square"), columns) > 1e-4
    assert torch.equal(net(*batch, acs=torch.tensor([6, 8])), columns)


def test_automatic_calibration_takes_the_fully_sampled_columns_of_each_item(checkpoint):
    net, (kspace, mask, meta, us) = import_published(checkpoint), inputs()
    mask[:, :, 4:6] = mask[:, :, 13:15] = False
    mask[1, :, 6:13] = False
    mask[1, :, 8:11] = True
    kspace = kspace * mask[:, None]
    automatic = net(kspace, mask, meta, us, acs=0)
    for item, width in ((0, 6), (1, 2)):
        one = slice(item, item + 1)
        assert distance(automatic[one], net(kspace[one], mask[one], meta[one], us[one], acs=width)) < 5e-6


def test_given_maps_replace_the_learned_ones(checkpoint):
    net, batch = import_published(checkpoint), inputs()
    seen = []
    net.network.sensitivity.register_forward_hook(lambda module, args, out: seen.append(out))
    learned = net(*batch, acs=6)
    given = net(*batch, maps=seen[0])
    assert len(seen) == 1
    assert distance(given, learned) < 1e-6
    assert distance(net(*batch, maps=seen[0].roll(1, 1)), learned) > 1e-3


def test_only_the_magnitude_of_the_consistency_weight_counts(golden, state, checkpoint, tmp_path):
    flipped = {key: -value if key.endswith("dc_weight") else value for key, value in state.items()}
    batch = inputs()
    net, other = import_published(checkpoint), import_published(saved(tmp_path, flipped))
    assert torch.equal(net(*batch, acs=6), other(*batch, acs=6))


def test_a_dead_coil_gives_no_nan(checkpoint):
    kspace, mask, meta, us = inputs()
    kspace[:, 1] = 0
    assert bool(torch.isfinite(import_published(checkpoint)(kspace, mask, meta, us, acs=6)).all())


def test_of_a_shared_slope_with_several_values_the_last_key_counts(state, checkpoint, tmp_path, caplog):
    changed = dict(state)
    aliases = [k for k in state if "body.1" in k and state[k].item() == pytest.approx(0.15)]
    changed[LAST] = torch.tensor([0.4])
    with caplog.at_level(logging.WARNING):
        first = import_published(saved(tmp_path, changed))
    assert "last one counts" in caplog.text
    for key in aliases:
        changed[key] = torch.tensor([0.4])
    caplog.clear()
    second = import_published(saved(tmp_path, changed))
    assert caplog.text == ""
    batch = inputs()
    assert torch.equal(first(*batch, acs=6), second(*batch, acs=6))
    assert distance(first(*batch, acs=6), import_published(checkpoint)(*batch, acs=6)) > 1e-3


def test_two_imported_networks_do_not_share_anything(state, checkpoint, tmp_path):
    net, batch = import_published(checkpoint), inputs()
    before = net(*batch, acs=6)
    import_published(saved(tmp_path, {key: value + 0.1 for key, value in state.items()}))
    assert torch.equal(net(*batch, acs=6), before)


def test_all_faults_of_a_checkpoint_are_listed_at_once(state, tmp_path):
    broken = dict(state)
    missing = [PREFIX + "cascades.1.dc_weight", PREFIX + "sens_net.norm_unet.unet.conv_last.weight"]
    for key in missing:
        del broken[key]
    broken[PREFIX + "extra.weight"] = torch.zeros(3)
    broken["lm_head_us.fc1.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError) as caught:
        import_published(saved(tmp_path, broken))
    message = str(caught.value)
    assert "2 missing" in message
    assert all(key in message for key in missing)
    assert f"1 unknown: {PREFIX}extra.weight" in message
    assert "lm_head_us.fc1.bias is (5,), expected (6,)" in message


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.pop(PREFIX + "cascades.0.model.unet.enc_level2.down.weight"),
        lambda s: s.pop("lm_head_meta.fc1.weight"),
        lambda s: s.pop("lm_head_meta.fc2.bias"),
        lambda s: s.update({PREFIX + "cascades.0.model.unet.feat_extract.weight": torch.zeros(4, 6, 3, 3)}),
        lambda s: s.update({PREFIX + "cascades.0.model.unet.prompt_level1.prompt_param": torch.zeros(3)}),
        lambda s: s.update({PREFIX + "cascades.0.dc_weight": 3}),
        lambda s: s.update({PREFIX + "cascades.0.dc_weight": torch.tensor([float("nan")])}),
        lambda s: [s.pop(key) for key in list(s) if ".cascades.0." in "." + key],
        lambda s: s.clear(),
    ],
)
def test_a_damaged_checkpoint_is_refused(state, tmp_path, spoil):
    broken = dict(state)
    spoil(broken)
    with pytest.raises(WeightsError):
        import_published(saved(tmp_path, broken))


class Unpicklable:
    """What an untrusted file might run."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_nothing_in_a_file_is_ever_run(state, tmp_path, capsys):
    torch.save({"state_dict": state, "hyper_parameters": Unpicklable()}, tmp_path / "evil.ckpt")
    with pytest.raises(WeightsError, match="without unpickling") as caught:
        import_published(tmp_path / "evil.ckpt")
    assert "weights_only" not in str(caught.value), "no advice to unpickle it after all"
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Unpicklable()))
    with pytest.raises(WeightsError):
        import_published(tmp_path / "plain.ckpt")
    assert "unpickled" not in capsys.readouterr().out


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    for name, content in (("empty", b""), ("text", b"hello"), ("zip", b"PK\x03\x04broken")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError):
            import_published(tmp_path / name)
    with pytest.raises(WeightsError, match="cannot be read"):
        import_published(tmp_path / "absent.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(WeightsError, match="list"):
        import_published(tmp_path / "list.ckpt")


def test_the_network_takes_the_precision_of_its_weights_not_of_its_input(checkpoint):
    kspace, mask, meta, us = inputs()
    net = import_published(checkpoint)
    single = net(kspace, mask, meta, us, acs=6)
    assert torch.equal(net(kspace.to(torch.complex128), mask, meta.double(), us.double(), acs=6), single)
    double = net.double()(kspace, mask, meta, us, acs=6)
    assert double.dtype == torch.float64
    assert distance(single, double) < 1e-6


def test_text_features_of_another_encoder_are_refused(checkpoint):
    kspace, mask, meta, us = inputs()
    with pytest.raises(ModelError, match="text encoder it was trained with"):
        import_published(checkpoint)(kspace, mask, meta[:, :8], us, acs=6)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda k, m: k.mul_(float("nan")), "NaN or infinite"),
        (lambda k, m: k[1].zero_(), "all samples of an item are zero"),
        (lambda k, m: m[1].zero_(), "mask of an item is empty"),
    ],
)
def test_k_space_that_says_nothing_is_refused(checkpoint, spoil, words):
    kspace, mask, meta, us = inputs()
    spoil(kspace, mask)
    with pytest.raises(DataError, match=words):
        import_published(checkpoint)(kspace, mask, meta, us, acs=6)


def test_an_image_smaller_than_the_network_is_refused(checkpoint):
    with pytest.raises(DataError, match="at least 8 x 8"):
        import_published(checkpoint)(*inputs(shape=(6, 18)), acs=6)


@pytest.mark.parametrize(
    "change",
    [
        lambda k, m, a, b: (k[0], m, a, b),
        lambda k, m, a, b: (k, m, a[:1], b),
        lambda k, m, a, b: (k.real, m, a, b),
        lambda k, m, a, b: (k, m.float(), a, b),
        lambda k, m, a, b: (k, m[:, :1], a, b),
        lambda k, m, a, b: (k, m, a, b, 6, "rows"),
        lambda k, m, a, b: (k, m, a, b, 6, "columns", k[:, :2]),
        lambda k, m, a, b: (k, m, a, b, 0, "square"),
        lambda k, m, a, b: (k, m, a, b, 30),
    ],
)
def test_inputs_that_do_not_belong_together_are_refused(checkpoint, change):
    with pytest.raises(DataError):
        import_published(checkpoint)(*change(*inputs()))


def test_a_converted_checkpoint_is_the_same_network(checkpoint, tmp_path):
    out = convert(checkpoint, tmp_path / "published.safetensors")
    loaded = verify_weights(out)
    original = import_published(checkpoint).network.state_dict()
    assert loaded.config == CONFIG
    assert loaded.encoder == "clip"
    assert "academic use only" in loaded.card["licence"]
    assert loaded.card["validated"] is False
    for name, value in loaded.net.state_dict().items():
        assert torch.equal(value, original[name]), name
    manifest = json.loads((tmp_path / "published.json").read_text())
    assert manifest["sha256"] == load_weights(out).sha256


def test_keys_and_shapes_agree_with_the_manifest_of_the_published_network(golden, pytestconfig):
    path = pytestconfig.rootpath / "tests" / "data" / "golden" / "keys.tsv"
    with path.open() as file:
        wanted = {row["key"]: row["shape"] for row in csv.DictReader(file, delimiter="\t")}
    shapes = golden.shapes(CardioMMConfig.published())
    assert sum(key.startswith(PREFIX) for key in shapes) == 1913
    # the file holds the sensitivity network, the first and the last cascade, the heads and the loss
    between = tuple(f"{PREFIX}cascades.{index}." for index in range(1, 9))
    kept = {k: "x".join(map(str, s)) for k, s in shapes.items() if not k.startswith(between)}
    assert kept == wanted

"""Does the text help: the plan, networks that differ in their texts alone, and what their scores say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from recon_node.cli.evaluate import command
from recon_node.core.errors import ConfigError, DataError
from recon_node.lab.ablation import load_plan, planned, write_reports
from recon_node.lab.ablation.plan import networks, training_of
from recon_node.lab.ablation.report import comparisons, dose_response
from recon_node.lab.training.config import DataConfig
from recon_node.lab.training.data import ExampleSet
from recon_node.lab.training.sources import clip_source

SMALL = """
[plan]
arms = ["none", "both", "shuffled"]
seeds = [3]
test_scans = 2
test_hearts = 1
[starts.single]
frames = 1
[contrasts]
two = ["cine", "T1 mapping"]
[train.model]
cascades = 1
residual = true
text_features = 384
[train.model.unet]
stem = 4
levels = [4, 4, 4]
prompts = [2, 2, 2]
bank_sizes = [4, 4, 4]
encoder_blocks = [1, 0, 0]
decoder_blocks = [0, 0, 0]
skip_blocks = [0, 0, 0]
bottleneck_blocks = 0
[train.data]
matrix = [32, 32]
frames = 3
window = 32
examples = 2
coils = [3, 3]
patterns = ["uniform", "random"]
accelerations = [2, 4]
acs = 8
workers = 0
[train.optim]
steps = 2
[train.run]
validation_examples = 1
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of three networks, run by the command on drawn scans and one real clip."""
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "plan.toml").write_text(SMALL)
    (folder / "hearts").mkdir()
    y, x = np.mgrid[:40, :40] - 20
    radius = 8 + 2 * np.cos(2 * np.pi * np.arange(6) / 6)[:, None, None]
    cine = (800 * (np.hypot(y, x) < radius) + 200).astype(np.uint16)
    np.savez(folder / "hearts" / "clip.npz", cine=cine, pixel_mm=(3.0, 3.0), field_t=1.5)
    result = CliRunner().invoke(command, arguments(folder), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((folder / "out" / "ablation.json").read_text())
    return folder


def arguments(folder: Path) -> list[str]:
    plan, hearts, out = (str(folder / name) for name in ("plan.toml", "hearts", "out"))
    return ["ablation", "--plan", plan, "--hearts", hearts, "--out", out, "--json"]


def test_networks_of_a_plan_differ_in_their_texts_alone() -> None:
    plan = load_plan(Path("small"))
    found = list(networks(plan))
    assert len(found) == len({one.key for one in found}) == 5 * 2 * 2 * 2
    same, rest = {}, []
    for one in found[:5]:
        training = training_of(plan, one, Path("x")).as_dict()
        same[one.arm] = (
            training["model"].pop("metadata_text"),
            training["model"].pop("undersampling_text"),
            training["text"].pop("shuffled"),
        )
        rest.append({**training, "run": {}})
    assert all(training == rest[0] for training in rest)
    assert same == {
        "none": (False, False, False),
        "undersampling": (False, True, False),
        "metadata": (True, False, False),
        "both": (True, True, False),
        "shuffled": (True, True, True),
    }


def test_a_plan_with_a_mistake_and_a_folder_of_another_plan_are_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    for change, wrong in (
        (('"both"', '"most"'), "arms"),
        (('"T1 mapping"', '"T9 mapping"'), "T9 mapping"),
        (("steps = 2", "stops = 2"), "stops"),
        (("[contrasts]\ntwo", "[contrast]\ntwo"), "contrast"),
    ):
        file.write_text(SMALL.replace(*change))
        with pytest.raises(ConfigError, match=wrong):
            load_plan(file)
    with pytest.raises(ConfigError, match=r"no plan of that name \(paired, small\)"):
        load_plan(tmp_path / "gone")
    file.write_text(SMALL)
    planned(load_plan(file), tmp_path / "out")
    planned(load_plan(file), tmp_path / "out")
    with pytest.raises(ConfigError, match="results of another plan"):
        planned(load_plan(Path("small")), tmp_path / "out")


def test_shuffled_sentences_are_those_of_another_example_and_nothing_else_changes(tmp_path: Path) -> None:
    config = DataConfig(
        matrix=(32, 32),
        frames=2,
        examples=4,
        coils=(3, 3),
        acs=8,
        accelerations=(2, 4, 6),
        pool=str(tmp_path),
    )
    plain, mixed = (
        ExampleSet(clip_source(config), config, seed=1, salt="x", shuffled=shuffled)
        for shuffled in (False, True)
    )
    sentences = [plain[n].metadata + plain[n].undersampling for n in range(4)]
    assert len(set(sentences)) == 4
    told = set()
    for n in range(12):
        example = mixed[n]
        told.add((n % 4, sentences.index(example.metadata + example.undersampling)))
        assert (example.kspace == plain[n].kspace).all()
    assert not any(own == other for own, other in told)
    assert len(told) > 4  # not the same partner each time round


def test_a_plan_is_trained_measured_and_never_done_twice(ran: Path) -> None:
    out = ran / "out"
    report = json.loads((out / "ablation.json").read_text())
    assert (report["networks"], report["planned"]) == (3, 3)
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    cases = {(one["case"], one["source"]) for one in records[0]["results"]}
    assert cases == {("0 cine", "drawn"), ("1 T1 mapping", "drawn"), ("clip", "real")}
    texts = {one["arm"]: {result["text"] for result in one["results"]} for one in records}
    assert texts["none"] == {"right", "first"}
    assert texts["shuffled"] == {"wrong", "first"}
    assert {"right", "missing", "wrong", "first"} >= texts["both"] >= {"right", "missing", "first"}
    compared = {(one["ours"], one["theirs"]) for one in report["comparisons"] if one["source"] == "drawn"}
    assert ("both right", "none right") in compared
    before = (out / "results.jsonl").read_bytes()
    weights = {file: file.stat().st_mtime_ns for file in out.glob("networks/*/*.safetensors")}
    assert len(weights) == 3
    assert CliRunner().invoke(command, arguments(ran)).exit_code == 0
    assert (out / "results.jsonl").read_bytes() == before
    assert weights == {file: file.stat().st_mtime_ns for file in weights}


def test_the_page_tells_the_dose_and_a_plan_that_is_not_finished(ran: Path, tmp_path: Path) -> None:
    plan = load_plan(ran / "plan.toml")
    lines = (ran / "out" / "results.jsonl").read_text().splitlines()
    assert "Dose and response" in (ran / "out" / "ablation.html").read_text()
    write_reports(plan, [json.loads(line) for line in lines[:2]], tmp_path)
    told = (tmp_path / "ablation.md").read_text()
    assert "2 of 3 networks" in told
    assert "not finished" in told
    with pytest.raises(DataError, match="no network is done"):
        write_reports(plan, [], tmp_path)


def test_gains_are_paired_over_scans_and_means_of_seeds() -> None:
    place = ("kt", "six", "drawn")
    rng = np.random.default_rng(5)
    keys = [(str(scan), seed) for scan in range(12) for seed in (0, 1)]
    base = {key: float(rng.normal(30, 3)) for key in keys}
    better = {key: value + 0.5 + float(rng.normal(0, 0.05)) for key, value in base.items()}
    worse = {key: value - 0.8 for key, value in better.items()}
    scores = {
        place: {
            "none right": base,
            "metadata right": better,
            "both right": better,
            "both wrong": worse,
            "shuffled wrong": {keys[0]: 1.0},
        }
    }
    found = {(one.ours, one.theirs): one for one in comparisons(scores)}
    assert set(found) == {
        ("metadata right", "none right"),
        ("both right", "none right"),
        ("both wrong", "both right"),
    }
    gain = found["both right", "none right"]
    assert (gain.difference.count, gain.difference.wins) == (12, 12)
    assert gain.difference.mean == pytest.approx(0.5, abs=0.05)
    assert gain.difference.p < gain.together < 0.01
    assert found["both wrong", "both right"].difference.mean == pytest.approx(-0.8)
    (dose,) = dose_response(scores)
    assert dose["texts_1"] == dose["texts_2"] == pytest.approx(0.5, abs=0.05)

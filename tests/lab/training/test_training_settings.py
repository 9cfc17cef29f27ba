from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training_run import _config, _stopped

from recon_node.cli import run
from recon_node.core.errors import ConfigError, DataError, WeightsError
from recon_node.lab.training import config as config_module
from recon_node.lab.training.config import load_train_config, train_config_from_dict
from recon_node.lab.training.export import _without_folders
from recon_node.lab.training.loop import Run
from recon_node.lab.training.sources import SimulatorClips, find_files
from recon_node.model import load_weights
from recon_node.simulate import simulate_scan


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("optim", "steps", 0, "a whole number, 1 to"),
        ("optim", "steps", "many", "a whole number"),
        ("optim", "steps", True, "a whole number"),
        ("optim", "accumulate", 0, "1 to"),
        ("optim", "precision", "fp8", "one of fp32, bf16"),
        ("optim", "ema", 1.5, "0 to 1"),
        ("optim", "loss", "ssim", "a table"),
        ("data", "patterns", "often", "uniform, random, radial"),
        ("data", "accelerations", [], "not empty"),
        ("data", "accelerations", ["fast"], "a number, 1 to 1000"),
        ("data", "matrix", [48], "a list of 2"),
        ("data", "matrix", [48, 4.5], "a whole number"),
        ("data", "patterns", ["spiral"], "uniform, random, radial"),
        ("data", "modalities", ["cine", "cinema"], "phase contrast"),
        ("data", "hold_out_vendors", ["Siemans"], "Siemens, GE, Philips, UIH"),
        ("data", "hold_out_fields", [7.0], "0.55, 1.5, 3.0, 5.0"),
        ("data", "coils", [8, 4], "the smaller number first"),
        ("run", "validate_every", 0, "1 to"),
        ("run", "out", 3, "text"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(section: str, key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        train_config_from_dict({section: {key: value}})
    assert str(caught.value).startswith(f"training settings [{section}] {key}: found ")


def test_an_unknown_key_of_a_run_is_named_with_what_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"training settings \[optim\] stepps: .*did you mean steps\?"):
        train_config_from_dict({"optim": {"stepps": 3}})
    with pytest.raises(ConfigError, match=r"settings \[optm\]: .*unknown section; did you mean optim"):
        train_config_from_dict({"optm": {}})
    with pytest.raises(ConfigError, match=r"training settings \[model.unet\] stem: found 0, allowed"):
        train_config_from_dict({"model": {"unet": {"stem": 0}}})


def test_the_shipped_recipes_are_read_and_whole_accelerations_stay_whole() -> None:
    files = sorted((Path(config_module.__file__).parent / "recipes").glob("*.toml"))
    assert files
    for file in files:
        config = load_train_config(file)
        assert all(isinstance(r, int) for r in config.data.accelerations)
        again = train_config_from_dict(json.loads(json.dumps(config.as_dict())))
        assert again == config


def test_scanners_held_out_are_seen_by_neither_training_nor_validation(tmp_path: Path) -> None:
    tree = _config(tmp_path).as_dict()
    tree["data"] |= {"hold_out_vendors": ["Siemens", "GE"], "hold_out_fields": [0.55, 3.0]}
    clips = SimulatorClips(train_config_from_dict(tree).data)
    sentences = [clips.draw(np.random.default_rng(seed)).metadata for seed in range(24)]
    for word in ("Siemens", "GE ", "0.55T", "3.0T"):
        assert not any(word in sentence for sentence in sentences)
    for word in ("Philips", "UIH", "1.5T", "5.0T"):
        assert any(word in sentence for sentence in sentences)


def test_files_cannot_be_held_out_by_scanner() -> None:
    with pytest.raises(ConfigError, match="only source"):
        train_config_from_dict({"data": {"source": "files", "hold_out_vendors": ["GE"]}})


@pytest.mark.parametrize(
    ("metadata", "undersampling", "variant"),
    [
        ("true", "true", "CardioMM"),
        ("true", "false", "CardioSM+MT"),
        ("false", "true", "CardioSM+UT"),
        ("false", "false", "CardioSM"),
    ],
)
def test_each_variant_of_the_ablation_trains_as_its_own_network(
    tmp_path: Path, metadata: str, undersampling: str, variant: str
) -> None:
    file = _toml(tmp_path, steps=1)
    changes = [f"model.metadata_text={metadata}", f"model.undersampling_text={undersampling}"]
    loaded = load_weights(Run(load_train_config(file, changes)).train())
    assert loaded.config.variant == variant
    assert all(bool(torch.isfinite(value).all()) for value in loaded.net.state_dict().values())


def test_a_setting_can_be_changed_for_one_run(tmp_path: Path) -> None:
    file = _toml(tmp_path, steps=4)
    changes = ["run.name=other", "optim.steps=2", "model.unet.stem=6", "data.hold_out_fields=[5.0]"]
    config = load_train_config(file, changes)
    assert (config.run.name, config.optim.steps, config.model.unet.stem) == ("other", 2, 6)
    assert config.data.hold_out_fields == (5.0,)
    assert config.data == dataclasses.replace(load_train_config(file).data, hold_out_fields=(5.0,))


@pytest.mark.parametrize(
    "change", ["steps=1", "optim.steps", "=1", ".steps=1", "optim.steps.x=1", "optim.hurry=1"]
)
def test_a_change_that_names_no_setting_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert run(["train", "--config", str(_toml(tmp_path, steps=1)), "--set", change]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("recon-node: training settings")
    assert "\n" not in said


def test_a_network_for_vectors_of_another_length_than_the_encoders_is_refused(tmp_path: Path) -> None:
    tree = _config(tmp_path).as_dict()
    tree["model"]["text_features"] = 512
    with pytest.raises(ConfigError, match="found 512, but text encoder minilm gives 384"):
        Run(train_config_from_dict(tree))


def test_a_sensitivity_network_is_refused_as_it_would_stay_untrained() -> None:
    with pytest.raises(ConfigError, match="sensitivity"):
        train_config_from_dict({"model": {"sensitivity": {"stem": 4}}})


def test_the_log_of_a_killed_run_holds_every_step_once(tmp_path: Path) -> None:
    _stopped(_config(tmp_path, steps=6), after=4)
    Run(_config(tmp_path, steps=6)).train()
    with (tmp_path / "log.csv").open(newline="") as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2", "3", "4", "5", "6"]


def test_weights_to_start_from_have_to_be_of_the_same_network(tmp_path: Path) -> None:
    plain = _config(tmp_path / "first", steps=1)
    weights = Run(plain).train()
    tree = plain.as_dict()
    tree["run"] |= {"init": str(weights), "out": str(tmp_path / "second")}
    Run(train_config_from_dict(tree))
    tree["model"]["cascades"] = 2
    with pytest.raises(WeightsError, match="of another network"):
        Run(train_config_from_dict(tree))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    simulate_scan(tmp_path / "a.h5", acceleration=1, coils=3, slices=1, phases=3, matrix=48, seed=1)
    return tmp_path / "a.h5"


def _toml(tmp_path: Path, steps: int) -> Path:
    """The settings of a tiny run as a file."""
    lines = []

    def section(name: str, table: dict[str, object]) -> None:
        lines.append(f"[{name}]")
        lines.extend(
            f"{k} = {json.dumps(v)}" for k, v in table.items() if v is not None and not isinstance(v, dict)
        )
        for key, value in table.items():
            if isinstance(value, dict):
                section(f"{name}.{key}", value)

    for name, table in _config(tmp_path, steps=steps).as_dict().items():
        section(name, table)
    file = tmp_path / "train.toml"
    file.write_text("\n".join(lines))
    return file


def _on_files(out: Path, pattern: str, workers: int = 0) -> dict[str, object]:
    tree = _config(out, steps=1).as_dict()
    tree["data"] |= {"source": "files", "files": [pattern], "workers": workers}
    return json.loads(json.dumps(tree))


def test_the_hash_of_the_data_follows_the_bytes_of_the_files(scan: Path, tmp_path: Path) -> None:
    hashes = []
    for number in (1, 2):
        config = train_config_from_dict(_on_files(tmp_path / f"run{number}", str(tmp_path / "*.h5")))
        assert find_files(config.data) == [scan]
        hashes.append(load_weights(Run(config).train()).card["data"])
        simulate_scan(scan, acceleration=1, coils=3, slices=1, phases=3, matrix=48, seed=2)
    assert hashes[0] != hashes[1]
    assert hashes[0].startswith("files, sha256 ")


@pytest.mark.parametrize("workers", [0, 1])
def test_undersampled_data_is_refused_in_one_line_whoever_reads_it(tmp_path: Path, workers: int) -> None:
    simulate_scan(tmp_path / "u.h5", acceleration=4, coils=3, slices=1, phases=3, matrix=48, seed=1)
    config = train_config_from_dict(_on_files(tmp_path / "run", str(tmp_path / "u.h5"), workers))
    with pytest.raises(DataError, match=r"expected full$"):
        Run(config).train()


def test_no_file_at_all_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.toml"
    data = f'[data]\nsource = "files"\nfiles = ["{tmp_path}/none*.h5"]\n'
    file.write_text(f'[model]\ntext_features = 384\n{data}[run]\nout = "{tmp_path}"\n')
    assert run(["train", "--config", str(file), "--device", "cpu"]) == 2
    assert "no file matches" in capsys.readouterr().err


def test_a_card_tells_no_folder_of_the_machine_it_was_made_on() -> None:
    card = load_weights("default").card
    assert not re.search(r'"/', json.dumps(card))
    assert _without_folders({"data": {"cines": "/some/where/hearts", "seed": 3}}) == {
        "data": {"cines": "hearts", "seed": 3}
    }

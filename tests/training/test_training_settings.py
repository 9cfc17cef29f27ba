from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from test_training_run import _config, _stopped

from recon_node.cli import run
from recon_node.core.errors import ConfigError, DataError, WeightsError
from recon_node.model import load_weights
from recon_node.simulate import simulate_scan
from recon_node.training.config import train_config_from_dict
from recon_node.training.loop import Run
from recon_node.training.sources import find_files


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("optim", "steps", 0, "1 or more"),
        ("optim", "steps", "many", "a whole number"),
        ("optim", "steps", True, "a whole number"),
        ("optim", "accumulate", 0, "1 or more"),
        ("optim", "precision", "fp8", "fp32 or bf16"),
        ("optim", "ema", 1.5, "0 to 1"),
        ("optim", "loss", "ssim", "a table"),
        ("data", "patterns", "random", "a list"),
        ("data", "accelerations", [], "not empty"),
        ("data", "accelerations", ["fast"], "a number"),
        ("data", "matrix", [48], "two numbers"),
        ("data", "matrix", [48, 4.5], "a whole number"),
        ("run", "validate_every", 0, "1 or more"),
        ("run", "out", 3, "text"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(section: str, key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        train_config_from_dict({section: {key: value}})
    assert f"[{section}] {key}: found {value!r}" in str(caught.value) or isinstance(value, list)


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

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from recon_node.cli import run
from recon_node.simulate import simulate_scan


def reported(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> object:
    """What a command prints with ``--json``: that and nothing else."""
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_reports_every_method_and_condition(capsys: pytest.CaptureFixture[str]) -> None:
    words = "evaluate --scans 1 --methods zero-filled,sense --patterns random --accelerations 4,8"
    rows = reported([*words.split(), *["--phases", "3", "--matrix", "48", "--coils", "4"]], capsys)
    assert sorted((row["condition"], row["method"]) for row in rows) == [
        ("random 4x", "sense"),
        ("random 4x", "zero-filled"),
        ("random 8x", "sense"),
        ("random 8x", "zero-filled"),
    ]


def test_evaluate_names_methods_that_do_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "--methods", "magic"]) == 2
    assert "magic" in capsys.readouterr().err


def test_inspect_tells_people_the_same_as_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "scan.h5"
    simulate_scan(raw, acceleration=4, pattern="uniform", coils=3, slices=2, phases=3, matrix=48, seed=4)
    report = reported(["inspect", str(raw)], capsys)
    assert run(["inspect", str(raw)]) == 0
    told = capsys.readouterr().out
    assert len(report["kspace"]) == 2
    for scan in report["kspace"]:
        assert scan["dimensions"] == {"phases": 3, "coils": 3, "ky": 48, "kx": 48}
        assert scan["sampling"]["pattern"] == "uniform"
        for sentence in ("metadata", "undersampling"):
            assert scan["prompts"][sentence] in told
            for origin in scan["prompts"]["provenance"][sentence].values():
                assert origin in told
    assert report["header"]["protocol"] in told
    assert "4x uniform" in told


def test_replay_names_counters_and_tells_a_note_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "scan.h5"
    simulate_scan(raw, acceleration=4, pattern="random", coils=3, slices=2, phases=3, matrix=48, seed=4)
    with h5py.File(raw, "r+") as file:
        table = file["dataset/data"][:]
        table["head"]["read_dir"] = table["head"]["phase_dir"] = table["head"]["slice_dir"] = 0
        file["dataset/data"][...] = table
    assert run(["replay", str(raw), "--out", str(tmp_path / "out"), "--method", "zero-filled"]) == 0
    told = capsys.readouterr().out
    assert "scan.h5 slice 0: 3 images by zero-filled" in told
    assert told.count("no slice directions") == 1

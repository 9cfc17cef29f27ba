from __future__ import annotations

import json

import pytest

from recon_node.cli import run


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

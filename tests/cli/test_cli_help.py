from __future__ import annotations

import subprocess
import sys

import pytest

from recon_node.cli import COMMANDS, run

WITHIN = {"spool": ("list", "retry", "purge"), "weights": ("list", "verify", "import", "calibrate")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([name], *([name, sub] for sub in WITHIN.get(name, ()))):
        assert run([*words, "--help"]) == 0
        assert "Usage:" in capsys.readouterr().out


def test_wrong_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay"]) == 2
    assert run(["nonsense"]) == 2
    assert "Usage" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "recon_node", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("recon-node")


def test_the_shipped_weights_are_listed_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "list"]) == 0
    assert "default" in capsys.readouterr().out
    assert run(["weights", "verify"]) == 0
    assert "Not for clinical use" in capsys.readouterr().out

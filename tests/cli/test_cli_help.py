from __future__ import annotations

import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Self

import click
import pytest

from recon_node.cli import COMMANDS, run
from recon_node.cli.reference import commands

WITHIN = {"spool": ("list", "retry", "purge"), "weights": ("list", "verify", "import", "calibrate")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([name], *([name, sub] for sub in WITHIN.get(name, ()))):
        assert run([*words, "--help"]) == 0
        assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize("words", [words for words, _ in commands()])
def test_every_help_has_an_example_that_the_program_takes(words: str) -> None:
    command = dict(commands())[words]
    told = command.get_help(click.Context(command, info_name=f"recon-node {words}"))
    found = re.search(
        r"Examples?:\s+(?:cat \S+ \| )?recon-node (.*?)(?: [|>]|\n\n|\n +\w+ |\Z)", told, re.DOTALL
    )
    assert found is not None, told
    arguments = shlex.split(" ".join(found[1].split()))
    assert " ".join(arguments).startswith(words)
    command.make_context(words, arguments[len(words.split()) :])


@pytest.mark.parametrize(
    ("words", "guess"), [("replai", "replay"), ("spool lst", "list"), ("weights imprt", "import")]
)
def test_a_misspelt_command_is_guessed(words: str, guess: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 2
    assert f"Did you mean '{guess}'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["-V", "--version"])
def test_the_version_is_told(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([words]) == 0
    assert capsys.readouterr().out.startswith("recon-node, version ")


@pytest.mark.parametrize(
    "words", ["-v echo nosuch", "echo -v nosuch", "echo nosuch --verbose", "echo -q nosuch"]
)
def test_options_of_all_commands_stand_before_and_behind(words: str) -> None:
    level = logging.getLogger().level
    try:
        assert run(words.split()) == 2
    finally:
        logging.getLogger().setLevel(level)


@pytest.mark.parametrize("words", [[], ["--quiet"]])
def test_quiet_shows_no_progress(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = []
    monkeypatch.setattr("recon_node.cli.options.Progress", lambda *a, **k: bars.append(a) or Bars())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    small = ["--slices", "1", "--phases", "2", "--matrix", "32", "--coils", "2"]
    assert run(["simulate", str(tmp_path / "x.h5"), *small, *words]) == 0
    assert len(bars) == (0 if words else 1)


class Bars:
    """A progress bar that nobody sees."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def add_task(self, *args: object, **more: object) -> int:
        return 0

    def update(self, *args: object, **more: object) -> None:
        return None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("replay nosuch.h5 --out x", 1),
        ("inspect nosuch.h5", 1),
        ("send nosuch.h5", 1),
        ("stream --input nosuch", 1),
        ("evaluate --hearts nosuch", 1),
        ("train --config nosuch.toml", 2),
        ("export nosuch --to x", 1),
        ("weights verify nosuch.safetensors", 1),
        ("weights import nosuch.ckpt", 1),
        ("serve --config nosuch.toml", 2),
        ("demo --out /proc/x", 1),
    ],
)
def test_what_is_not_there_is_told_before_torch_is_loaded(words: str, code: int, tmp_path: Path) -> None:
    program = (
        "import sys; from recon_node.cli import run; "
        f"assert run({words.split()!r}) == {code}; sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()


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

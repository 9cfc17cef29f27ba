from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest

from recon_node.cli import COMMANDS
from recon_node.cli.reference import commands, commands_page, settings_page
from recon_node.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "gadget_configs" / "README.md"]


def test_the_reference_in_the_documentation_is_what_the_program_says() -> None:
    how = "run: python -m recon_node.cli.reference docs"
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == commands_page(), how
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page(), how


def test_every_command_and_option_is_documented() -> None:
    page = commands_page()
    assert {words.split()[0] for words, _ in commands()} == set(COMMANDS)
    for words, command in commands():
        section = page.partition(f"\n## {words}\n")[2].partition("\n## ")[0]
        assert command.help
        for parameter in command.params:
            assert max(parameter.opts, key=len) in section or isinstance(parameter, click.Argument)


def test_every_setting_is_documented() -> None:
    page = settings_page()
    for section in dataclasses.fields(Settings):
        text = page.partition(f"\n## [{section.name}]\n")[2].partition("\n## ")[0]
        for key in dataclasses.fields(getattr(Settings(), section.name)):
            assert f"| `{key.name}` |" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert link.startswith("http") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_in_the_pages_exist(page: Path) -> None:
    known = dict(commands())
    for line in _lines(r"(?:^\s{4,}|`)recon-node ([a-z][^`\n]*)", page):
        words = line.partition("#")[0].split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        if name not in known:
            assert name in COMMANDS, line
            continue
        options = {option for parameter in known[name].params for option in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word in {*options, "--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_the_pages_are_accepted(page: Path, tmp_path: Path) -> None:
    known = {field.name for field in dataclasses.fields(Settings)}
    for block in _lines(r"((?:^(?: {4}.*|)\n)+)", page):
        sections = set(re.findall(r"^ {4}\[([a-z]+)", block, re.MULTILINE))
        if sections and sections <= known:
            file = tmp_path / "node.toml"
            file.write_text(re.sub(r"^ {4}", "", block, flags=re.MULTILINE), encoding="utf-8")
            load_settings(file, {})


def _lines(pattern: str, page: Path) -> list[str]:
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE)

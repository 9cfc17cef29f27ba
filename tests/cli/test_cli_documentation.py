from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from recon_node.cli import COMMANDS
from recon_node.cli.common import COMMON
from recon_node.cli.reference import chain_properties, commands, commands_page, settings_page, training_page
from recon_node.settings import load_settings, sections

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "gadget_configs" / "README.md"]


def test_the_reference_in_the_documentation_is_what_the_program_says() -> None:
    how = "run: python -m recon_node.cli.reference docs"
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == commands_page(), how
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page(), how
    runs = (ROOT / "docs" / "training-settings.md").read_text(encoding="utf-8")
    assert runs == training_page(), how
    chains = (ROOT / "gadget_configs" / "README.md").read_text(encoding="utf-8")
    assert chains == chain_properties(chains), how


def test_every_command_and_option_is_documented() -> None:
    page = commands_page()
    assert {words.split()[0] for words, _ in commands()} == set(COMMANDS)
    for words, command in commands():
        section = page.partition(f"\n## {words}\n")[2].partition("\n## ")[0]
        assert command.help
        for parameter in command.params:
            if parameter.name in COMMON:
                assert f"`{parameter.opts[0]}`" in page.partition("\n## ")[0]
                continue
            assert max(parameter.opts, key=len) in section or isinstance(parameter, click.Argument)


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
    known = set(sections())
    for block in _lines(r"((?:^(?: {4}.*|)\n)+)", page):
        named = set(re.findall(r"^ {4}\[([a-z]+)", block, re.MULTILINE))
        if named and named <= known:
            file = tmp_path / "node.toml"
            text = re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
            text = re.sub(r'^\w+ = "\S*\.(pem|key)".*\n', "", text, flags=re.MULTILINE)  # files of a site
            file.write_text(text, encoding="utf-8")
            load_settings(file, {})


def _lines(pattern: str, page: Path) -> list[str]:
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE)

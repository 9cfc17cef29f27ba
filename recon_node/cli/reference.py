"""The reference pages of the documentation, made from the program itself.

``python -m recon_node.cli.reference docs`` writes them.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import click

from recon_node import settings as settings_module
from recon_node.cli import cli
from recon_node.settings import Settings

_MADE = "<!-- Made by `python -m recon_node.cli.reference docs`; a test compares. -->\n"
_COMMANDS_HEAD = f"""{_MADE}
# Commands

Also as `python -m recon_node`. Exit codes: 0 done; 1 failed, with one clear line on stderr; 2 wrong usage or
configuration; 130 stopped by Ctrl-C. `--json` puts the report on stdout as JSON.
"""
_SETTINGS_HEAD = f"""{_MADE}
# Settings

One TOML file with a table for each section, named by `--config` or the variable
`{settings_module.CONFIG_VARIABLE}`. Environment variables override it (`RECON_NODE__SERVER__PORT=9003`),
flags override both. An unknown key is an error.
"""


def commands_page() -> str:
    """Every command with its options, as Markdown."""
    parts = [_command_text(words, command) for words, command in commands()]
    return "\n".join([_COMMANDS_HEAD, *parts])


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, ``weights list`` as well as ``demo``."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", command.commands[sub]) for sub in command.commands)
        elif command is not None:
            yield name, command


def _command_text(words: str, command: click.Command) -> str:
    usage = " ".join(["recon-node", words, *(_argument(p) for p in command.params)])
    options = [p for p in command.params if isinstance(p, click.Option)]
    rows = "".join(f"| `{_cell(_names(option))}` | {_cell(_said(option))} |\n" for option in options)
    table = f"\n| option | |\n|---|---|\n{rows}" if rows else ""
    return f"## {words}\n\n    {usage.rstrip()}\n\n{inspect.cleandoc(command.help or '')}\n{table}"


def _argument(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return parameter.make_metavar(click.Context(click.Command("")))
    needed = parameter.required and isinstance(parameter, click.Option)
    return _names(parameter) if needed else ""


def _names(option: click.Parameter) -> str:
    flag = isinstance(option, click.Option) and option.is_flag
    value = "" if flag else f" {option.make_metavar(click.Context(click.Command('')))}"
    return ", ".join(sorted(option.opts, key=len)) + value


def _said(option: click.Option) -> str:
    record = option.get_help_record(click.Context(click.Command("")))
    return "" if record is None else record[1]


def settings_page() -> str:
    """Every setting with its default, as Markdown."""
    parts = [_SETTINGS_HEAD]
    hints = typing.get_type_hints(Settings)
    for section in dataclasses.fields(Settings):
        kind = hints[section.name]
        said = _field_docs(kind)
        rows = "".join(
            f"| `{f.name}` | {_cell(_default(f))} | {_cell(said.get(f.name, ''))} |\n"
            for f in dataclasses.fields(kind)
        )
        parts.append(
            f"## [{section.name}]\n\n{inspect.cleandoc(kind.__doc__ or '')}\n\n"
            f"| key | default | |\n|---|---|---|\n{rows}"
        )
    return "\n".join(parts)


def _default(field: dataclasses.Field[object]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "(a table)"
    if field.default in (None, ()):
        return "(none)"
    value = ", ".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
    return f"`{value.lower() if isinstance(field.default, bool) else value}`"


def _field_docs(kind: type) -> dict[str, str]:
    """Text under each field of a dataclass; choices of a Literal first."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(tree, ast.ClassDef)  # noqa: S101 - the source of a class is one
    said: dict[str, str] = {}
    name = ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            said[name] = ""
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            said[name] = inspect.cleandoc(str(node.value.value))
    for name, hint in typing.get_type_hints(kind).items():
        if typing.get_origin(hint) is typing.Literal:
            choices = "One of " + ", ".join(f"`{choice}`" for choice in typing.get_args(hint)) + "."
            said[name] = f"{choices} {said[name]}".rstrip()
    return said


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def write(folder: Path) -> None:
    """Write both pages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "commands.md").write_text(commands_page(), encoding="utf-8")
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

"""The reference pages of the documentation, made from the program itself.

``python -m recon_node.cli.reference docs`` writes them.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from recon_node.cli import cli
from recon_node.cli.common import COMMON
from recon_node.methods.registry import find_method
from recon_node.methods.table import BUILT_IN
from recon_node.online.properties import PROPERTIES
from recon_node.schema import Setting, settings_of
from recon_node.schema.fields import class_in
from recon_node.settings import CONFIG_VARIABLE, sections
from recon_node.settings.show import written_default

_MADE = "<!-- Made by `python -m recon_node.cli.reference docs`; a test compares. -->\n"
_COMMANDS_HEAD = f"""{_MADE}
# Commands

Also as `python -m recon_node`. Exit codes: 0 done; 1 failed, with one clear line on stderr; 2 wrong usage or
configuration; 130 stopped by Ctrl-C. `--json` puts the report on stdout as JSON. Every command takes `-v`
(log what happens, never patient data) and `-q` (results and errors only), before or behind its other words.
"""
_SETTINGS_HEAD = f"""{_MADE}
# Settings

One TOML file with a table for each section, named by `--config` or the variable
`{CONFIG_VARIABLE}`. Environment variables override it (`RECON_NODE__SERVER__PORT=9003`, lists
comma-separated), flags override both. Everything is checked when a command starts: an unknown key, or a
value that is not taken, ends it with exit 2 and the key in the message. Relative files and folders in the
file start at its own folder. `recon-node settings show` shows what is in force and where it came from,
`settings check` tries a file, `settings schema` writes all of this page as a JSON schema for editors.

The column `peers` has the name by which a Gadgetron chain, or a client that may choose, can set it.
"""
_TRAINING_HEAD = f"""{_MADE}
# Settings of a training run

One TOML file with these tables ([training.md](training.md)); `recon-node train --set SECTION.KEY=VALUE`
changes one of them for a run. Everything is checked before anything is loaded; the weights keep what they
were made with. `[model.sensitivity]` is a table like `[model.unet]`.
"""

_METHODS_HEAD = """## Methods

What `method` can name here; [plugins.md](plugins.md) tells how another package adds one.
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
            if command.invoke_without_command:
                yield name, command
            yield from ((f"{name} {sub}", command.commands[sub]) for sub in command.commands)
        elif command is not None:
            yield name, command


def _command_text(words: str, command: click.Command) -> str:
    usage = " ".join(["recon-node", words, *(_argument(p) for p in command.params)])
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in COMMON]
    rows = "".join(f"| `{_cell(_names(option))}` | {_cell(_said(option))} |\n" for option in options)
    table = f"\n| option | |\n|---|---|\n{rows}" if rows else ""
    example = f"\n{command.epilog}\n" if command.epilog else ""
    return f"## {words}\n\n    {usage.rstrip()}\n\n{inspect.cleandoc(command.help or '')}\n{example}{table}"


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
    """Every setting with its default, what it takes and who may set it, as Markdown."""
    parts = [_SETTINGS_HEAD]
    for section, kind in sections().items():
        rows = "".join(
            f"| {' | '.join(map(_cell, (f'`{s.key}`', _default(s), _takes(s), _peer(s), s.doc)))} |\n"
            for s in settings_of(kind, section)
        )
        parts.append(
            f"## [{section}]\n\n{inspect.cleandoc(kind.__doc__ or '')}\n\n"
            f"| key | default | takes | peers | |\n|---|---|---|---|---|\n{rows}"
        )
    return "\n".join([*parts, _methods()])


def _methods() -> str:
    """The built-in methods, as their records describe them."""
    rows = ""
    for record in map(find_method, BUILT_IN):
        learned = "yes: withheld where it is not trusted" if record.learned else "no"
        rows += f"| `{record.name}` | {_cell(record.summary)} | {learned} |\n"
    return f"{_METHODS_HEAD}\n| method | | learned |\n|---|---|---|\n{rows}"


def training_page() -> str:
    """Every setting of a training run and of the network it makes, as Markdown."""
    from recon_node.lab.training.config import TrainConfig

    return "\n".join([_TRAINING_HEAD, *_tables(TrainConfig, "", set())])


def _tables(kind: Any, section: str, seen: set[Any]) -> Iterator[str]:
    """A table for `kind`, then one for each class in it that was not `seen`."""
    seen.add(kind)
    own = settings_of(kind, section)
    inner = {s.key: part for s in own if (part := class_in(s.annotation)) is not None}
    rows = "".join(
        f"| {' | '.join(map(_cell, (f'`{s.key}`', _default(s), _takes(s), s.doc)))} |\n"
        for s in own
        if s.key not in inner or section
    )
    if rows:
        text = inspect.cleandoc(kind.__doc__ or "")
        yield f"## [{section}]\n\n{text}\n\n| key | default | takes | |\n|---|---|---|---|\n{rows}"
    for key, part in inner.items():
        if part not in seen:
            yield from _tables(part, f"{section}.{key}".lstrip("."), seen)


def _default(setting: Setting) -> str:
    value = written_default(setting)
    return "" if value is None else f"`{value}`"


def _with_unit(setting: Setting) -> str:
    return f"{written_default(setting)} {setting.unit or ''}".rstrip()


def _takes(setting: Setting) -> str:
    return setting.allowed + (f" ({setting.unit})" if setting.unit else "")


def _peer(setting: Setting) -> str:
    shown = ", on the scanner's card" if setting.openrecon else ""
    return f"`{setting.peer}`{shown}" if setting.peer else ""


def chain_properties(page: str) -> str:
    """The page on chains with its table of properties as the settings have them."""
    rows = "".join(f"| `{name}` | {_cell(meaning)} |\n" for name, meaning in PROPERTIES.items())
    before, head, rest = page.partition("| property | meaning |\n|---|---|\n")
    after = re.sub(r"\A(\|.*\n)+", "", rest)
    return f"{before}{head}{rows}{after}"


def limits_table(page: str) -> str:
    """The page on threats with its table of limits as the settings have them."""
    every = (one for section, kind in sections().items() for one in settings_of(kind, section))
    rows = "".join(
        f"| {_cell(one.doc)} | {_with_unit(one)} | `{one.section}.{one.key}` |\n"
        for one in every
        if one.limit
    )
    before, head, rest = page.partition("| what | default | setting |\n|---|---|---|\n")
    after = re.sub(r"\A(\|.*\n)+", "", rest)
    return f"{before}{head}{rows}{after}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def write(folder: Path) -> None:
    """Write the pages, and the tables of limits and of properties in those on threats and on chains."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "commands.md").write_text(commands_page(), encoding="utf-8")
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")
    (folder / "training-settings.md").write_text(training_page(), encoding="utf-8")
    threats = folder / "threat-model.md"
    if threats.is_file():
        threats.write_text(limits_table(threats.read_text(encoding="utf-8")), encoding="utf-8")
    chains = folder.parent / "gadget_configs" / "README.md"
    if chains.is_file():
        chains.write_text(chain_properties(chains.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

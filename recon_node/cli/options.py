"""Options that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recon_node.cli.common import is_quiet
from recon_node.core.errors import ConfigError
from recon_node.methods.table import check_method, choices
from recon_node.schema import Setting
from recon_node.settings import Settings, every_setting, read_settings

F = TypeVar("F", bound=Callable[..., Any])

EXISTING = click.Path(exists=True, path_type=Path)
ANY_PATH = click.Path(path_type=Path)
WARNING = "Not for clinical use until validated."


def method_name(_: click.Context | None, __: click.Parameter | None, value: str | None) -> str | None:
    """Callback: a name that stands for a method; nothing is imported yet."""
    try:
        return None if value is None else check_method(value, "method")
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


def method_names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Callback: names of methods separated by commas."""
    names = dict.fromkeys(words(context, parameter, value))
    return tuple(name for name in names if method_name(context, parameter, name))


def numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Callback: numbers separated by commas; none where none are given."""
    if value is None:
        return ()
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: expected numbers separated by commas") from error


def words(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Callback: words separated by commas; none where none are given."""
    return () if value is None else tuple(part.strip() for part in value.split(","))


def config_option(function: F) -> F:
    """``--config FILE``: settings file."""
    return click.option(
        "--config", type=ANY_PATH, help="Settings file (node.toml); an unknown key is an error."
    )(function)


def json_option(function: F) -> F:
    """``--json``: machine-readable report."""
    return click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")(function)


def setting_options(*names: str) -> Callable[[F], F]:
    """Options for settings: words, bounds, help and the default shown come from their fields.

    Parameters
    ----------
    names : str
        ``section.key``; the option is ``--key``, and its value is found by `settings_from`.
    """

    def decorate(function: F) -> F:
        for name in reversed(names):
            function = setting_option(known_settings()[name])(function)
        return function

    return decorate


def setting_option(setting: Setting) -> Callable[[F], F]:
    """The option of one setting."""
    flag = f"--{setting.key.replace('_', '-')}"
    told: dict[str, Any] = {"help": _help(setting)}
    if setting.kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
        told["default"] = None
    elif setting.choices:
        told["type"] = click.Choice(setting.choices)
    elif setting.kind in (int, float):
        told["type"] = _number(setting)
    elif setting.path == "weights":
        told["metavar"] = "NAME|FILE"
    elif setting.key in choices():
        told |= {"metavar": "NAME", "callback": method_name}
    return click.option(flag, f"{setting.section}__{setting.key}", **told)


def _number(setting: Setting) -> click.ParamType[Any]:
    bounds: Any = setting.bounds
    kind: Any = click.IntRange if setting.kind is int else click.FloatRange
    return kind(  # type: ignore[no-any-return]
        min=bounds.get("ge", bounds.get("gt")),
        max=bounds.get("le", bounds.get("lt")),
        min_open="ge" not in bounds and "gt" in bounds,
        max_open="le" not in bounds and "lt" in bounds,
    )


def _help(setting: Setting) -> str:
    """What it means, and its default."""
    meant = " ".join(setting.doc.split()).replace("`", "").rstrip(".")
    default = setting.default if setting.kind is not bool else str(setting.default).lower()
    return meant + (f" [{default}]." if default not in (None, ()) else ".")


@lru_cache(maxsize=1)
def known_settings() -> dict[str, Setting]:
    """Every setting by ``section.key``."""
    return {f"{setting.section}.{setting.key}": setting for setting in every_setting()}


def network_options(function: F) -> F:
    """Options that choose a method and its weights."""
    names = ("method", "weights", "device", "encoder_folder", "coil_maps")
    return setting_options(*(f"recon.{name}" for name in names))(config_option(function))


def clip_options(function: F) -> F:
    """Options that choose among the clips of ``--hearts``, and how much of each."""
    for option in (
        click.option(
            "--size",
            type=click.IntRange(48),
            help="With --hearts: cut so many pixels a side around the heart [the whole field of view].",
        ),
        click.option("--leave-out", multiple=True, metavar="NAME", help="With --hearts: without such clips."),
        click.option(
            "--only",
            multiple=True,
            metavar="NAME",
            help="With --hearts: only clips with this in their name.",
        ),
    ):
        function = option(function)
    return function


def recon_options(function: F) -> F:
    """Options that choose how images are made."""
    return network_options(setting_options("recon.partial_fourier")(function))


def prep_options(function: F) -> F:
    """Options that choose how readouts become k-space."""
    names = ("group", "dynamic", "gating", "r_waves", "phases", "fill", "compression", "virtual_coils")
    return setting_options(*(f"prep.{name}" for name in names))(function)


def settings_from(
    config: Path | None, given: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]
) -> Settings:
    """Defaults, then `config`, then the environment, then the flags that were given.

    Parameters
    ----------
    config : Path, optional
        Settings file.
    given : mapping, optional
        Values of `setting_options` as click hands them over; None where a flag was not given.
    **sections : mapping
        Further values by section and key.
    """
    flags: dict[str, dict[str, Any]] = {section: dict(values) for section, values in sections.items()}
    for name, value in (given or {}).items():
        section, _, key = name.partition("__")
        flags.setdefault(section, {})[key] = value
    said = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in flags.items()
    }
    loaded = read_settings(config, flags={section: values for section, values in said.items() if values})
    for note in () if is_quiet() else loaded.notes:
        click.echo(f"note: {note}", err=True)
    return loaded.settings


def print_json(value: Any) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(value, indent=2))


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr where that is a terminal; yields ``advance(count=1, text=..., total=...)``."""
    console = Console(stderr=True)
    if is_quiet() or not sys.stderr.isatty():
        yield lambda count=1, text=None, total=None: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total)

        def advance(count: int = 1, text: str | None = None, total: int | None = None) -> None:
            bar.update(task, advance=count, description=text or description, total=total)

        yield advance

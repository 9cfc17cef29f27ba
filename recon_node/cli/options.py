"""Options that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recon_node.core.errors import ConfigError
from recon_node.methods.table import BUILT_IN, check_method
from recon_node.settings import PrepSettings, ReconSettings, Settings, load_settings

F = TypeVar("F", bound=Callable[..., Any])

EXISTING = click.Path(exists=True, path_type=Path)
ANY_PATH = click.Path(path_type=Path)
WARNING = "Not for clinical use until validated."


METHOD_HELP = (
    f"Reconstruction method: {', '.join(sorted(BUILT_IN))}, one of an installed package, or module:Class "
    "[cardiomm]."
)


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


def numbers(_: click.Context, __: click.Parameter, value: str) -> tuple[float, ...]:
    """Callback: numbers separated by commas."""
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: expected numbers separated by commas") from error


def words(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Callback: words separated by commas."""
    return tuple(part.strip() for part in value.split(","))


def config_option(function: F) -> F:
    """``--config FILE``: settings file."""
    return click.option(
        "--config", type=ANY_PATH, help="Settings file (node.toml); an unknown key is an error."
    )(function)


def json_option(function: F) -> F:
    """``--json``: machine-readable report."""
    return click.option("--json", "as_json", is_flag=True, help="Report as JSON on stdout.")(function)


def network_options(function: F) -> F:
    """Options that choose a method and its weights."""
    options = (
        click.option("--method", metavar="NAME", callback=method_name, help=METHOD_HELP),
        click.option("--weights", metavar="NAME|FILE", help="Shipped weights by name, or a file [default]."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to compute [auto]."),
        click.option("--encoder-folder", help="CLIP text tower, for weights that were trained with it."),
        click.option(
            "--coil-maps",
            type=click.Choice(["auto", "espirit", "learned"]),
            help="Maps the network gets; auto: what its weights were trained with [auto].",
        ),
        config_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


def recon_options(function: F) -> F:
    """Options that choose how images are made."""
    function = click.option(
        "--partial-fourier",
        type=click.Choice(get_args(get_type_hints(ReconSettings)["partial_fourier"])),
        help="The side of k-space that was never measured [zero].",
    )(function)
    return network_options(function)


def prep_options(function: F) -> F:
    """Options that choose how readouts become k-space."""
    options = (
        click.option("--group", help="Dataset to read of an HDF5 file that holds several."),
        click.option("--dynamic", type=_words("dynamic"), help="Counter that makes the time axis."),
        click.option("--gating", type=_words("gating"), help="Where the phases come from [prospective]."),
        click.option("--r-waves", type=_words("r_waves"), help="Where gating sees heartbeats [auto]."),
        click.option("--phases", type=int, help="Cardiac phases of retrospective gating [25]."),
        click.option("--fill", type=_words("fill"), help="Lines that a gated phase misses [none]."),
        click.option("--compression", type=_words("compression"), help="Fewer virtual coils [none]."),
        click.option("--virtual-coils", type=int, help="How many; all above the noise by default."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _words(setting: str) -> click.Choice[str]:
    return click.Choice(get_args(get_type_hints(PrepSettings)[setting]))


def by_section(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options of `recon_options` and `prep_options` under the section that each belongs to."""
    prep = {key: value for key, value in given.items() if key in get_type_hints(PrepSettings)}
    return {"prep": prep, "recon": {key: value for key, value in given.items() if key not in prep}}


def settings_from(
    config: Path | None, *, recon: dict[str, Any] | None = None, **sections: dict[str, Any]
) -> Settings:
    """Defaults, then `config`, then the environment, then the flags that were given."""
    settings = load_settings(config)
    for section, values in {"recon": recon or {}, **sections}.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            settings = settings.replace(section, **given)
    return settings


def print_json(value: Any) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(value, indent=2))


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr where that is a terminal; yields ``advance(count=1, text=..., total=...)``."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda count=1, text=None, total=None: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=total)

        def advance(count: int = 1, text: str | None = None, total: int | None = None) -> None:
            bar.update(task, advance=count, description=text or description, total=total)

        yield advance

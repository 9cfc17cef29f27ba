"""What installed packages add to the node's open tables: methods, file formats, destinations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version
from typing import Any

from recon_node.core.errors import ConfigError

UNKNOWN_VERSION = "unknown"
FAILURES = (Exception, SystemExit)
"""What other people's code may raise: `sys.exit` is no way to end a node, nor a thread of it."""
_LONGEST = 120


@cache
def installed(group: str) -> Mapping[str, EntryPoint]:
    """Entry points of a group by name; nothing is imported."""
    return {entry.name: entry for entry in entry_points(group=group)}


def imported(who: str, address: str) -> Any:
    """What ``module:attribute`` names.

    Parameters
    ----------
    who : str
        Begins the error: ``method denoised``, for example.
    address : str
        Dots after the colon go into attributes.

    Raises
    ------
    ConfigError
        It cannot be imported, or is not there.
    """
    module, _, path = address.partition(":")
    try:
        target: Any = import_module(module)
        for part in filter(None, path.split(".")):
            target = getattr(target, part)
    except FAILURES as error:
        what = who if address in who else f"{who}: {address[:80]}"
        raise ConfigError(f"{what} cannot be imported ({told(error)}): is its package installed?") from error
    return target


@cache
def package_of(module: str) -> tuple[str, str]:
    """Name and version of the distribution a module belongs to; the module's own name where there is none."""
    top = module.partition(".")[0]
    for package in packages_distributions().get(top, ()):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return top, UNKNOWN_VERSION


def forget() -> None:
    """Look again for what is installed: packages came or went while this process runs."""
    installed.cache_clear()
    package_of.cache_clear()


def told(error: BaseException) -> str:
    """One short line of somebody else's exception."""
    line = next(iter(str(error).splitlines()), "")[:_LONGEST]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__

"""The table of built-in methods, and the names of those that other packages bring.

Light on purpose: settings, commands and OpenRecon's label read names here, and nothing is imported until a
method is used (`recon_node.methods.registry`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from recon_node.core.errors import ConfigError
from recon_node.core.plugins import installed

GROUP = "recon_node.methods"
"""Entry point group of methods from other packages."""

LEARNED: Mapping[str, str] = {
    "cardiomm": "recon_node.methods.cardiomm:METHOD",
}
"""Name to the record of a network: only these (and foreign ones) are withheld where they are not trusted."""

CLASSICAL: Mapping[str, str] = {
    "kt": "recon_node.methods.kt:METHOD",
    "l1-wavelet": "recon_node.methods.l1_wavelet:METHOD",
    "sense": "recon_node.methods.sense:METHOD",
    "view-sharing": "recon_node.methods.view_sharing:METHOD",
    "zero-filled": "recon_node.methods.zero_filled:METHOD",
}
"""Name to the record of a method that learned nothing; these may stand in for another."""

BUILT_IN: Mapping[str, str] = {**LEARNED, **CLASSICAL}

_ADDRESS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def method_names() -> tuple[str, ...]:
    """Every name that can be chosen here: built-in ones, then those of installed packages."""
    return (*BUILT_IN, *sorted(set(installed(GROUP)) - set(BUILT_IN)))


def choices() -> dict[str, tuple[str, ...]]:
    """Settings that name methods, and what can be chosen for them here."""
    return {"method": method_names(), "fallback": tuple(CLASSICAL)}


def is_address(name: str) -> bool:
    """Whether `name` has the form ``module:Class``."""
    return _ADDRESS.fullmatch(name) is not None


def check_method(name: str, where: str = "recon.method") -> str:
    """Return `name` if it can name a method; nothing is imported.

    Raises
    ------
    ConfigError
        Neither a built-in method, nor one of an installed package, nor ``module:Class``.
    """
    if name in BUILT_IN or is_address(name) or name in installed(GROUP):
        return name
    known = ", ".join(method_names())
    raise ConfigError(
        f"{where}: found {name[:60]!r}, expected one of {known}, or module:Class of your own"[:300]
    )


def check_stand_in(name: str, where: str = "recon.fallback") -> str:
    """Return `name` unless it is known not to name a method that learned nothing; nothing is imported.

    Raises
    ------
    ConfigError
        It names a network of this package, or no method.
    """
    if name in LEARNED:
        raise ConfigError(
            f"{where}: found {name!r}, a network, which cannot stand in for one: expected one of "
            f"{', '.join(CLASSICAL)}, or another method that learned nothing"
        )
    return check_method(name, where)

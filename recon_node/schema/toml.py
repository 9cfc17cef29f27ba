"""TOML files, with one line for what is wrong with them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from recon_node.core.errors import ConfigError

_MOST_BYTES = 1 << 20
"""Size of a settings file beyond which it is taken for something else."""


def read_toml(path: Path, what: str = "settings") -> dict[str, Any]:
    """The tables of a file.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What it holds, for errors.

    Raises
    ------
    ConfigError
        It cannot be read, is larger than 1 MB, or not TOML.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{what} {path} cannot be read: {why}") from error
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{what} {path}: found more than {_MOST_BYTES >> 20} MB, expected a TOML file")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's own and those of numbers and bytes
        raise ConfigError(f"{what} {path} are not TOML: {error}") from error

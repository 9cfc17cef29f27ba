"""What is read as a file is one: a pipe or a device never ends."""

from __future__ import annotations

from pathlib import Path

from recon_node.core.errors import SourceError


def check_plain(path: Path) -> None:
    """See that a path that exists is a plain file.

    Raises
    ------
    SourceError
        It is a folder, a pipe or a device.
    """
    if path.is_dir():
        raise SourceError(f"{path.name}: is a folder, expected a raw data file")
    if path.exists() and not path.is_file():
        raise SourceError(f"{path.name}: is no plain file (a pipe or a device), expected a raw data file")

"""What is read as a file is one: a pipe or a device never ends."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from recon_node.core.errors import SourceError


def check_plain(path: Path) -> None:
    """See that a path that exists is a plain file.

    Raises
    ------
    SourceError
        It is a folder, a pipe or a device.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # whoever opens it tells
    _check(path, mode)


def open_plain(path: Path) -> io.BufferedReader:
    """Open a plain file for reading, whatever its name has come to lead to since somebody looked.

    Raises
    ------
    SourceError
        It is a folder, a pipe or a device.
    OSError
        It cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for
    except OSError:
        check_plain(path)
        raise
    try:
        _check(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise SourceError(f"{path.name}: is a folder, expected a raw data file")
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path.name}: is no plain file (a pipe or a device), expected a raw data file")

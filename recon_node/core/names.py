"""Values from data as parts of paths: no value is ever a path by itself."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_PLAIN = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]*")
_LONGEST = 100
_KEPT = 48


def path_component(value: str) -> str:
    """One path component that stands for `value`, whatever it holds.

    UIDs and plain words stand for themselves. Everything else (separators, dots in front, blanks, other
    scripts, over 100 characters) is replaced, and the start of its SHA-256 keeps different values apart.
    """
    if len(value) <= _LONGEST and _PLAIN.fullmatch(value):
        return value
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{re.sub(r'[^0-9A-Za-z_-]', '_', value)[:_KEPT]}-{digest}"


def below(folder: Path, *values: str) -> Path:
    """The path of `values`, one component each, below `folder`.

    Raises
    ------
    PermissionError
        It would lie elsewhere, because a symbolic link leads out of `folder`.
    """
    return inside(folder, folder.joinpath(*map(path_component, values)))


def inside(folder: Path, path: Path) -> Path:
    """A path below `folder`, as it is.

    Raises
    ------
    PermissionError
        It lies elsewhere, because a symbolic link leads out of `folder`.
    """
    try:
        found = path.resolve()
    except RuntimeError:  # a link to itself leads nowhere
        return path
    if not found.is_relative_to(folder.resolve()):
        raise PermissionError(f"{path} leads out of {folder}")
    return path


def printable(path: Path | str) -> str:
    """A path for a person to read on one line, whatever bytes its names hold."""
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)

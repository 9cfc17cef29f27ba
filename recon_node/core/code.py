"""What a result that is kept depends on beside its settings: the code that made it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def code_hash(parts: Iterable[str]) -> str:
    """Hash of modules and packages of this package, comments and all.

    Parameters
    ----------
    parts : iterable of str
        Paths inside the package, of folders (with all below them) or files: ``solvers``, ``model/motion.py``.

    Returns
    -------
    str
        SHA-256 in hexadecimal digits.

    Raises
    ------
    OSError
        There is no such file.
    """
    digest = hashlib.sha256()
    for part in parts:
        for file in sorted((ROOT / part).rglob("*.py")) or [ROOT / part]:
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()

"""What a replay is asked to read, found and looked at before anything heavy is loaded."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from recon_node.core.errors import ReconNodeError, SourceError, shown
from recon_node.files.open import known_suffixes, open_source
from recon_node.pipeline.scan import expected_slices


def find_inputs(names: Sequence[str], *, folders: bool = False) -> tuple[list[Path], list[str]]:
    """Files named by paths, folders (searched through) and globs, each once, sorted within a name.

    Parameters
    ----------
    names : sequence of str
    folders : bool
        The names are folders themselves, not what lies in them.

    Returns
    -------
    (list of Path, list of str)
        What was found, and a line for each name that matches nothing.

    Raises
    ------
    SourceError
        Nothing was found at all.
    """
    found: dict[Path, None] = {}
    missing: list[str] = []
    for name in names:
        matches = [Path(name)] if folders else raw_files(name)
        if not matches:
            missing.append(f"{shown(name)}: no such file, and no raw data file matches it")
        found.update(dict.fromkeys(matches))
    if not found:
        raise SourceError("; ".join(missing[:3]))
    return list(found), missing


def raw_files(name: str) -> list[Path]:
    """Files that a path, a folder or a glob names, sorted."""
    path = Path(name)
    if path.is_dir():
        known = known_suffixes()
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in known and p.is_file())
    if path.exists():
        return [path]
    return sorted(Path(p) for p in glob.glob(name, recursive=True))  # noqa: PTH207 - may be absolute


def announced(inputs: Sequence[Path], group: str | None) -> int | None:
    """How many slices the inputs' headers announce together, for progress; None where one does not say."""
    total = 0
    for path in inputs:
        try:
            with open_source(path, group=group) as source:
                count = expected_slices(source.headers)
        except ReconNodeError:
            continue  # told when its turn comes
        if count is None:
            return None
        total += count
    return total

"""Every cine of a folder, one clear line for each thing in it that is none."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from recon_node.core.errors import DataError
from recon_node.lab.cines import dicom, nifti, npz
from recon_node.simulate.cine import Cine

Tell = Callable[[str], None]
_NIFTI = (".nii", ".nii.gz")
_OTHER = (".md", ".txt", ".json", ".csv", ".xml", ".pdf", ".png", ".jpg", ".license", ".mat", ".h5", ".py")
"""Files that nobody takes for images."""


def named(name: str, patterns: Sequence[str]) -> bool:
    """Whether `name` holds one of the patterns, or matches it where that has ``*``, ``?`` or ``[``."""
    return any(
        fnmatch.fnmatchcase(name, pattern) if set(pattern) & set("*?[") else pattern in name
        for pattern in patterns
    )


def fingerprint(cine: Cine) -> str:
    """12 hexadecimal digits that tell whether two clips are the same, whatever their files are called."""
    levels = np.round(cine.images / cine.images.max() * 4095).astype("<u2")
    return hashlib.sha256(repr(levels.shape).encode() + levels.tobytes()).hexdigest()[:12]


def read_cines(
    folder: Path,
    *,
    only: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    tell: Tell = lambda line: None,
) -> list[Cine]:
    """Read the cines below a folder, sorted by name.

    Parameters
    ----------
    folder : Path
        Holds npz files (key ``cine`` `(phase, y, x)` and ``pixel_mm``), DICOM files and NIfTI files, at any
        depth.
    only, leave_out : sequence of str
        Parts of names, or patterns with ``*``: clips to keep (all if empty), and clips to leave out.
    tell : callable
        Gets one line for each file or series that is no cine that can be used; the rest is read.

    Raises
    ------
    DataError
        The folder is missing, or no cine is left.
    """
    if not folder.is_dir():
        raise DataError(f"hearts: found no folder {folder}, expected one with npz, DICOM or NIfTI cines")
    bad: list[str] = []

    def note(line: str) -> None:
        bad.append(line)
        tell(line)

    found = [cine for cine in _all(folder, note) if not only or named(cine.name, only)]
    kept = sorted((cine for cine in found if not named(cine.name, leave_out)), key=lambda cine: cine.name)
    if not kept:
        why = (
            f"{len(found)} were left out by name" if found else (bad[0] if bad else "it holds no image files")
        )
        raise DataError(f"hearts {folder}: found no cine to use ({why})"[:300])
    return kept


def _all(folder: Path, note: Tell) -> Iterator[Cine]:
    others = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".npz":
            yield from _tried(partial(npz.read_npz, path, name[:-4]), note)
        elif name.lower().endswith(_NIFTI):
            yield from _tried(partial(nifti.read_nifti, path, name[: name.lower().rindex(".nii")]), note)
        elif not name.lower().endswith(_OTHER):
            others.append(path)
    for series in dicom.series_of(others, folder):
        yield from _tried(partial(dicom.read_series, series), note)


def _tried(read: Callable[[], list[Cine]], note: Tell) -> list[Cine]:
    try:
        return read()
    except DataError as error:
        note(str(error))
        return []

"""Old images go from ``server.out`` where the settings say so; what may be the only copy stays.

The spool has copies of its own of what is queued. A series that could not be queued is marked, and kept until
somebody takes the mark away.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from recon_node.core.durable import write_text

log = logging.getLogger(__name__)

NOT_QUEUED = ".not-queued"
"""File in a series' folder: its instances did not get into the spool."""
ROUND_S = 600.0


def mark_not_queued(files: Iterable[Path]) -> None:
    """Mark the series of these files; where the disk takes not even that, it is logged."""
    for folder in {file.parent for file in files}:
        try:
            write_text(folder / NOT_QUEUED, "recon-node export delivers these; then delete this file\n")
        except OSError as error:
            log.warning("a series that was not queued could not be marked: %s", error.strerror)


def remove_old(out: Path, keep_s: float, *, now: float | None = None, depth: int = 2) -> int:
    """Delete series all of whose files are old enough, and studies left empty; how many series.

    Parameters
    ----------
    out : Path
        ``<study>/<series>/*.dcm`` where `depth` is 2; whatever else lies there is left alone.
    keep_s : float
        Seconds.
    now : float, optional
        Seconds since 1970.
    depth : int
        Folders within folders down to those of the series.
    """
    limit = (time.time() if now is None else now) - keep_s
    removed = 0
    for series in _series(out, depth):
        try:
            if (series / NOT_QUEUED).exists() or _newest(series) > limit:
                continue
            shutil.rmtree(series)
        except OSError as error:
            log.warning("an old series could not be deleted: %s", error.strerror)
            continue
        removed += 1
        with contextlib.suppress(OSError):  # another series is in it
            for folder in _within(out, series)[1:]:
                folder.rmdir()
    if removed:
        log.info("deleted %d series older than %.3g h", removed, keep_s / 3600)
    return removed


def _series(out: Path, depth: int) -> Iterator[Path]:
    """Folders that hold DICOM files and nothing else."""
    for folder in sorted(out.glob("/".join("*" * depth))):
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            names = [path.name for path in folder.iterdir()]
            if names and all(name.endswith(".dcm") or name == NOT_QUEUED for name in names):
                yield folder


def _within(out: Path, folder: Path) -> list[Path]:
    """A folder and those around it, below `out`."""
    return [folder, *(around for around in folder.parents if out in around.parents)]


def _newest(series: Path) -> float:
    return max(path.stat().st_mtime for path in series.iterdir())

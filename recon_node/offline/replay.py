"""Raw data files to DICOM: many inputs, each slice once, whatever stops the run in between."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recon_node.core import durable
from recon_node.core.errors import ConfigError
from recon_node.core.names import inside
from recon_node.core.scan import SliceIndex
from recon_node.offline.engine import run_jobs
from recon_node.offline.job import Extras, FileResult, Job
from recon_node.offline.journal import KNOWN, MINE, ROOM, left_over
from recon_node.offline.ledger import FILE, LOCK, Ledger
from recon_node.offline.summary import Summary
from recon_node.pipeline.row import Pipeline
from recon_node.pipeline.write import SeriesWriter
from recon_node.settings import Settings

SUMMARY = "summary.json"
OWN = (SUMMARY, LOCK, ROOM, FILE, f"{FILE}-wal", f"{FILE}-shm", "report", "nifti")
"""Names beside the images' folders."""
Progress = Callable[[int], None]


def replay(
    inputs: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    resume: bool = False,
    only: Mapping[Path, Collection[SliceIndex]] | None = None,
    extras: Extras | None = None,
    summary: Summary | None = None,
    report: Callable[[FileResult], None] = lambda result: None,
    progress: Progress = lambda slices: None,
) -> list[FileResult]:
    """Reconstruct files to ``out/<study>/<series>/*.dcm`` and ``out/summary.json``.

    Parameters
    ----------
    inputs : sequence of Path
        Raw data files.
    out : Path
        Folder for everything that is written; made if absent.
    settings : Settings
        The whole tree.
    workers : int
        Processes on this machine.
    scheduler : str, optional
        Address of a Dask scheduler whose workers take the files in their place; they must see the
        same file system.
    resume : bool
        Leave out slices that the ledger in `out` knows as finished with the same bytes, settings, weights
        and software.
    only : mapping, optional
        Slices wanted of each input; all of an input that is not in it.
    extras : Extras, optional
        Undersampling, NIfTI, a report.
    summary : Summary, optional
        Of several replays to one folder, in which `inputs` stand already; who gives it writes it.
    report : callable
        Told of each file as it ends.
    progress : callable
        Told of slices that are finished since the last call.

    Returns
    -------
    list of FileResult
        In the order of `inputs`.

    Raises
    ------
    ConfigError
        No scheduler at the address, Dask is not installed, the DICOM settings are not usable, or another
        replay writes to `out`.
    WeightsError
        At once, where the weights cannot be loaded.
    """
    SeriesWriter.from_settings(settings, out)
    if workers == 1 and scheduler is None:
        Pipeline(settings)
    out.mkdir(parents=True, exist_ok=True)
    _check_links(out)
    with alone(out), Ledger(out) as ledger, _room(out, ledger, resume=resume):
        jobs = [
            Job(
                path=path,
                out=out,
                settings=settings,
                resume=resume,
                only=None if only is None or path not in only else frozenset(only[path]),
                extras=extras or Extras(),
            )
            for path in inputs
        ]
        whole = summary or Summary(out / SUMMARY, inputs)
        for result in run_jobs(jobs, _Told(ledger, progress), workers=workers, scheduler=scheduler):
            whole.add(result)
            report(result)
        if summary is None:
            whole.write()
    return whole.results(inputs)


def _check_links(out: Path) -> None:
    """What has a name of a replay's own in the output folder has to lie there.

    Raises
    ------
    ConfigError
        A link leads out of it: its target would be written to, or emptied. Or it is a pipe or a device.
    """
    for name in OWN:
        try:
            inside(out, out / name)
        except PermissionError as error:
            raise ConfigError(f"{error}: remove the link, or choose another --out") from error
        if (out / name).exists() and not ((out / name).is_file() or (out / name).is_dir()):
            raise ConfigError(f"{out / name}: is a pipe or a device: remove it, or choose another --out")


class _Told:
    """A ledger whose finished slices are told of as they are noted."""

    def __init__(self, ledger: Ledger, progress: Progress) -> None:
        self._ledger, self._progress = ledger, progress
        self.done = ledger.done

    def note(self, values: Mapping[str, Any]) -> None:
        """Remember one row."""
        self._ledger.note(values)
        if values["status"] == "done":
            self._progress(1)


@contextmanager
def _room(out: Path, ledger: Ledger, *, resume: bool) -> Iterator[None]:
    """The folder of workers' journals; what a replay that was killed left there is noted first."""
    room = out / ROOM
    for row in left_over(room):
        ledger.note({name: value for name, value in row.items() if name != MINE})
    shutil.rmtree(room, ignore_errors=True)
    try:
        if resume:
            room.mkdir(mode=0o700)
            ledger.copy(room / KNOWN)
        yield
    finally:
        shutil.rmtree(room, ignore_errors=True)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Nobody else writes to a folder meanwhile.

    Raises
    ------
    ConfigError
        Somebody does.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC  # of a link nothing is made or emptied
    with os.fdopen(os.open(out / LOCK, flags, durable.PRIVATE_MODE), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"{out}: another replay writes here, expected one at a time: wait, or choose another --out"
            ) from error
        yield

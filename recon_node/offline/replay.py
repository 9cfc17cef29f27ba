"""Raw data files to DICOM: one after another, on several processes, or on a Dask cluster."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

from recon_node.core import durable
from recon_node.core.errors import ConfigError, NoKSpace, ReconNodeError, SourceError, shown
from recon_node.core.protocols import OpenSource
from recon_node.core.version import __version__
from recon_node.files.open import known_suffixes, open_scans
from recon_node.pipeline.row import Pipeline, row
from recon_node.pipeline.scan import told_together
from recon_node.pipeline.summary import summary_entry, write_summary
from recon_node.pipeline.write import SeriesWriter
from recon_node.settings import Settings

SUMMARY = "summary.json"
JOURNAL = ".replay"
"""Folder in the output that remembers finished inputs, for `resume`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """What became of one input."""

    path: Path
    series: list[dict[str, Any]] = field(default_factory=list)
    """Entries of ``summary.json``."""
    error: str | None = None
    """One line, where the file could not be reconstructed whole."""
    left_out: str | None = None
    """What it is, where it is no k-space."""


def find_inputs(names: Sequence[str]) -> list[Path]:
    """Files named by paths, folders (searched through) and globs, each once, sorted within a name.

    Raises
    ------
    SourceError
        A name that matches nothing.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            known = known_suffixes()
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in known and p.is_file())
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(Path(p) for p in glob.glob(name, recursive=True))  # noqa: PTH207 - may be absolute
        if not matches:
            raise SourceError(f"{name}: no such file, and no raw data file matches it")
        found.update(dict.fromkeys(matches))
    return list(found)


def replay_file(path: Path, out: Path, settings: Settings) -> FileResult:
    """Reconstruct one file. An error is told in the result; every other slice is a complete series."""
    entries: list[dict[str, Any]] = []
    troubles: list[str] = []
    try:
        for source in open_scans(path, group=settings.prep.group):
            try:
                _replay_scan(source, path, out, settings, entries)
            except ReconNodeError as trouble:
                troubles.append(_without(path, str(trouble)))
    except NoKSpace as trouble:
        return FileResult(path=path, left_out=_without(path, str(trouble)))
    except ReconNodeError as trouble:
        troubles.append(_without(path, str(trouble)))
    error = f"{shown(path)}: {told_together(troubles)}" if troubles else None
    return FileResult(path=path, series=entries, error=error)


def _replay_scan(
    source: OpenSource, path: Path, out: Path, settings: Settings, entries: list[dict[str, Any]]
) -> None:
    """One scan of a file; `entries` has what was finished, also where an error follows."""
    writer = SeriesWriter.from_settings(settings, out)
    for done in row(source, Pipeline(settings), writer=writer):
        folders = {str(instance.path.parent.relative_to(out)) for instance in done.instances}
        entries.append({**summary_entry(done, source=str(path)), "folders": sorted(folders)})


def _without(path: Path, text: str) -> str:
    for prefix in (f"{shown(path)}: ", f"{shown(path.name)}: "):
        text = text.removeprefix(prefix)
    return text


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def replay(
    inputs: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    resume: bool = False,
    report: Callable[[FileResult], None] = lambda result: None,
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
        Leave out inputs that an earlier replay to `out` finished with the same bytes and settings.
    report : callable
        Told of each file as it ends.

    Returns
    -------
    list of FileResult
        In the order of `inputs`.

    Raises
    ------
    ConfigError
        No scheduler at the address, Dask is not installed, or the DICOM settings are not usable.
    WeightsError
        At once, where the weights cannot be loaded.
    """
    SeriesWriter.from_settings(settings, out)
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / JOURNAL, settings)
    finished = {path: known for path in inputs if resume and (known := journal.finished(path)) is not None}
    waiting = [path for path in inputs if path not in finished]
    results = dict(finished)
    for known in finished.values():
        report(known)
    for result in _run_all(waiting, out, settings, workers, scheduler):
        journal.note(result)
        results[result.path] = result
        write_summary(out / SUMMARY, _entries(inputs, results))
        report(result)
    write_summary(out / SUMMARY, _entries(inputs, results))
    return [results[path] for path in inputs]


def _entries(inputs: Sequence[Path], results: dict[Path, FileResult]) -> list[dict[str, Any]]:
    return [entry for path in inputs if path in results for entry in results[path].series]


def _run_all(
    paths: Sequence[Path], out: Path, settings: Settings, workers: int, scheduler: str | None
) -> Iterator[FileResult]:
    if not paths:
        return
    if scheduler is not None:
        yield from _on_dask(paths, out, settings, scheduler)
    elif workers > 1:
        yield from _on_processes(paths, out, settings, workers)
    else:
        Pipeline(settings)
        for path in paths:
            yield replay_file(path, out, settings)


def _on_processes(paths: Sequence[Path], out: Path, settings: Settings, workers: int) -> Iterator[FileResult]:
    before = set(active_children())
    # Fork would copy the locks of torch's threads; a fresh interpreter per worker is safe.
    pool = ProcessPoolExecutor(
        min(workers, len(paths)), mp_context=get_context("spawn"), initializer=_die_with_parent
    )
    try:
        with _interrupts_held():
            jobs, refused = _submitted(pool, paths, out, settings)
        for job in as_completed(jobs):
            try:
                yield job.result()
            except BrokenProcessPool:
                yield _killed(jobs[job])
        yield from map(_killed, refused)
    except BaseException:
        for worker in set(active_children()) - before:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, paths: Sequence[Path], out: Path, settings: Settings
) -> tuple[dict[Future[FileResult], Path], list[Path]]:
    """Jobs by what they do, and the files that a pool took no more because a worker had been killed."""
    jobs: dict[Future[FileResult], Path] = {}
    for path in paths:
        try:
            jobs[pool.submit(replay_file, path, out, settings)] = path
        except BrokenProcessPool:
            break
    return jobs, list(paths[len(jobs) :])


def _killed(path: Path) -> FileResult:
    return FileResult(
        path=path,
        error=f"{path}: a worker process was killed (out of memory?) before this file was done: use fewer "
        "--workers, then --resume",
    )


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started within never see Ctrl-C, which a terminal sends to all: this one ends them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _die_with_parent() -> None:
    """A worker must not wait for work for ever after its parent was killed."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _on_dask(paths: Sequence[Path], out: Path, settings: Settings, scheduler: str) -> Iterator[FileResult]:
    try:
        from distributed import Client
        from distributed import as_completed as dask_completed
    except ImportError as error:
        raise ConfigError("--scheduler needs Dask: pip install 'recon-node[cluster]'") from error
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        jobs = [client.submit(replay_file, p.resolve(), out.resolve(), settings, pure=False) for p in paths]
        asked = {path.resolve(): path for path in paths}
        for job in dask_completed(jobs):
            result = job.result()
            yield dataclasses.replace(result, path=asked[result.path])


class Journal:
    """Remembers which inputs are finished; one small file each, so that a kill costs at most one."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = hashlib.sha256(f"{__version__} {settings!r}".encode()).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)

    def _file(self, path: Path) -> Path:
        return self.folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"

    def note(self, result: FileResult) -> None:
        """Remember a file that was reconstructed whole."""
        if result.error is not None:
            return
        content = {"settings": self.settings, "bytes": content_hash(result.path), "series": result.series}
        durable.write_text(self._file(result.path), json.dumps(content), sync=False)

    def finished(self, path: Path) -> FileResult | None:
        """The result of an earlier run with the same bytes and settings, if there is one."""
        try:
            known = json.loads(self._file(path).read_text(encoding="utf-8"))
            same = known["settings"] == self.settings and known["bytes"] == content_hash(path)
            return FileResult(path=path, series=known["series"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

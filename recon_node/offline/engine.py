"""Many inputs, by this process or by a Dask cluster: a `LocalCluster`, or one that a scheduler has.

A slice is a task; see `spread`. A worker that is killed costs the slice it was at, which another does; what
two of them were killed at is tried in a process of its own, and set aside where that is killed.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_node.core.errors import shown
from recon_node.offline.job import FileResult, Job, replay_file
from recon_node.offline.journal import ROOM, JournalReader, Notes

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

_LOOK_S = 0.5
"""How often journals are read."""
_WORKERS_S = 2.0
"""How often the scheduler is asked for its workers."""
_REPLACING_S = 10.0
"""How often processes that ended for good are replaced."""
_PATIENCE_S = 15.0
"""After which it is told that there is no worker."""
_FILES_A_WORKER = 2
"""One is read while slices of another are reconstructed."""
_SPARE = 2
"""Slices that wait, of a file that several workers share: they may end at once, and reading takes a while."""


def run_jobs(
    jobs: Sequence[Job], notes: Notes, *, workers: int = 1, scheduler: str | None = None
) -> Iterator[FileResult]:
    """Results as they come.

    Parameters
    ----------
    jobs : sequence of Job
        Of one output folder.
    notes : Notes
        Where slices are remembered, in this process only.
    workers : int
        Processes on this machine; the work is done in this one where that is 1.
    scheduler : str, optional
        Address of a Dask scheduler in their place.

    Raises
    ------
    ConfigError
        No scheduler answers there.
    """
    if not jobs:
        return
    if scheduler is None and workers == 1:
        for job in jobs:
            yield replay_file(job, notes)
        return
    from recon_node.offline import cluster

    with cluster.processes(workers) if scheduler is None else cluster.scheduler_at(scheduler) as client:
        yield from _Run(client, jobs, notes).results()


@dataclass(slots=True, kw_only=True, eq=False)
class _Running:
    """An input that a worker has."""

    path: Path
    journal: JournalReader
    folder: Path
    worker: str


@dataclass(slots=True, kw_only=True, eq=False)
class _Cluster:
    """What is known of a scheduler's workers."""

    client: Client
    threads: dict[str, int] = field(default_factory=dict)
    """By address."""
    gpu: bool = False
    """Whether some are tagged with a graphics card."""
    asked: float = -_WORKERS_S
    began: float = field(default_factory=time.monotonic)
    kept: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Ask now and then."""
        from recon_node.offline.cluster import keep_all
        from recon_node.offline.spread import GPU

        now = time.monotonic()
        if now - self.asked < (_WORKERS_S if self.threads else _LOOK_S):
            return
        found: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        self.threads = {address: one["nthreads"] for address, one in found.items()}
        self.gpu = any(one.get("resources", {}).get(GPU) for one in found.values())
        self.asked = now
        if now - self.kept > _REPLACING_S:
            keep_all(self.client, len(self.threads))
            self.kept = now


class _Run:
    """The inputs of a replay on a cluster: few of them at a time, whatever their number."""

    def __init__(self, client: Client, jobs: Sequence[Job], notes: Notes) -> None:
        self._cluster = _Cluster(client=client)
        self._jobs, self._notes = jobs, notes
        self._running: dict[Future, _Running] = {}
        self._begun = 0
        self._warned = False

    def results(self) -> Iterator[FileResult]:
        """What became of each input, as it ends."""
        while self._begun < len(self._jobs) or self._running:
            self._fill()
            for future in self._ended():
                yield self._result(future, self._running.pop(future))
            for running in self._running.values():
                self._read(running)

    def _fill(self) -> None:
        """Give each worker its files."""
        self._cluster.look()
        threads = self._cluster.threads
        has = Counter(running.worker for running in self._running.values())
        room = _FILES_A_WORKER * sum(threads.values()) - len(self._running)
        for _ in range(min(room, len(self._jobs) - self._begun)):
            worker = min(threads, key=lambda address: has[address] / threads[address])
            has[worker] += 1
            self._submit(self._jobs[self._begun], worker)
            self._begun += 1

    def _submit(self, job: Job, worker: str) -> None:
        from recon_node.offline.spread import FileTask

        # A worker's folder is not this process's, and the journal tells it what is done already.
        placed = replace(job, found_at=job.path.resolve(), out=job.out.resolve(), resume=True)
        threads = sum(self._cluster.threads.values())
        files = min(len(self._jobs), _FILES_A_WORKER * threads)
        task = FileTask(
            job=placed,
            folder=placed.out / ROOM / f"{self._begun:08d}",
            ahead=-(-threads // files) + (_SPARE if files < threads else 1),
            gpu=self._cluster.gpu,
        )
        future = self._cluster.client.submit(task, pure=False, workers=[worker], allow_other_workers=True)
        journal = JournalReader(task.folder)
        self._running[future] = _Running(path=job.path, journal=journal, folder=task.folder, worker=worker)

    def _ended(self) -> list[Future]:
        from distributed import wait

        if not self._running:
            self._wait_for_workers()
            return []
        try:
            return list(wait(list(self._running), timeout=_LOOK_S, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            return []

    def _wait_for_workers(self) -> None:
        if not self._warned and time.monotonic() - self._cluster.began > _PATIENCE_S:
            log.error("the scheduler has no worker yet; waiting for one")
            self._warned = True
        time.sleep(_LOOK_S)

    def _read(self, running: _Running) -> None:
        """Take over what a worker has noted."""
        for row in running.journal.news():
            self._notes.note(row)

    def _result(self, future: Future, running: _Running) -> FileResult:
        self._read(running)
        shutil.rmtree(running.folder, ignore_errors=True)
        if future.status == "finished":
            result: FileResult = future.result()
            return result
        error = future.exception()
        return FileResult(
            path=running.path, error=f"{shown(running.path)}: no worker could do it ({error!r:.160})"
        )

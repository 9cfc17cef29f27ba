"""Many inputs on one machine or on a Dask cluster; a worker that dies costs its input, not the run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

from recon_node.core.errors import ConfigError
from recon_node.offline.job import FileResult, Job, replay_file

Tick = Callable[[], None]
_TICK_S = 0.5


def run_jobs(
    jobs: Sequence[Job], *, workers: int = 1, scheduler: str | None = None, tick: Tick = lambda: None
) -> Iterator[FileResult]:
    """Results as they come.

    Parameters
    ----------
    jobs : sequence of Job
    workers : int
        Processes on this machine.
    scheduler : str, optional
        Address of a Dask scheduler in their place.
    tick : callable
        Called now and then while results are waited for.
    """
    if not jobs:
        return
    if scheduler is not None:
        yield from _on_dask(jobs, scheduler)
    elif workers > 1:
        yield from _on_processes(jobs, workers, tick)
    else:
        for job in jobs:
            yield replay_file(job)


def _on_processes(jobs: Sequence[Job], workers: int, tick: Tick) -> Iterator[FileResult]:
    before = set(active_children())
    # Fork would copy the locks of torch's threads; a fresh interpreter per worker is safe.
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_die_with_parent
    )
    whole = False
    try:
        with _interrupts_held():
            running, refused = _submitted(pool, jobs)
        broken = bool(refused)
        while running:
            ended, _ = wait(running, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            tick()
            for future in ended:
                job = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    broken = True
                    yield _killed(job.path)
        yield from (_killed(job.path) for job in refused)
        whole = not broken
    finally:
        if not whole:  # a broken pool may leave a worker that never ends, and then waits for it for ever
            for worker in set(active_children()) - before:
                worker.kill()
        pool.shutdown(wait=False, cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, jobs: Sequence[Job]
) -> tuple[dict[Future[FileResult], Job], list[Job]]:
    """Futures by what they do, and the jobs that a pool took no more because a worker had been killed."""
    running: dict[Future[FileResult], Job] = {}
    for job in jobs:
        try:
            running[pool.submit(replay_file, job)] = job
        except BrokenProcessPool:
            break
    return running, list(jobs[len(running) :])


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


def _on_dask(jobs: Sequence[Job], scheduler: str) -> Iterator[FileResult]:
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
        asked = {job.path.resolve(): job for job in jobs}
        placed = [replace(job, path=path, out=job.out.resolve()) for path, job in asked.items()]
        futures = [client.submit(replay_file, job, pure=False, retries=1) for job in placed]
        of = dict(zip((future.key for future in futures), placed, strict=True))
        for future in dask_completed(futures):
            job = of[future.key]
            mine = asked[job.path].path
            if future.status == "error":  # its worker died twice, or it cannot be unpickled there
                yield FileResult(
                    path=mine, error=f"{mine}: no worker could do it ({future.exception()!r:.120})"
                )
            else:
                yield replace(future.result(), path=mine)

"""The Dask cluster that a replay works on: processes of this machine, or a scheduler's workers anywhere."""

from __future__ import annotations

import gc
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from multiprocessing.process import BaseProcess

import dask
from distributed import Client, LocalCluster, Security
from distributed.system import MEMORY_LIMIT

from recon_node.core.errors import ConfigError, ReconNodeError
from recon_node.offline.forks import ENVIRONMENT, begin, interrupts_held

_LOOPBACK = "127.0.0.1"
_CLOSING_S = 5
_STARTS = 3
_CONFIG = {
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.scheduler.allowed-failures": 20,  # the journal counts, and blames only what was at work
    "distributed.scheduler.active-memory-manager.start": False,  # it may leave a slice's only copy elsewhere
    "distributed.admin.low-level-log-length": 100,
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
    "distributed.worker.memory.target": False,  # what a worker holds is bounded: nothing goes to a disk,
    "distributed.worker.memory.spill": False,  # where patients' data would be left over
    "distributed.worker.memory.pause": 0.85,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.system-monitor.interval": "1s",
}


@contextmanager
def processes(workers: int) -> Iterator[Client]:
    """Worker processes of this machine, one thread each, that end with the block.

    They and the scheduler talk on the loopback address, encrypted with a key that nobody else has: who can
    reach a Dask scheduler can run programs as its user.

    Raises
    ------
    ReconNodeError
        They do not start.
    """
    before = set(active_children())
    with tempfile.TemporaryDirectory(prefix="recon-node-") as scratch, dask.config.set(_CONFIG), _quiet():
        cluster = None
        try:
            begin()
            with interrupts_held():
                cluster = _started(workers, scratch)
            with Client(cluster) as client:
                yield client
        finally:
            _end(cluster, before)


def _started(workers: int, scratch: str) -> LocalCluster:
    """The scheduler in this process and its workers; a worker that ends while it starts is started again."""
    for left in reversed(range(_STARTS)):
        try:
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host=_LOOPBACK,
                dashboard_address=f"{_LOOPBACK}:0",
                scheduler_kwargs={"dashboard": False},
                security=Security.temporary(),
                memory_limit=MEMORY_LIMIT // workers,
                local_directory=scratch,
            )
        except (RuntimeError, OSError, AssertionError) as error:  # Dask asserts that its loop starts in 10 s
            if not left:
                raise ReconNodeError(
                    f"{workers} worker processes do not start ({error or 'busy machine'}): use fewer, or none"
                ) from error
    raise AssertionError


def keep_all(client: Client, there: int) -> None:
    """Start processes of this machine again that ended for good, for example while they started."""
    cluster = client.cluster
    if isinstance(cluster, LocalCluster) and there < len(cluster.worker_spec):
        cluster.scale(len(cluster.worker_spec))


def _end(cluster: LocalCluster | None, before: set[BaseProcess]) -> None:
    """End the processes now: nothing is asked of them any more, and none is started in their place."""
    for nanny in () if cluster is None else cluster.workers.values():
        nanny.auto_restart = False
    for worker in set(active_children()) - before:
        worker.kill()
    if cluster is not None:
        with suppress(Exception):  # there is nobody left to part from
            cluster.close(timeout=_CLOSING_S)


@contextmanager
def scheduler_at(address: str) -> Iterator[Client]:
    """The workers of a scheduler; TLS as Dask's own configuration says.

    Raises
    ------
    ConfigError
        None answers there.
    """
    said = None
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        said = f"no Dask scheduler answers at {address}: {error}"
    if said is not None:
        gc.collect()  # ends what was begun: later, that may be while another client holds its lock
        raise ConfigError(said)
    with client:
        yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's log is for `--verbose`."""
    names = ("distributed", "distributed.client", "tornado.application")
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    if not logging.getLogger().isEnabledFor(logging.INFO):
        for log in logs:
            log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)

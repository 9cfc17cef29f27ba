"""What Dask workers do: one task reads a file and writes its series, a task a slice makes the images.

The task of a file prepares its slices one after the other and keeps a few of them in its worker's memory,
where their tasks are run, too, unless another worker has less to do: this is asked before a slice is handed
over, as Dask's own stealing looks about once a second, which is a third of a slice. Writing is in the order
of the file, whoever made the images: so windows, names and bytes are those of one process.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

from dask.sizeof import sizeof
from distributed import Client, Future, KilledWorker, get_client, get_worker, secede

from recon_node.core.errors import DataError, ReconNodeError
from recon_node.files.open import open_scans
from recon_node.offline.alone import EndedError, alone
from recon_node.offline.job import FileResult, Job, replay_file
from recon_node.offline.journal import TRIES, Journal, Tries
from recon_node.pipeline.result import Attempt, Reconstruction
from recon_node.pipeline.row import Work
from recon_node.pipeline.scan import Prepared, prepare

GPU = "GPU"
"""Name of the resource that workers with a graphics card are tagged with."""
_READING = "reading"
_MOST_MEMORY = 0.95
"""Of a worker's limit that a process of a slice's own may take, as the worker itself."""
_LOSSES = 20
"""Times that a slice is handed to the cluster."""
T = TypeVar("T")
_CLIENT_LOG = logging.getLogger("distributed.client")
"""Has a level of its own, at which it tells of killed workers, whatever was said about the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTask:
    """One input, for a worker."""

    job: Job
    folder: Path
    """For its journal."""
    ahead: int
    """Slices that may be at work or wait for it at a time."""
    gpu: bool = False
    """Slices go to workers that are tagged with a graphics card."""

    def __call__(self) -> FileResult:
        """Replay the input with the workers of the cluster."""
        secede()  # slices need the thread
        _CLIENT_LOG.setLevel(max(_CLIENT_LOG.level, logging.getLogger("distributed").level))
        tries = Tries(self.folder)
        spread = _Spread(
            get_client(), tries, self.job, ahead=self.ahead, resources={GPU: 1} if self.gpu else {}
        )
        notes = _Progressing(self.folder, tries)
        try:
            return replay_file(self.job, notes, each=spread, begin=spread.read)
        finally:
            spread.end()


class _Progressing(Journal):
    """A journal whose rows are progress: what was killed before while reading does not count any more."""

    def __init__(self, folder: Path, tries: Tries) -> None:
        super().__init__(folder)
        self._tries = tries

    def note(self, values: Mapping[str, Any]) -> None:
        """Append one row."""
        super().note(values)
        self._tries.forget(_READING)


@dataclass(frozen=True, slots=True, kw_only=True)
class _AtWork:
    """A slice that a worker has."""

    prepared: Prepared
    data: Future
    """Its k-space in the cluster, which Dask would forget while only the images are wanted: where the worker
    that has these is killed, they are made again."""
    future: Future


class _Spread:
    """`map` over the slices of a file, by a cluster: in order, and with few of them in memory."""

    def __init__(
        self, client: Client, tries: Tries, job: Job, *, ahead: int, resources: Mapping[str, float]
    ) -> None:
        self._client, self._tries, self._ahead, self._resources = client, tries, ahead, dict(resources)
        self._job = job
        self._at_work: deque[_AtWork] = deque()
        self._mark: Path | None = None
        self._suspect = tries.killed(_READING) >= TRIES

    def read(self) -> None:
        """Mark that the file is being read.

        Raises
        ------
        DataError
            Two processes were killed at it, and so is one that does nothing else.
        """
        self._mark = self._tries.begin(_READING)
        if self._suspect:
            _proven(_READING, read_through, self._job)
            self._suspect = False

    def end(self) -> None:
        """Nothing more is wanted."""
        self._unmark()
        for one in self._at_work:
            one.future.cancel()
        self._at_work.clear()

    def __call__(self, work: Work, slices: Iterable[Prepared]) -> Iterator[Attempt]:
        if self._mark is None:
            self.read()
        for prepared in slices:
            self._unmark()
            self._at_work.append(self._submitted(work, prepared))
            if len(self._at_work) >= self._ahead:
                yield self._next(work)
            self.read()
        self._unmark()
        while self._at_work:
            yield self._next(work)

    def _submitted(self, work: Work, prepared: Prepared) -> _AtWork:
        data = self._client.scatter(prepared, hash=False)
        preferred = self._least_busy()
        future = self._client.submit(
            reconstruct_slice,
            work,
            data,
            self._tries,
            pure=False,
            resources=self._resources,
            workers=preferred,
            allow_other_workers=bool(preferred),
        )
        return _AtWork(prepared=prepared, data=data, future=future)

    def _least_busy(self) -> list[str] | None:
        """The worker to prefer; none, which is this one, where it has nothing of this file to do."""
        if all(one.future.done() for one in self._at_work):
            return None
        info = self._client.scheduler_info(n_workers=-1)["workers"]
        threads = {address: one["nthreads"] for address, one in info.items() if self._can(one)}
        tasks = self._client.processing()
        slices = {address: sum(map(_is_slice, tasks.get(address, ()))) for address in threads}
        here = get_worker().address
        return sorted(threads, key=lambda one: (slices[one] / threads[one], one != here))[:1] or None

    def _can(self, worker: Mapping[str, Any]) -> bool:
        return set(self._resources) <= set(worker.get("resources", ()))

    def _next(self, work: Work) -> Attempt:
        one = self._at_work.popleft()
        prepared = one.prepared
        for _ in range(_LOSSES):
            try:
                attempt: Attempt = one.future.result()
            except KilledWorker as error:
                return _lost(prepared, f"every worker that took it was killed ({error.last_worker})")
            except CancelledError:  # with a worker the cluster lost the only copy it had of the slice
                one = self._submitted(work, prepared)
            else:
                return attempt
        return _lost(prepared, f"the cluster lost it {_LOSSES} times")

    def _unmark(self) -> None:
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)
            self._mark = None


def _is_slice(key: object) -> bool:
    """Whether a task is one of `reconstruct_slice`, by the name that Dask gives it."""
    return str(key).startswith(reconstruct_slice.__name__)


def _lost(prepared: Prepared, reason: str) -> Attempt:
    return Attempt(result=DataError(f"{_name(prepared)}: {reason}"), arrived=prepared.arrived)


def reconstruct_slice(work: Work, prepared: Prepared, tries: Tries) -> Attempt:
    """Images of one slice, or that three processes were killed at it, the last of them its own.

    Others may have been at work in a process that was killed, and it may have been killed for no fault of
    any: only one of its own tells.
    """
    counters = "-".join(map(str, astuple(prepared.kspace.index)))
    what = f"{_name(prepared)}@{prepared.source_id[:16]}-{counters}"
    suspect = tries.killed(what) >= TRIES
    try:
        with tries.at(what):
            return _proven(_name(prepared), work, prepared) if suspect else work(prepared)
    except DataError as error:
        return Attempt(result=error, arrived=prepared.arrived)


def read_through(job: Job) -> None:
    """Read and prepare all of an input, for nothing but to see whether a process survives it."""
    with suppress(ReconNodeError):  # told when it is read in earnest
        for source in open_scans(job.found_at or job.path, group=job.settings.prep.group):
            for _ in prepare(source, job.settings.prep):
                pass


def _proven(what: str, function: Callable[..., T], argument: object) -> T:
    limit = get_worker().memory_manager.memory_limit or 0
    try:
        return alone(function, argument, most_bytes=int(limit * _MOST_MEMORY))
    except EndedError as error:
        raise DataError(
            f"{what}: {TRIES} worker processes were killed at it, and so was one that did nothing else "
            f"({error}; out of memory?). It is set aside: use fewer --workers or more memory, then --resume"
        ) from error


def _name(prepared: Prepared) -> str:
    return f"slice {prepared.kspace.index.slice}"


S = TypeVar("S", bound=Callable[[Any], int])
register: Callable[[type], Callable[[S], S]] = sizeof.register


@register(Prepared)
def _size_of_prepared(prepared: Prepared) -> int:
    """Bytes, by which Dask decides whether to move a slice."""
    return int(prepared.kspace.data.nbytes + prepared.kspace.mask.nbytes)


@register(Attempt)
def _size_of_attempt(attempt: Attempt) -> int:
    result = attempt.result
    if not isinstance(result, Reconstruction):
        return 0
    return int(result.kspace.data.nbytes + result.maps.data.nbytes + result.images.data.nbytes)

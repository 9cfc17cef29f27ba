"""One input of a replay: every slice once, remembered in the ledger."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_node.core.errors import NoKSpace, ReconNodeError, one_line, shown
from recon_node.core.protocols import OpenSource
from recon_node.core.scan import SliceIndex
from recon_node.core.types import KSpace
from recon_node.core.version import __version__
from recon_node.files.open import open_scans
from recon_node.files.plain import open_plain
from recon_node.images import Scaling, finish
from recon_node.methods.zero_filled import ZeroFilled
from recon_node.offline.journal import MINE, Notes
from recon_node.offline.ledger import COUNTERS, index_of, values_of
from recon_node.offline.nifti import NiftiStack
from recon_node.offline.undersample import Undersampling, reference_images
from recon_node.pipeline.result import Reconstruction, Slice
from recon_node.pipeline.row import Each, Pipeline, row
from recon_node.pipeline.scan import one_line_of
from recon_node.pipeline.summary import summary_entry
from recon_node.pipeline.write import SeriesWriter
from recon_node.settings import Settings

Measure = Callable[[NDArray[np.complex64], NDArray[np.complex64]], Mapping[str, float]]
"""Images and reference `(phase, y, x)` to figures such as ``psnr``."""
OnSlice = Callable[[Slice, Path], None]
"""Told of a finished slice and the output folder, in the process that made it."""
WasTold = Callable[[Mapping[str, Any], Path], bool]
"""Asked about a row of the ledger and the output folder."""
_LEAST_TOLD, _MOST_TOLD = 120, 284
"""Characters of an error behind the path of its file, whatever that is; and together with it."""
_SECTIONS = ("prep", "coils", "recon", "prompts", "dicom")
"""Settings that decide an image or its instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a replay does beside reconstructing."""

    undersample: Undersampling | None = None
    measure: Measure | None = None
    """For undersampled slices, against the full reconstruction."""
    nifti: bool = False
    on_slice: OnSlice | None = None
    was_told: WasTold | None = None
    """Whether `on_slice` was done with a finished slice: a replay may have been stopped before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One input, and where its images go."""

    path: Path
    """As summary and ledger name it."""
    out: Path
    settings: Settings
    found_at: Path | None = None
    """Where the process that works finds it, if not at `path`."""
    resume: bool = False
    """Leave out slices that the ledger knows as finished, with the same bytes, settings and weights."""
    only: frozenset[SliceIndex] | None = None
    """Slices wanted; all by default."""
    extras: Extras = Extras()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """What became of one input."""

    path: Path
    packed: bytes = field(default=b"", repr=False)
    """Entries of ``summary.json``, so small that the results of a whole archive fit into memory."""
    skipped: int = 0
    """Of these, finished by an earlier replay."""
    error: str | None = None
    """One line, where the file could not be reconstructed whole."""
    left_out: str | None = None
    """What it is, where it is no k-space."""

    @property
    def series(self) -> list[dict[str, Any]]:
        """Entries of ``summary.json``."""
        entries: list[dict[str, Any]] = json.loads(zlib.decompress(self.packed)) if self.packed else []
        return entries


def replay_file(
    job: Job, notes: Notes, *, each: Each = map, begin: Callable[[], object] = lambda: None
) -> FileResult:
    """Reconstruct one file. An error is told in the result; every other slice is a complete series.

    Parameters
    ----------
    job : Job
    notes : Notes
        Where slices are remembered.
    each : callable
        `map`, or what spreads slices over processes.
    begin : callable
        Called before the file is opened; raises `DataError` where that must not be tried.
    """
    work = _Work(job, notes, each)
    troubles: list[str] = []
    left_out: str | None = None
    try:
        try:
            begin()
            work.run(troubles)
        except NoKSpace as trouble:
            left_out = _without(job.path, str(trouble))
        except ReconNodeError as trouble:
            troubles.append(_without(job.path, str(trouble)))
        if troubles or left_out:
            work.failed(left_out or one_line_of(troubles), left_out=left_out is not None)
    except ReconNodeError as trouble:
        troubles.append(str(trouble))
    entries = [entry for _, entry in sorted(work.entries, key=lambda item: item[0])]
    return FileResult(
        path=job.path,
        packed=zlib.compress(json.dumps(entries).encode(), 1) if entries else b"",
        skipped=work.skipped,
        error=_error(job.path, troubles) if troubles else None,
        left_out=left_out,
    )


class _Work:
    """The state of one input at work."""

    def __init__(self, job: Job, notes: Notes, each: Each) -> None:
        self._job, self._notes, self._each = job, notes, each
        self.entries: list[tuple[tuple[int, SliceIndex], dict[str, Any]]] = []
        self.skipped = 0
        self._sha256 = self._key = ""

    def run(self, troubles: list[str]) -> None:
        """All scans of the input; those that fail are told in `troubles`."""
        job = self._job
        pipeline = Pipeline(job.settings)
        path = job.found_at or job.path
        scans = open_scans(path, group=job.settings.prep.group)
        self._sha256, self._key = content_hash(path), settings_key(job.settings, pipeline, job.extras)
        known = self._notes.done(self._sha256, self._key) if job.resume else []
        for number, source in enumerate(scans):
            try:
                self._scan(number, source, pipeline, [row for row in known if row["scan"] == number])
            except ReconNodeError as trouble:
                troubles.append(_without(job.path, str(trouble)))

    def failed(self, reason: str, *, left_out: bool) -> None:
        """Remember that the input did not end well."""
        nothing = dict.fromkeys(COUNTERS, -1)
        status = "left out" if left_out else "failed"
        self._note(-1, {**nothing, "status": status, "error": reason})

    def _scan(self, number: int, source: OpenSource, pipeline: Pipeline, known: list[dict[str, Any]]) -> None:
        job = self._job
        writer = SeriesWriter.from_settings(job.settings, job.out)
        scan = f"{self._sha256[:16]}-{self._key[:16]}-{number}"
        stack = NiftiStack(job.out, scan) if job.extras.nifti else None
        finished = self._finished(number, known, writer, stack)

        def wanted(index: SliceIndex) -> bool:
            return index not in finished and (job.only is None or index in job.only)

        made = row(
            source,
            pipeline,
            writer=writer,
            wanted=wanted,
            choose=job.extras.undersample,
            measure=_against_all(job.extras),
            each=self._each,
        )
        whole = False
        try:
            for done in filter(_is_written, made):
                self._remember(number, done, writer.scalings.get(done.result.images.index))
                if stack is not None:
                    stack.add(done.result.images)
                if job.extras.on_slice is not None:
                    job.extras.on_slice(done, job.out)
            whole = job.only is None
        finally:
            if stack is not None:
                stack.write(whole=whole)

    def _finished(
        self, number: int, known: list[dict[str, Any]], writer: SeriesWriter, stack: NiftiStack | None
    ) -> frozenset[SliceIndex]:
        """Slices of a scan that are complete; the others share their window.

        A slice that was complete once is scaled as it was then, whatever came after it.
        """
        complete = {index_of(one): one for one in known if _is_complete(one, self._job.out)}
        if stack is not None:
            complete = {index: one for index, one in complete.items() if stack.has(index)}
        if (was_told := self._job.extras.was_told) is not None:
            complete = {index: one for index, one in complete.items() if was_told(one, self._job.out)}
        self.entries += [((number, index), json.loads(one["entry"])) for index, one in complete.items()]
        self.skipped += sum(MINE not in one for one in complete.values())
        writer.scalings |= {
            index_of(one): Scaling(**json.loads(one["scaling"])) for one in known if one["scaling"]
        }
        scaled = [writer.scalings[index] for index in complete if index in writer.scalings]
        if scaled:
            writer.scaling = scaled[-1]
        return frozenset(complete)

    def _remember(self, number: int, done: Slice, scaling: Scaling | None) -> None:
        out = self._job.out
        entry = {
            **summary_entry(done, source=str(self._job.path), metrics=done.result.metrics),
            "folders": sorted({str(one.path.parent.relative_to(out)) for one in done.instances}),
        }
        self._note(number, values_of(done, entry, None if scaling is None else dataclasses.asdict(scaling)))
        self.entries.append(((number, done.result.kspace.index), entry))

    def _note(self, number: int, values: Mapping[str, Any]) -> None:
        mine = {"input": str(self._job.path), "scan": number, "input_sha256": self._sha256, "key": self._key}
        self._notes.note({**mine, **values})


@dataclass(frozen=True, slots=True)
class _AgainstAll:
    """Figures of an undersampled slice, and of the methods it is compared with, against the full data."""

    measure: Measure
    keep: bool
    """Whether the reference goes with the result."""

    def __call__(self, full: KSpace, result: Reconstruction, pipeline: Pipeline) -> Reconstruction:
        reference = reference_images(full, pipeline.settings.coils)
        found = {result.images.made_by.method: self.measure(result.images.data, reference)}
        for method in (pipeline.methods.fallback, ZeroFilled()):
            if method.name not in found:
                images = method.reconstruct(result.kspace, result.maps, None)
                found[method.name] = self.measure(finish(images, shape=reference.shape[1:]).data, reference)
        return dataclasses.replace(result, metrics=found, reference=reference if self.keep else None)


def _against_all(extras: Extras) -> _AgainstAll | None:
    if extras.undersample is None or extras.measure is None:
        return None
    return _AgainstAll(extras.measure, keep=extras.on_slice is not None)


def settings_key(settings: Settings, pipeline: Pipeline, extras: Extras) -> str:
    """Hash of everything but the raw data that decides an image: settings, weights, software."""
    weights = pipeline.methods.weights
    parts = [__version__, None if weights is None else weights.sha256, repr(extras.undersample)]
    parts += [repr(getattr(settings, name)) for name in _SECTIONS]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_written(done: Slice) -> bool:
    """What is not on the disk is told at the end, and no slice that is done."""
    return bool(done.instances)


def _is_complete(row_: Mapping[str, Any], out: Path) -> bool:
    """Whether the instances that a row tells of are still there."""
    folders = [out / name for name in (row_["folders"] or "").split("; ") if name]
    found = sum(len(list(folder.glob("*.dcm"))) for folder in folders)
    return found >= int(row_["instances"])


def _error(path: Path, troubles: Sequence[str]) -> str:
    """What went wrong with a file, short enough to be told behind its path."""
    name = shown(path)
    return f"{name}: {one_line(one_line_of(troubles), max(_LEAST_TOLD, _MOST_TOLD - len(name)))}"


def _without(path: Path, text: str) -> str:
    for prefix in (f"{shown(path)}: ", f"{shown(path.name)}: "):
        text = text.removeprefix(prefix)
    return text

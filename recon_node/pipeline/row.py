"""The whole way of the data, from a source to DICOM in the queue, as one generator.

    prepare -> calibrate -> prompt -> reconstruct -> judge -> finish -> write -> queue

Replay, the MRD server, the Gadgetron gadget, deferred scans, streams and the Python interface consume
`row`; nothing else joins the stages. Threads, sockets and clusters stay outside: a consumer that reads ahead,
waits for its turn on the device or spreads slices over processes hands in how.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from recon_node.core.choices import Device
from recon_node.core.errors import DataError, ReconNodeError, where_it_failed
from recon_node.core.protocols import Source
from recon_node.core.scan import SliceIndex
from recon_node.core.threads import one_blas_thread
from recon_node.core.types import KSpace, Verdict
from recon_node.dicom import WrittenInstance
from recon_node.methods.registry import Methods, make_methods
from recon_node.pipeline.result import Attempt, Reconstruction, Slice
from recon_node.pipeline.scan import Prepared, prepare
from recon_node.pipeline.stages import calibrate, finished, judge, prompt
from recon_node.pipeline.stopwatch import Stopwatch
from recon_node.pipeline.troubles import Troubles
from recon_node.pipeline.write import SeriesWriter
from recon_node.prep.placed import OnLines
from recon_node.settings import ReconSettings, Settings

log = logging.getLogger(__name__)

Make = Callable[[Prepared, "Pipeline", Stopwatch], Reconstruction]
"""The stages between k-space and images."""
Queue = Callable[[Sequence[Path]], object]
"""Takes the files of one slice on their way to a PACS; raises `DeliveryError` where it cannot."""
Work = Callable[[Prepared], Attempt]
Each = Callable[[Work, Iterable[Prepared]], Iterable[Attempt]]
"""Does the work for each slice and hands out what came of it in the same order, as `map` does."""
Measure = Callable[[KSpace, Reconstruction, "Pipeline"], Reconstruction]
"""A reconstruction with its figures against a truth that its k-space, before `choose`, holds."""


def row(
    source: Source,
    pipeline: Pipeline,
    *,
    writer: SeriesWriter | None = None,
    queue: Queue | None = None,
    ahead: Callable[[Iterator[Prepared]], AbstractContextManager[Iterable[Prepared]]] = nullcontext,
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    salvage: bool = True,
    wanted: Callable[[SliceIndex], bool] = lambda index: True,
    choose: Callable[[KSpace], KSpace] | None = None,
    measure: Measure | None = None,
    each: Each = map,
    hurry: bool = False,
    watch: OnLines | None = None,
) -> Iterator[Slice]:
    """Every slice of a scan, as soon as its last line was read, and after it is safe on disk.

    Parameters
    ----------
    source : Source
        A file, or a connection whose readouts still arrive.
    pipeline : Pipeline
        Settings and loaded methods.
    writer : SeriesWriter, optional
        Writes DICOM; nothing is written without it.
    queue : callable, optional
        Queues the written files for delivery.
    ahead : callable
        Wraps the prepared slices, for example to prepare in a thread while a slice is reconstructed.
    turn : callable
        A context in which a slice is reconstructed, for example the device's queue.
    salvage : bool
        Where the source breaks off: still reconstruct the slices that had all of their lines.
    wanted : callable
        Which slices are reconstructed.
    choose : callable, optional
        What is reconstructed in place of a prepared slice.
    measure : callable, optional
        Figures that go with a reconstruction.
    each : callable
        `map`, or something that does the same in other processes (then `choose` and `measure` go there).
    hurry : bool
        Somebody waits: where the method fails outright the fallback's images leave, marked as such. Without
        it the scan fails, to be tried again.
    watch : callable, optional
        Looks on while lines arrive.

    Yields
    ------
    Slice

    Raises
    ------
    DataError
        Slices could not be reconstructed, told after all the others were.
    DicomError
        Slices could not be written, told after all others; they are yielded without instances.
    DeliveryError
        Slices did not get into the queue, told after all others; their files are on disk.
    SourceError
        The source broke off, told after the slices that were whole.
    ReconNodeError
        The scan cannot be reconstructed.
    """
    troubles = Troubles()
    with ahead(prepare(source, pipeline.settings.prep, salvage=salvage, watch=watch)) as scan:
        asked = (prepared for prepared in scan if wanted(prepared.kspace.index))
        work = partial(
            _attempt,
            _reconstructed,
            pipeline=pipeline,
            turn=turn,
            choose=choose,
            measure=measure,
            hurry=hurry,
        )
        for attempt in each(work, asked):
            result = attempt.result
            if isinstance(result, DataError):
                troubles.refused.append(str(result))
                continue
            clock = Stopwatch(result.seconds)
            instances: tuple[WrittenInstance, ...] = ()
            with troubles.of_the_disk():
                if writer is not None:
                    instances = tuple(clock("dicom", writer.write, result))
                if queue is not None and instances and not result.held:
                    clock("queue", queue, [instance.path for instance in instances])
            yield Slice(result=result, instances=instances, seconds=dict(clock), arrived=attempt.arrived)
    troubles.tell()


def _attempt(
    make: Make,
    prepared: Prepared,
    *,
    pipeline: Pipeline,
    turn: Callable[[], AbstractContextManager[object]],
    choose: Callable[[KSpace], KSpace] | None,
    measure: Measure | None,
    hurry: bool,
) -> Attempt:
    """One slice; that it contradicts itself keeps no other from being made."""
    try:
        chosen = prepared if choose is None else replace(prepared, kspace=choose(prepared.kspace))
        with turn():
            result = _in_time(make, chosen, pipeline, Stopwatch(prep=prepared.seconds), hurry=hurry)
        if measure is not None:
            result = measure(prepared.kspace, result, pipeline)
    except DataError as error:
        return Attempt(result=error, arrived=prepared.arrived)
    return Attempt(result=result, arrived=prepared.arrived)


def _in_time(
    make: Make, prepared: Prepared, pipeline: Pipeline, clock: Stopwatch, *, hurry: bool
) -> Reconstruction:
    """Images by the method; in a hurry the fallback's, which say so, where it fails outright."""
    try:
        return make(prepared, pipeline, clock)
    except DataError:
        raise
    except Exception as error:
        instead = pipeline.instead() if hurry else None
        if instead is None:
            raise
        log.warning("the method failed (%s): the fallback stands in", where_it_failed(error))
        try:
            result = make(prepared, instead, clock)
        except ReconNodeError:
            raise error from None
        told = str(error) if isinstance(error, ReconNodeError) else type(error).__name__
        why = f"{pipeline.methods.record.name} failed ({told}): {result.images.made_by.method} stands in"
        verdict = Verdict(verdict="fallback", score=0.0, reasons=(why, *result.verdict.reasons))
        return replace(result, verdict=verdict, held=False)


@one_blas_thread()
def _reconstructed(prepared: Prepared, pipeline: Pipeline, clock: Stopwatch) -> Reconstruction:
    """The stages between k-space and images."""
    kspace, methods, settings = prepared.kspace, pipeline.methods, pipeline.settings
    maps = clock("coils", calibrate, kspace, settings.coils, device=settings.recon.device)
    prompts, text = clock("prompts", prompt, kspace, settings.prompts, methods)
    made = clock("model", methods.chosen.reconstruct, kspace, maps, text)
    judged = clock("trust", judge, kspace, maps, prompts, text, made, methods, settings.recon)
    kspace, judged = clock("images", finished, kspace, judged, settings.recon)
    images = judged.images
    return Reconstruction(
        kspace=kspace,
        maps=maps,
        prompts=prompts,
        images=images,
        verdict=judged.verdict,
        withheld=judged.withheld,
        held=judged.held,
        validated=methods.validated and images.made_by.method == methods.chosen.name,
        source_id=prepared.source_id,
        seconds=dict(clock),
    )


class Pipeline:
    """Settings, with the methods they name loaded; the latest few stay loaded in a process.

    Parameters
    ----------
    settings : Settings
        The whole tree.

    Raises
    ------
    WeightsError
        At once, where the method's weights or their text encoder are missing.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.methods = _loaded(self.settings.recon)

    def __reduce__(self) -> tuple[type[Pipeline], tuple[Settings]]:
        """Another process loads its methods itself, once."""
        return Pipeline, (self.settings,)

    def instead(self) -> Pipeline | None:
        """What still reconstructs where this one's method or device fails; None if nothing would."""
        recon = self.settings.recon
        if recon.method == recon.fallback and recon.device == "cpu":
            return None
        return Pipeline(
            self.settings.replace("recon", method=recon.fallback, weights="default", device="cpu")
        )

    def run(self, kspace: KSpace) -> Reconstruction:
        """Images of one slice, and how far to believe them.

        Raises
        ------
        ReconNodeError
            No calibration lines, data that cannot be.
        """
        alone = Prepared(kspace=kspace, source_id="", arrived=time.monotonic(), seconds=0.0)
        return _reconstructed(alone, self, Stopwatch())


def quick(settings: Settings) -> Settings:
    """Settings whose images are the fallback's, made where nothing can be missing."""
    recon = settings.recon
    return settings.replace("recon", method=recon.fallback, weights="default", device="cpu")


def reconstruct(
    kspace: KSpace,
    *,
    method: str = "cardiomm",
    weights: str = "default",
    device: Device = "auto",
    settings: Settings | None = None,
) -> Reconstruction:
    """Reconstruct one slice.

    Parameters
    ----------
    kspace : KSpace
        From `recon_node.open_scan`.
    method, weights, device
        As the settings of section ``recon``.
    settings : Settings, optional
        Everything else; defaults otherwise.

    Returns
    -------
    Reconstruction
        With ``.images`` (`(phase, y, x)` complex64 at the recon matrix), ``.verdict``, ``.maps`` and
        ``.prompts``. Where the trust check failed, ``.images.made_by.method`` names what stands in.

    Raises
    ------
    ReconNodeError
        No calibration lines, weights missing, data that cannot be.
    """
    chosen = (settings or Settings()).replace("recon", method=method, weights=weights, device=device)
    return Pipeline(chosen).run(kspace)


_KEPT = 4
"""Sets of settings whose networks stay loaded."""
_cache: list[tuple[ReconSettings, Methods]] = []
_loading = threading.Lock()


def _loaded(settings: ReconSettings) -> Methods:
    with _loading:
        for known, methods in _cache:
            if known == settings:
                return methods
        methods = make_methods(settings)
        _cache[:] = [*_cache[-_KEPT + 1 :], (settings, methods)]
        return methods

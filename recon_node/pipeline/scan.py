"""Raw data to k-space: a source and the preparation joined."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon_node.core.budget import ScanLimits
from recon_node.core.errors import DataError, ReconNodeError, SourceError, one_line
from recon_node.core.identity import ScanIdentity
from recon_node.core.protocols import Source
from recon_node.core.scan import Readouts, ScanHeader, Waveform
from recon_node.core.threads import one_blas_thread
from recon_node.core.types import KSpace
from recon_node.files.open import open_source
from recon_node.prep import Preparation, RetrospectiveGating, compress_coils
from recon_node.prep.placed import OnLines
from recon_node.settings import PrepSettings

_MOST_TOLD = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """K-space of one slice, ready to be reconstructed."""

    kspace: KSpace
    source_id: str
    """What tells this raw data from others whose headers are equal; the same for a replay of a recording."""
    arrived: float
    """When its last line came, `time.monotonic()` seconds."""
    seconds: float
    """Wall time it took to read (or receive) and prepare."""


def prepare(
    source: Source,
    settings: PrepSettings | None = None,
    *,
    salvage: bool = True,
    watch: OnLines | None = None,
) -> Iterator[Prepared]:
    """Whitened, sorted k-space of each slice of a source, as soon as its last line was read.

    Parameters
    ----------
    source : Source
        A file, or a connection whose readouts still arrive.
    settings : PrepSettings, optional
        Orientation, dynamic dimension, noise, gating, coil compression.
    salvage : bool
        Where the source breaks off: still hand out the slices that had all of their lines.
    watch : callable, optional
        Looks on while lines arrive.

    Yields
    ------
    Prepared
        One for each slice (and contrast, set, repetition) that has imaging lines.

    Raises
    ------
    SourceError
        The source broke off, told after the slices that were whole.
    DataError
        Slices that contradict themselves, told after all the others.
    """
    options = settings or PrepSettings()
    stream = _Broken(source)
    preparation = _preparation(source, options, watch)
    identity = ScanIdentity(source.headers)
    slices = _sorted(stream, preparation, identity)
    while True:
        asked = time.perf_counter()
        try:
            with one_blas_thread():
                kspace = next(slices, None)
        except ReconNodeError:
            if stream.error is None:
                raise
            kspace = None  # what is left of a broken stream cannot be prepared
        if kspace is None:
            break
        if stream.error is None or (salvage and kspace.lines_found >= kspace.lines_expected):
            yield Prepared(
                kspace=compressed(kspace, options),
                source_id=identity.hex,
                arrived=getattr(source, "last_data", time.monotonic()),
                seconds=time.perf_counter() - asked,
            )
    if stream.error is not None:
        raise stream.error


class _Broken:
    """A source's readouts, ending quietly where it breaks off; `error` tells that it did.

    Breaking off is whatever keeps the rest from being read: a client that is gone, silent or no longer
    makes sense, a file that is cut. What came before was whole.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.error: SourceError | None = None

    def __iter__(self) -> Iterator[Readouts | Waveform]:
        try:
            yield from self._source
        except SourceError as error:
            self.error = error


def _preparation(source: Source, options: PrepSettings, watch: OnLines | None) -> Preparation:
    gating = None
    if options.gating == "retrospective":
        gating = RetrospectiveGating(
            options.phases, tolerance=options.rr_tolerance, fill=options.fill, r_waves=options.r_waves
        )
    return Preparation(
        source.headers,
        orientation=options.orientation,
        noise=options.noise,
        dynamic=options.dynamic,
        gating=gating,
        limits=ScanLimits(held_bytes=options.memory_mb << 20),
        watch=watch,
    )


def _sorted(stream: _Broken, preparation: Preparation, identity: ScanIdentity) -> Iterator[KSpace]:
    for block in stream:
        if isinstance(block, Readouts):
            identity.see(block)
        yield from preparation.feed(block)
    yield from preparation.finish()
    if preparation.refused:
        raise DataError(one_line_of(preparation.refused))


@one_blas_thread()
def compressed(kspace: KSpace, options: PrepSettings) -> KSpace:
    """K-space of virtual coils, where the settings want them and a calibration shows them."""
    if options.compression == "none" or kspace.calibration is None:
        return kspace
    return compress_coils(kspace, options.virtual_coils, method=options.compression)


def expected_slices(headers: Sequence[ScanHeader]) -> int | None:
    """How many k-spaces the headers announce; None where they do not say."""
    total = 0
    for header in headers:
        if "slice" not in header.limits:
            return None
        count = 1
        for name in ("slice", "contrast", "set", "repetition"):
            count *= header.limits[name].size if name in header.limits else 1
        total += count
    return total


def one_line_of(problems: Sequence[str]) -> str:
    """What kept slices from being reconstructed, as one line."""
    told = list(dict.fromkeys(problems))
    more = f"; and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return one_line("; ".join(told[:_MOST_TOLD]) + more)


def open_scan(path: Path | str, *, settings: PrepSettings | None = None) -> Iterator[KSpace]:
    """Read a raw data file slice by slice.

    Parameters
    ----------
    path : Path or str
        ISMRMRD HDF5, an MRD stream, or a public data set's file (see `recon_node.sources`).
    settings : PrepSettings, optional
        Which dataset, orientation, dynamic dimension, noise, gating, coil compression.

    Yields
    ------
    KSpace
        One for each slice (and contrast, set, repetition) that has imaging lines.

    Raises
    ------
    SourceError, DataError
        The file cannot be read, or contradicts itself.
    """
    group = None if settings is None else settings.group
    with open_source(Path(path), group=group) as source:
        for prepared in prepare(source, settings):
            yield prepared.kspace

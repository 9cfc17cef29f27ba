"""Raw data to k-space: a source and the preparation joined."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from recon_node.core.errors import ConfigError, DataError
from recon_node.core.protocols import Source
from recon_node.core.scan import Readouts
from recon_node.core.types import KSpace
from recon_node.files.open import open_source
from recon_node.prep import Preparation, RetrospectiveGating, compress_coils
from recon_node.settings import PrepSettings

_IDENTIFYING_READOUTS = 8
_MOST_PHASES = 512
_MOST_TOLD = 3


class Scan:
    """Whitened, sorted k-space of each slice of a source, as soon as its last line was read.

    Parameters
    ----------
    source : Source
        A file, or a connection whose readouts still arrive.
    settings : PrepSettings, optional
        Orientation, dynamic dimension, noise, gating, coil compression.

    Raises
    ------
    ConfigError
        A setting out of range.
    """

    def __init__(self, source: Source, settings: PrepSettings | None = None) -> None:
        self.source = source
        self._settings = settings or PrepSettings()
        check_prep(self._settings)
        self._hash = hashlib.sha256("".join(header.xml for header in source.headers).encode())
        self._left = _IDENTIFYING_READOUTS
        self.waited_s = 0.0
        """Wall time it took to read (or receive) and prepare the k-space handed out last."""

    @property
    def source_id(self) -> str:
        """What tells this raw data from others whose headers are equal: hash of header and first readouts.

        It does not depend on how the data arrived, so a replay of a recorded scan has the same.
        """
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[KSpace]:
        for kspace in self._sorted():
            yield self._compressed(kspace)

    def _compressed(self, kspace: KSpace) -> KSpace:
        method, coils = self._settings.compression, self._settings.virtual_coils
        if method == "none" or kspace.calibration is None:
            return kspace
        return compress_coils(kspace, coils, method=method)

    def _sorted(self) -> Iterator[KSpace]:
        options = self._settings
        gating = None
        if options.gating == "retrospective":
            gating = RetrospectiveGating(
                options.phases,
                tolerance=options.rr_tolerance,
                fill=options.fill,
                r_waves=options.r_waves,
            )
        preparation = Preparation(
            self.source.headers,
            orientation=options.orientation,
            noise=options.noise,
            dynamic=options.dynamic,
            gating=gating,
        )
        asked = time.perf_counter()
        for kspace in self._prepared(preparation):
            self.waited_s = time.perf_counter() - asked
            yield kspace
            asked = time.perf_counter()

    def _prepared(self, preparation: Preparation) -> Iterator[KSpace]:
        for block in self.source:
            if isinstance(block, Readouts) and self._left:
                self._identify(block)
            yield from preparation.feed(block)
        yield from preparation.finish()
        if preparation.refused:
            raise DataError(told_together(preparation.refused))

    def _identify(self, block: Readouts) -> None:
        first = block.select(slice(0, self._left))
        self._left -= len(first)
        for head, samples in zip(first.head, first.samples, strict=True):
            self._hash.update(head.tobytes() + samples.tobytes())


def told_together(problems: Sequence[str]) -> str:
    """What kept slices from being reconstructed, as one line."""
    told = list(dict.fromkeys(problems))
    more = f"; and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return "; ".join(told[:_MOST_TOLD]) + more


def check_prep(settings: PrepSettings) -> None:
    """Refuse settings of the preparation that are out of range.

    Raises
    ------
    ConfigError
        Names the setting, what was found and what is expected.
    """
    if not 1 <= settings.phases <= _MOST_PHASES:
        raise ConfigError(f"prep phases is {settings.phases}, expected 1 to {_MOST_PHASES}")
    if not 0 <= settings.rr_tolerance < float("inf"):
        raise ConfigError(f"prep rr_tolerance is {settings.rr_tolerance}, expected a fraction such as 0.2")
    if settings.virtual_coils is not None and settings.virtual_coils < 1:
        raise ConfigError(f"prep virtual_coils is {settings.virtual_coils}, expected at least 1")
    if settings.gating == "retrospective" and settings.dynamic not in ("auto", "phase"):
        raise ConfigError(
            f"prep dynamic is {settings.dynamic!r} with retrospective gating, which makes phases: "
            "expected auto or phase"
        )


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
        yield from Scan(source, settings)

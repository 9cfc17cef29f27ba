"""A reconstruction as DICOM series: the images themselves and what the settings ask for beside them."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np

from recon_node.core.choices import Quantity
from recon_node.core.errors import DicomError
from recon_node.core.identity import canonical_bytes
from recon_node.core.scan import VELOCITY_ENCODINGS, ScanHeader, SliceIndex
from recon_node.core.types import ImageSeries
from recon_node.dicom import Provenance, Site, WrittenInstance, transfer_syntax, write_series
from recon_node.images import (
    LEAST_CONTRASTS,
    Scaling,
    StoredPixels,
    display_orientation,
    orient,
    scale_series,
    store,
    t1_map_ms,
    t2_map_ms,
    velocity_cm_s,
    velocity_scaling,
)
from recon_node.pipeline.maps import map_of
from recon_node.pipeline.result import Reconstruction
from recon_node.settings import DicomSettings, Settings

log = logging.getLogger(__name__)

QUANTITIES = get_args(Quantity)
_WORDS = {
    "phase": "phase",
    "velocity": "velocity",
    "t1": "T1 map",
    "t2": "T2 map",
    "g-factor": "g-factor map",
    "snr": "SNR map",
    "expected-error": "expected error",
}
_BESIDE: tuple[Quantity, ...] = ("g-factor", "snr", "expected-error")
_SITE = (
    "institution",
    "department",
    "station",
    "manufacturer",
    "patient_name",
    "study_description",
    "uid_prefix",
)
_MOST_NUMBER = 2**31 - 1
"""Of an IS (PS3.5 section 6.2)."""
_NUMBERS_APART = 10_000
WITHHELD = "withheld"
"""Before the description of images that failed the trust check."""


@dataclass(slots=True, kw_only=True)
class SeriesWriter:
    """Writes the slices of one scan; all of them share the first one's window.

    Raises
    ------
    ConfigError
        The settings name a compression that is not installed.
    """

    out: Path
    settings: DicomSettings
    contrasts: bool = False
    """The images of a slice are not heart phases but one contrast each."""
    fsync: bool = False
    scaling: Scaling | None = None
    """Of the magnitude images so far; an earlier run's, where slices follow it."""
    scalings: dict[SliceIndex, Scaling] = field(default_factory=dict)
    """Of each slice; one that an earlier run wrote gets the same again, so that its bytes are the same."""
    label: str = ""
    """Before the quantity in SeriesDescription."""
    stack: str | None = None
    """Where all slices make one series: a hash of the settings that decide the images."""
    apart: int = 0
    """How far series numbers lie behind those of the images that stand."""
    _reference: dict[tuple[int, ...], ImageSeries] = field(default_factory=dict)
    """Images without velocity encoding (set 0), by slice."""
    _withheld: SeriesWriter | None = None

    def __post_init__(self) -> None:
        transfer_syntax(self.settings.compression)

    @classmethod
    def from_settings(cls, settings: Settings, out: Path, *, fsync: bool = False) -> Self:
        """The writer of one scan.

        Raises
        ------
        ConfigError
            As for the class.
        """
        contrasts = settings.prep.dynamic == "contrast"
        stack = settings_hash(settings) if settings.dicom.stack else None
        return cls(out=out, settings=settings.dicom, contrasts=contrasts, fsync=fsync, stack=stack)

    def write(self, result: Reconstruction) -> list[WrittenInstance]:
        """``out/<study>/<series>/*.dcm``: all of a series or nothing.

        Parameters
        ----------
        result : Reconstruction
            One slice.

        Raises
        ------
        DicomError
            The images are not finite, or the folder cannot be written.
        """
        settings, images, phase_encoding = self.settings, result.images, "COL"
        beside = list(self._maps(result))
        if settings.turn == "radiological":
            turn = display_orientation(images.geometry)
            images, phase_encoding = orient(images, turn), "ROW" if turn.transpose else "COL"
            beside = [(quantity, orient(one, turn)) for quantity, one in beside]
        written: list[WrittenInstance] = []
        maps = ((one, store(np.abs(one.data), quantity)) for quantity, one in beside)
        for shown, pixels in itertools.chain(self._wanted(images), maps):
            step = _NUMBERS_APART * (QUANTITIES.index(pixels.quantity) + self.apart)
            words = (self.label, _WORDS.get(pixels.quantity), None if self.stack else _slice(images))
            written += write_series(
                shown,
                self.out,
                pixels=pixels,
                provenance=provenance(result),
                site=_site(settings),
                series_number=self._series_number(result, step),
                label=" ".join(filter(None, words)),
                phase_encoding="ROW" if phase_encoding == "ROW" else "COL",
                compression=settings.compression,
                mark=settings.mark,
                contrasts=self.contrasts,
                form=settings.format,
                stack=self.stack,
                folders=settings.folders,
                fsync=self.fsync,
            )
        if result.withheld is not None:
            written += self._beside().write(shown_beside(result, result.withheld))
        return written

    def _series_number(self, result: Reconstruction, step: int) -> int:
        """By the header's number, or, where DICOM cannot hold that, without it."""
        first = result.kspace.header.study.initial_series_number or 0
        index = result.kspace.index
        if self.stack is not None:
            index = replace(index, slice=0, partition=0)
        own = self.settings.series_number_offset + _position(index, result.kspace.header) + step
        return own + 100 * first if own + 100 * first <= _MOST_NUMBER else min(own, _MOST_NUMBER)

    def _beside(self) -> SeriesWriter:
        """For images that were withheld: series of their own, with a window of their own."""
        if self._withheld is None:
            self._withheld = replace(
                self, label=WITHHELD, apart=len(QUANTITIES), scaling=None, scalings={}, _reference={}
            )
        return self._withheld

    def _maps(self, result: Reconstruction) -> Iterator[tuple[Quantity, ImageSeries]]:
        """The maps that the settings ask for and this slice has; none of withheld images."""
        for quantity in self.settings.images:
            if quantity in _BESIDE and not self.apart:
                one = map_of(quantity, result)
                if one is not None:
                    yield quantity, one

    def _wanted(self, images: ImageSeries) -> Iterator[tuple[ImageSeries, StoredPixels]]:
        """What of the settings' quantities this slice has; flow shows in the phase, whatever they say."""
        flow: tuple[Quantity, ...] = ("phase",) if VELOCITY_ENCODINGS in images.header.user else ()
        for quantity in dict.fromkeys((*self.settings.images, *flow)):
            if quantity == "magnitude":
                pixels = self._magnitude(images)
                self.scalings[images.index] = pixels.scaling
                yield images, pixels
            elif quantity == "phase":
                yield images, scale_series(images, quantity="phase")
            elif quantity == "velocity":
                yield from self._velocity(images)
            elif quantity not in _BESIDE:
                yield from self._map(quantity, images)

    def _magnitude(self, images: ImageSeries) -> StoredPixels:
        """With the first slice's scaling, unless that would cut this slice's bright pixels off."""
        if images.index in self.scalings:
            return scale_series(images, scaling=self.scalings[images.index])
        pixels = scale_series(images, scaling=self.scaling)
        if self.scaling is not None and pixels.clipped:
            own = scale_series(images)
            if own.clipped < pixels.clipped:
                window = {k: getattr(self.scaling, k) for k in ("window_center", "window_width")}
                self.scaling = replace(own.scaling, **window)
                return replace(own, scaling=self.scaling)
        self.scaling = pixels.scaling
        return pixels

    def _velocity(self, images: ImageSeries) -> Iterator[tuple[ImageSeries, StoredPixels]]:
        index, venc = images.index, self.settings.venc_cm_s or 0.0
        key = (index.slice, index.contrast, index.repetition, index.partition)
        if index.set == 0:
            self._reference[key] = images
        elif key in self._reference and self._reference[key].made_by == images.made_by:
            values = velocity_cm_s(images.data, self._reference[key].data, venc)
            yield images, store(values, "velocity", velocity_scaling(venc))
        else:
            log.warning("no velocity: set 0 of slice %d is missing or made by another method", index.slice)

    def _map(self, quantity: str, images: ImageSeries) -> Iterator[tuple[ImageSeries, StoredPixels]]:
        times = images.header.ti_ms if quantity == "t1" else images.header.te_ms
        count = images.data.shape[0]
        if not self.contrasts or len(times) != count or len(set(times)) < LEAST_CONTRASTS[quantity]:
            return
        if not np.isfinite(images.data).all():
            raise DicomError("some pixels are not finite: the reconstruction failed")
        fit = t1_map_ms if quantity == "t1" else t2_map_ms
        one: dict[str, Any] = {"data": images.data[:1], "trigger_times_ms": None, "rr_interval_ms": None}
        if images.acquisition_times_s is not None:
            one["acquisition_times_s"] = images.acquisition_times_s[:1]
        values = fit(images.data, times)[None]
        yield replace(images, **one), store(values, "t1" if quantity == "t1" else "t2")


def shown_beside(result: Reconstruction, withheld: ImageSeries) -> Reconstruction:
    """Withheld images as a result of their own, which says that it is not the one to look at first."""
    why = f"withheld by the trust check: {result.images.made_by.method}'s series stands in"
    verdict = replace(result.verdict, verdict="warn", reasons=(why, *result.verdict.reasons))
    return replace(result, images=withheld, verdict=verdict, withheld=None, validated=False)


def write_dicom(
    results: Reconstruction | Iterable[Reconstruction],
    folder: Path | str,
    *,
    settings: Settings | None = None,
) -> list[Path]:
    """Write reconstructions of one scan as DICOM: ``folder/<study>/<series>/*.dcm``.

    Parameters
    ----------
    results : Reconstruction or iterable of Reconstruction
        One slice, or those of a whole scan: together they share a study and the first one's window. Where the
        header has no identifiers, slices written one by one become studies of their own.
    folder : Path or str
        Made if missing.
    settings : Settings, optional
        Section ``dicom`` says what is written; defaults otherwise.

    Returns
    -------
    list of Path
        The files, in the order of slices and phases.

    Raises
    ------
    ConfigError
        Settings that contradict each other.
    DicomError
        Images that are not finite, or a folder that cannot be written.

    Examples
    --------
    >>> from recon_node import open_scan, reconstruct, write_dicom
    >>> files = write_dicom(map(reconstruct, open_scan("scan.h5")), "images")  # doctest: +SKIP
    """
    writer = SeriesWriter.from_settings(settings or Settings(), Path(folder))
    files, source_id = [], ""
    for result in [results] if isinstance(results, Reconstruction) else results:
        source_id = result.source_id or source_id or _fingerprint(result)
        files += [instance.path for instance in writer.write(replace(result, source_id=source_id))]
    return files


def _fingerprint(result: Reconstruction) -> str:
    """What tells a scan whose source is not known from all others: hash of header and first k-space."""
    kspace = result.kspace
    found = hashlib.sha256(canonical_bytes(kspace.header))
    found.update(kspace.data.tobytes())
    return found.hexdigest()


def provenance(result: Reconstruction) -> Provenance:
    """What the DICOM instances say about how they were made."""
    return Provenance(
        made_by=result.images.made_by,
        prompts=result.prompts,
        sampling=result.kspace.sampling,
        verdict=result.verdict,
        validated=result.validated,
        lines_found=result.kspace.lines_found,
        lines_expected=result.kspace.lines_expected,
        notes=result.kspace.notes,
        source_id=result.source_id,
    )


def _site(settings: DicomSettings) -> Site:
    given = {key: getattr(settings, key) for key in _SITE}
    return Site(**{key: value for key, value in given.items() if value is not None})


def settings_hash(settings: Settings) -> str:
    """Of every setting that decides an image."""
    parts = [repr(getattr(settings, name)) for name in ("prep", "coils", "recon", "prompts")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _slice(images: ImageSeries) -> str | None:
    """Which slice a series is of, where there are several."""
    index, limit = images.index, images.header.limits.get("slice")
    if limit is None or limit.size == 1:
        return None
    return f"slice {index.slice + 1}"


def _position(index: SliceIndex, header: ScanHeader) -> int:
    """Running number of a slice, contrast, set and repetition within its scan, from 1."""
    limits = header.limits
    number = 0
    for name in ("repetition", "set", "contrast", "slice"):
        size = limits[name].size if name in limits else 1
        number = number * max(1, size) + getattr(index, name)
    return 1 + number + index.partition

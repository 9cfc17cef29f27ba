"""The data set of a series: what all its instances share, and what differs between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, MRImageStorage

from recon_node.core.choices import Compression, Mark
from recon_node.core.errors import DicomError
from recon_node.core.types import ImageSeries
from recon_node.dicom import modules
from recon_node.dicom.compress import compressed_frame, transfer_syntax
from recon_node.dicom.geometry import image_plane
from recon_node.dicom.mark import add_overlay, burnt_in, text_mask, warning_text
from recon_node.dicom.modules import series_time
from recon_node.dicom.provenance import Provenance, add_provenance
from recon_node.dicom.sequence import PhaseEncoding, add_cardiac, add_sequence, contrast_times
from recon_node.dicom.text import character_set, clock, code, days_after, decimal, later, seconds_of
from recon_node.dicom.uids import IMPLEMENTATION_NAME, IMPLEMENTATION_UID, SeriesUids, series_uids


class Scaling(Protocol):
    """``real = stored * slope + intercept``, and how to show it."""

    @property
    def slope(self) -> float:
        """Rescale slope."""

    @property
    def intercept(self) -> float:
        """Rescale intercept."""

    @property
    def window_center(self) -> float:
        """In real units."""

    @property
    def window_width(self) -> float:
        """In real units."""

    @property
    def unit(self) -> str:
        """Rescale type, for example ``US``."""


class Pixels(Protocol):
    """Stored pixel values of a series (`recon_node.images.StoredPixels`)."""

    @property
    def data(self) -> NDArray[np.uint16]:
        """`(phase, y, x)` uint16."""

    @property
    def scaling(self) -> Scaling:
        """One for all phases."""

    @property
    def quantity(self) -> str:
        """``magnitude``, ``phase`` or another of `recon_node.core.choices.Quantity`."""


_IMAGE_TYPE = {
    "magnitude": "M",
    "phase": "P",
    "velocity": "VELOCITY MAP",
    "t1": "T1 MAP",
    "t2": "T2 MAP",
    "g-factor": "G FACTOR MAP",
    "snr": "SNR MAP",
    "expected-error": "ERROR MAP",
}
"""Value 3 (PS3.3 C.8.3.1.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One element that differs between the instances of a series."""

    tag: int
    vr: str
    values: tuple[str, ...]
    """One a phase, as encoded but for the padding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesTemplate:
    """A series before it is written."""

    meta: FileMetaDataset
    """Without the SOP instance UID."""
    shared: Dataset
    """Everything but the slots and the pixels."""
    slots: tuple[Slot, ...]
    uids: SeriesUids
    instance_uids: tuple[str, ...]
    pixels: NDArray[np.uint16]
    """`(phase, y, x)` uint16, C-contiguous."""
    instance_numbers: range
    """InstanceNumber of each image."""

    def dataset(self, phase: int) -> Dataset:
        """One instance as a pydicom data set with its file meta information."""
        ds = Dataset()
        ds.update(self.shared)
        for slot in self.slots:
            ds.add_new(slot.tag, slot.vr, slot.values[phase])
        syntax = UID(self.meta.TransferSyntaxUID)
        if syntax.is_compressed:
            ds.add_new(0x7FE00010, "OB", compressed_frame(self.pixels[phase], syntax))
            ds["PixelData"].is_undefined_length = True
        else:
            ds.add_new(0x7FE00010, "OW", self.pixels[phase].astype("<u2").tobytes())
        ds.file_meta = self.file_meta(phase)
        return ds

    def file_meta(self, phase: int) -> FileMetaDataset:
        """File meta information of one instance."""
        meta = FileMetaDataset()
        meta.update(self.meta)
        meta.MediaStorageSOPInstanceUID = UID(self.instance_uids[phase])
        return meta


def build_series(
    images: ImageSeries,
    *,
    pixels: Pixels,
    provenance: Provenance,
    site: modules.Site = modules.DEFAULT_SITE,
    series_number: int | None = None,
    label: str = "",
    phase_encoding: PhaseEncoding = "COL",
    compression: Compression = "none",
    mark: Mark = "none",
    contrasts: bool = False,
    stack: str | None = None,
) -> SeriesTemplate:
    """MR Image Storage instances of one slice, one a phase.

    Parameters
    ----------
    images : ImageSeries
        Finished images; geometry and times are theirs.
    pixels : Pixels
        Stored values of `images`.
    provenance : Provenance
        How they were made.
    site : Site
        What stands in for silent headers, and the UID root.
    series_number : int, optional
        1000 times the header's initial series number plus the slice, counted from 1, if None.
    label : str
        What the pixels are, where the name of the method does not say it; goes into the description.
    phase_encoding : {"COL", "ROW"}
        ROW where the images were transposed for display.
    compression : {"none", "rle", "jpeg-ls", "jpeg-2000"}
        Lossless; the UIDs are those of the uncompressed series.
    mark : {"none", "overlay", "burn"}
        How a verdict other than "pass" is written on the picture.
    contrasts : bool
        The images are not heart phases but one contrast each: the header's times differ between them.
    stack : str, optional
        As for `series_uids`: the other slices belong to the same series.

    Raises
    ------
    ConfigError
        Where the compression is not known or not installed.
    DicomError
        Where shapes, provenance or geometry contradict each other.
    """
    _check(images, pixels, provenance)
    options = {"quantity": pixels.quantity, "mark": mark}
    uids = series_uids(images, provenance, options=options, prefix=site.uid_prefix, stack=stack)
    shared = Dataset()
    used: modules.Fallbacks = {}
    header = images.header
    modules.add_patient(shared, header, site, uids, used)
    modules.add_study(shared, header, site, uids)
    number = _number(images) if series_number is None else series_number
    modules.add_series(shared, images, provenance, uids, number, used, label)
    modules.add_equipment(shared, header, site, used)
    shared.SOPClassUID = MRImageStorage
    computed = pixels.quantity not in ("magnitude", "phase")
    derived = "DERIVED" if computed or provenance.made_by.weights_sha256 else "ORIGINAL"
    shared.ImageType = [derived, "PRIMARY", _IMAGE_TYPE[pixels.quantity]]
    add_sequence(shared, images, phase_encoding, used)
    add_cardiac(shared, images)
    shared.AcquisitionNumber = 1
    shared.AcquisitionDate = shared.ContentDate = shared.SeriesDate
    dates = _dates(images, str(shared.SeriesDate))
    _add_plane(shared, images, used)
    _add_pixel_description(shared, pixels)
    stored = _marked(shared, pixels, provenance, mark)
    add_provenance(shared, provenance, used)
    shared.SpecificCharacterSet = character_set(str(element.value) for element in shared.iterall())
    frames = images.data.shape[0]
    place, places = (0, 1) if stack is None else _place(images)
    names = range(frames) if stack is None else [f"{place}/{phase}" for phase in range(frames)]
    instance_uids = tuple(map(uids.instance, names))
    numbers = range(1 + place, 1 + place + frames * places, places)
    slots = _slots(images, instance_uids, dates, contrast_times(images) if contrasts else {}, numbers)
    for slot in slots:
        shared.pop(slot.tag, None)
    return SeriesTemplate(
        meta=_meta(transfer_syntax(compression)),
        shared=shared,
        slots=slots,
        uids=uids,
        instance_uids=instance_uids,
        pixels=np.ascontiguousarray(stored),
        instance_numbers=numbers,
    )


def _check(images: ImageSeries, pixels: Pixels, provenance: Provenance) -> None:
    if images.data.size == 0:
        raise DicomError(f"images have shape {images.data.shape}: there is nothing to write")
    if pixels.data.shape != images.data.shape or pixels.data.dtype != np.uint16:
        raise DicomError(
            f"pixels are {pixels.data.dtype} {pixels.data.shape}, expected uint16 {images.data.shape}"
        )
    if max(images.data.shape[1:]) > 65535:
        raise DicomError(f"images have shape {images.data.shape}: DICOM holds at most 65535 rows or columns")
    if provenance.made_by != images.made_by:
        raise DicomError(
            f"provenance says {provenance.made_by.method}, the images were made by {images.made_by.method}"
        )
    for name in ("trigger_times_ms", "acquisition_times_s"):
        times = getattr(images, name)
        if times is not None and len(times) != images.data.shape[0]:
            raise DicomError(f"{name} has {len(times)} entries for {images.data.shape[0]} images")


def _place(images: ImageSeries) -> tuple[int, int]:
    """Where a slice lies in its stack, and how many there are.

    Images of a stack are numbered slice by slice, then phase by phase: programs that read stacks expect it.
    """
    header, index = images.header, images.index
    partitions = header.encoded_matrix[2]
    place = index.slice * partitions + index.partition
    slices = header.limits["slice"].size if "slice" in header.limits else 1
    return place, max(slices * partitions, place + 1)


def _marked(ds: Dataset, pixels: Pixels, provenance: Provenance, mark: Mark) -> NDArray[np.uint16]:
    """Pixels to store, with the warning on them or in an overlay where the verdict asks for one."""
    text = warning_text(provenance.verdict)
    if mark == "none" or text is None:
        return pixels.data
    mask = text_mask(text, (pixels.data.shape[1], pixels.data.shape[2]))
    if mark == "overlay":
        add_overlay(ds, mask, text)
        return pixels.data
    ds.BurnedInAnnotation = "YES"
    scaling = pixels.scaling
    white = (scaling.window_center + scaling.window_width / 2 - scaling.intercept) / scaling.slope
    return burnt_in(pixels.data, mask, int(np.clip(white, 1, 65535)))


def _number(images: ImageSeries) -> int:
    return 1000 * (images.header.study.initial_series_number or 1) + images.index.slice + 1


def _add_plane(ds: Dataset, images: ImageSeries, used: modules.Fallbacks) -> None:
    """Image Plane module, without the values that nobody knows: a made-up distance would be measured by."""
    rows, columns = images.data.shape[1:]
    plane = image_plane(images.geometry, (rows, columns))
    ds.ImagePositionPatient = [decimal(x) for x in plane.position]
    ds.ImageOrientationPatient = [decimal(x) for x in plane.orientation]
    ds.PixelSpacing = [decimal(x) for x in plane.spacing]
    ds.SliceThickness = decimal(plane.thickness)
    ds.SliceLocation = decimal(plane.location)
    ds.Rows, ds.Columns = rows, columns
    for size in sorted(images.header.unknown):
        for keyword in _MEASURED_BY[size]:
            ds.pop(keyword, None)
            used[keyword] = f"left out: the raw data gives no {size}"
    if "thickness" in images.header.unknown:
        ds.SliceThickness = ""


_MEASURED_BY = {
    "pixel": ("PixelSpacing",),
    "thickness": ("SliceThickness",),
    "pitch": ("ImagePositionPatient", "SliceLocation"),
}
"""Elements that hold a size."""


def _add_pixel_description(ds: Dataset, pixels: Pixels) -> None:
    """Image Pixel, Modality LUT and VOI LUT modules (PS3.3 C.7.6.3, C.11.1, C.11.2)."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 0
    ds.BurnedInAnnotation = "NO"
    scaling = pixels.scaling
    ds.RescaleSlope = decimal(scaling.slope)
    ds.RescaleIntercept = decimal(scaling.intercept)
    ds.RescaleType = scaling.unit
    ds.WindowCenter = decimal(scaling.window_center)
    ds.WindowWidth = decimal(scaling.window_width)
    if scaling.unit in _UNITS:
        ds.RealWorldValueMappingSequence = [_real_world(scaling)]


_UNITS = {"rad": "radian", "cm/s": "centimeter per second", "ms": "millisecond"}
"""UCUM code to meaning."""


def _real_world(scaling: Scaling) -> Dataset:
    """What the stored values mean, in a unit (PS3.3 C.7.6.16.2.11)."""
    item = Dataset()
    item.add_new(0x00409216, "US", 0)
    item.add_new(0x00409211, "US", 65535)
    item.RealWorldValueIntercept, item.RealWorldValueSlope = scaling.intercept, scaling.slope
    item.LUTExplanation = item.LUTLabel = scaling.unit
    item.MeasurementUnitsCodeSequence = [code(scaling.unit, "UCUM", _UNITS[scaling.unit])]
    return item


def _meta(syntax: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    return meta


def _dates(images: ImageSeries, series_date: str) -> tuple[str, ...]:
    """Date of each image: after midnight it is the day after the one on which the series began."""
    phases = int(images.data.shape[0])
    seconds, began = images.acquisition_times_s, seconds_of(series_time(images.header.study))
    if not series_date or seconds is None or began is None:
        return (series_date,) * phases
    over = (later(second, began) for second in seconds)
    return tuple(days_after(series_date, days) for days in over)


def _slots(
    images: ImageSeries,
    instance_uids: tuple[str, ...],
    dates: tuple[str, ...],
    times_ms: Mapping[int, tuple[float, ...]],
    numbers: range,
) -> tuple[Slot, ...]:
    phases = range(images.data.shape[0])
    seconds = images.acquisition_times_s or (None,) * len(phases)
    clocks = tuple(clock(second) for second in seconds)
    slots: dict[int, tuple[str, tuple[Any, ...]]] = {
        0x00080018: ("UI", instance_uids),
        0x00080032: ("TM", clocks),
        0x00080033: ("TM", clocks),
        0x00080022: ("DA", dates),
        0x00080023: ("DA", dates),
        0x00200013: ("IS", tuple(map(str, numbers))),
    }
    if images.trigger_times_ms is not None:
        slots[0x00181060] = ("DS", tuple(decimal(round(t, 4)) for t in images.trigger_times_ms))
    for tag, values in times_ms.items():
        slots[tag] = ("DS", tuple(map(decimal, values)))
    return tuple(Slot(tag=tag, vr=vr, values=values) for tag, (vr, values) in sorted(slots.items()))

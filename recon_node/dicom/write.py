"""Series to files: all of a series or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from recon_node.core import durable
from recon_node.core.choices import Compression, Format, Mark
from recon_node.core.errors import DicomError
from recon_node.core.folders import PLAIN, filled, pseudonym
from recon_node.core.names import inside
from recon_node.core.types import ImageSeries
from recon_node.dicom.build import Pixels, SeriesTemplate, build_series
from recon_node.dicom.modules import DEFAULT_SITE, Site
from recon_node.dicom.multiframe import encode_multiframe
from recon_node.dicom.provenance import Provenance
from recon_node.dicom.sequence import PhaseEncoding
from recon_node.dicom.template import EncodedInstance, encode_series


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenInstance:
    """A file of a series, as delivery needs to know it."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    instance_number: int


def write_series(
    images: ImageSeries,
    folder: Path,
    *,
    pixels: Pixels,
    provenance: Provenance,
    site: Site = DEFAULT_SITE,
    series_number: int | None = None,
    label: str = "",
    phase_encoding: PhaseEncoding = "COL",
    compression: Compression = "none",
    mark: Mark = "none",
    contrasts: bool = False,
    form: Format = "mr",
    stack: str | None = None,
    folders: str = PLAIN,
    fsync: bool = False,
) -> list[WrittenInstance]:
    """Write one slice as one MR series: ``folder/<study UID>/<series UID>/<instance>.dcm`` by default.

    The same values give the same UIDs and the same bytes. The files appear together under their
    names once all are written; on an error or Ctrl-C nothing is left behind.

    Parameters
    ----------
    images, pixels, provenance, site, series_number, label
        As for `build_series`.
    phase_encoding, compression, mark, contrasts
        As for `build_series`.
    form : {"mr", "enhanced-mr", "legacy-enhanced-mr"}
        An instance for each image, or one for all of them.
    folder : Path
        Made if it does not exist.
    stack : str, optional
        As for `build_series`; each slice has a folder of its own all the same.
    folders : str
        Template of the folders (`recon_node.core.folders`).
    fsync : bool
        Return only when files and folders are on the disk.

    Raises
    ------
    ConfigError
        Where the compression is not known or not installed.
    DicomError
        Where an instance cannot be built, or the folder cannot be written.
    """
    template = build_series(
        images,
        pixels=pixels,
        provenance=provenance,
        site=site,
        series_number=series_number,
        label=label,
        phase_encoding=phase_encoding,
        compression=compression,
        mark=mark,
        contrasts=contrasts,
        stack=stack,
    )
    if form != "mr":
        whole, instance = encode_multiframe(template, form)
        target = _inside(Path(folder), _folder(images, whole, folders, stack))
        write_folder(target, [("0001.dcm", instance)], fsync=fsync)
        return [_written(target / "0001.dcm", whole.file_meta, template, str(whole.SeriesInstanceUID), 1)]
    target = _inside(Path(folder), _folder(images, template.shared, folders, stack))
    numbers = template.instance_numbers
    names = [f"{number:04d}.dcm" for number in numbers]
    write_folder(target, zip(names, encode_series(template), strict=True), fsync=fsync)
    return [
        _written(target / name, template.meta, template, template.uids.series, number, uid)
        for name, number, uid in zip(names, numbers, template.instance_uids, strict=True)
    ]


def _folder(images: ImageSeries, ds: Dataset, folders: str, stack: str | None) -> Path:
    """Where a series lies below the output folder."""
    header, study, series = images.header, str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID)
    patient = header.patient
    place = images.index.slice + images.index.partition
    values = {
        "study": study,
        "series": series,
        "patient": pseudonym(patient.patient_id, patient.name, header.study.study_instance_uid),
        "date": str(ds.StudyDate) or "undated",
        "time": str(ds.StudyTime).partition(".")[0] or "untimed",
        "protocol": header.protocol or "unnamed",
        "slice": f"{place + 1:02d}",
        "number": str(ds.SeriesNumber),
        "method": images.made_by.method,
    }
    unique = series if stack is None else f"{series}/{place}"
    return filled(folders, values, unique=unique, whole_series=stack is None)


def _inside(folder: Path, name: Path) -> Path:
    try:
        return inside(folder, folder / name)
    except PermissionError as error:
        raise DicomError(f"cannot write DICOM files: a link leads out of {folder}: remove it") from error


def _written(
    path: Path, meta: Dataset, template: SeriesTemplate, series: str, number: int, uid: str | None = None
) -> WrittenInstance:
    return WrittenInstance(
        path=path,
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=uid or str(meta.MediaStorageSOPInstanceUID),
        series_instance_uid=series,
        study_instance_uid=template.uids.study,
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        instance_number=number,
    )


def write_folder(target: Path, files: Iterable[tuple[str, EncodedInstance]], *, fsync: bool) -> None:
    """Write `files` into a hidden folder beside `target`, then give them their place.

    Raises
    ------
    DicomError
        Where the folder cannot be written.
    """
    try:
        with durable.writing_folder(target, sync=fsync) as hidden:
            for name, instance in files:
                durable.write_new(f"{hidden}/{name}", instance.pieces, sync=fsync)
    except OSError as error:
        raise DicomError(f"cannot write DICOM files to {target}: {error.strerror or error}") from error

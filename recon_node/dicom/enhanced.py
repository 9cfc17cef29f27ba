"""A written series as one multi-frame object: Legacy Converted Enhanced MR Image (PS3.3 A.71).

The conversion is highdicom's. It keeps every attribute of the single images; what differs between
them goes into the functional groups of their frames.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from recon_node.core.errors import ConfigError, DicomError
from recon_node.dicom.template import EncodedInstance
from recon_node.dicom.uids import DEFAULT_PREFIX
from recon_node.dicom.write import WrittenInstance, write_folder

_SERIES_NUMBER_OFFSET = 100000


def write_legacy_enhanced(
    written: Sequence[WrittenInstance], folder: Path, *, prefix: str = DEFAULT_PREFIX, fsync: bool = False
) -> WrittenInstance:
    """Write the multi-frame form of a series beside it, as a series of its own in the same study.

    Parameters
    ----------
    written : sequence of WrittenInstance
        All instances of one uncompressed series, as `write_series` returned them.
    folder : Path
        As for `write_series`.
    prefix : str
        UID root, ending in a dot.
    fsync : bool
        Return only when the file is on the disk.

    Raises
    ------
    ConfigError
        Where the highdicom package is not installed.
    DicomError
        Where the series cannot be read, converted or written.
    """
    ds = legacy_enhanced([_read(instance.path) for instance in written], prefix=prefix)
    content = io.BytesIO()
    ds.save_as(content, enforce_file_format=True)
    instance = EncodedInstance(sop_instance_uid=ds.SOPInstanceUID, pieces=(content.getvalue(),))
    target = Path(folder) / ds.StudyInstanceUID / ds.SeriesInstanceUID
    write_folder(target, [("0001.dcm", instance)], fsync=fsync)
    return WrittenInstance(
        path=target / "0001.dcm",
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        instance_number=1,
    )


def legacy_enhanced(datasets: Sequence[Dataset], *, prefix: str = DEFAULT_PREFIX) -> Dataset:
    """The single-frame images of one series as one data set; the same images give the same one."""
    try:
        from highdicom.legacy import LegacyConvertedEnhancedMRImage
    except ImportError as error:
        raise ConfigError("multi-frame output needs the highdicom package: pip install highdicom") from error
    if not datasets:
        raise DicomError("there are no instances to convert, expected those of one series")
    series, number = datasets[0].SeriesInstanceUID, int(datasets[0].SeriesNumber)
    try:
        ds: Dataset = LegacyConvertedEnhancedMRImage(
            list(datasets),
            series_instance_uid=generate_uid(prefix=prefix, entropy_srcs=["enhanced series", series]),
            series_number=_SERIES_NUMBER_OFFSET + number,
            sop_instance_uid=generate_uid(prefix=prefix, entropy_srcs=["enhanced instance", series]),
            instance_number=1,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DicomError(f"the series cannot be made multi-frame: {error}") from error
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):  # the time of day is no content
        if keyword in ds:
            del ds[keyword]
    if not any("ReferencedInstanceSequence" in item for item in ds.get("ReferencedSeriesSequence", ())):
        ds.pop("ReferencedSeriesSequence", None)
    return ds


def _read(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path)
    except (OSError, InvalidDicomError) as error:
        raise DicomError(f"cannot read {path.name} of the series to convert: {error}") from error

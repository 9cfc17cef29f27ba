"""Unique identifiers that a replay finds again.

Every UID is either the raw data's own or a hash of what it identifies (PS3.5 section 9 and B), so
the same raw data and the same weights give the same instances, and a PACS sees no duplicates.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from pydicom.uid import PYDICOM_ROOT_UID, generate_uid

from recon_node.core.errors import DicomError
from recon_node.core.identity import canonical_bytes
from recon_node.core.scan import ScanHeader
from recon_node.core.types import ImageSeries
from recon_node.dicom.provenance import Provenance

DEFAULT_PREFIX = PYDICOM_ROOT_UID
IMPLEMENTATION_UID = "2.25.183497186288012557791822175782576512597"
"""This implementation's own (PS3.7 section D.3.3.2): in files, and when associations are made."""
IMPLEMENTATION_NAME = "RECON_NODE"
"""At most 16 characters."""
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_PREFIX = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesUids:
    """UIDs that all instances of a series share, and how to make theirs."""

    study: str
    series: str
    frame_of_reference: str
    prefix: str

    def instance(self, index: int | str) -> str:
        """SOP instance UID of what `index` tells from the others of the series; always 64 characters."""
        return str(generate_uid(prefix=self.prefix, entropy_srcs=["instance", self.series, str(index)]))


def is_uid(text: str | None) -> bool:
    """Whether `text` is a valid UID with more than a root (PS3.5 section 9.1)."""
    return text is not None and len(text) <= 64 and text.count(".") >= 2 and bool(_UID.fullmatch(text))


def series_uids(
    images: ImageSeries,
    provenance: Provenance,
    *,
    options: dict[str, Any],
    prefix: str = DEFAULT_PREFIX,
    stack: str | None = None,
) -> SeriesUids:
    """UIDs of one series.

    Parameters
    ----------
    images : ImageSeries
        Its header's own study and frame of reference UIDs are kept where they are valid.
    provenance : Provenance
        Other weights, settings, prompts or software make another series in the same study. What was found
        out about the images (score, verdict, notes) does not: its last digit depends on the machine.
    options : dict
        Whatever else changes what the instances hold (quantity, mark, SOP class); JSON-able.
    prefix : str
        UID root, ending in a dot.
    stack : str, optional
        The series is that of all slices: what else changes its images (a hash of the settings). What differs
        from slice to slice then plays no part.

    Raises
    ------
    DicomError
        Where `prefix` is not a UID root.
    """
    if not _PREFIX.fullmatch(prefix) or len(prefix) > 54:
        raise DicomError(
            f"UID prefix is {prefix!r}, expected digits and dots ending in a dot, at most 54 long"
        )
    info = images.header.study
    scan = _scan_key(images, provenance)
    own = info.study_instance_uid
    study = own if own and is_uid(own) else _derived(prefix, "study", _study_key(images.header, scan))
    frame = info.frame_of_reference_uid
    return SeriesUids(
        study=study,
        series=_derived(prefix, "series", [study, *_series_key(scan, provenance, stack), options]),
        frame_of_reference=frame if frame and is_uid(frame) else _derived(prefix, "frame", [study]),
        prefix=prefix,
    )


def _study_key(header: ScanHeader, scan: Any) -> list[Any]:
    """What tells one study from another; without a date or accession number, the scan itself."""
    patient, info = header.patient, header.study
    key = [patient.patient_id, patient.name, patient.birth_date, info.accession_number, info.study_date]
    if info.accession_number is None and info.study_date is None:
        return [*key, header.device_serial, scan["measurement"], scan["source"]]
    return [*key, info.study_time]


def _scan_key(images: ImageSeries, provenance: Provenance) -> dict[str, Any]:
    """What tells one slice of raw data from all others."""
    info = images.header.study
    return {
        "measurement": [info.measurement_id, info.series_instance_uid, info.series_date, info.series_time],
        "source": provenance.source_id,
        "index": asdict(images.index),
        "geometry": {name: value for name, value in asdict(images.geometry).items() if name != "conjugated"},
        "shape": list(images.data.shape),
        "acquired": images.acquisition_times_s,
        "triggers": images.trigger_times_ms,
    }


def _series_key(scan: dict[str, Any], provenance: Provenance, stack: str | None) -> list[Any]:
    """What tells one series of a study from the others."""
    if stack is None:
        return [scan, _making(provenance)]
    made = provenance.made_by
    places = {"slice": 0, "partition": 0}
    directions = {name: value for name, value in scan["geometry"].items() if name != "position_mm"}
    shared = {"measurement": scan["measurement"], "source": scan["source"], "shape": scan["shape"]}
    shared |= {"index": {**scan["index"], **places}, "geometry": directions}
    return [shared, [made.version, made.method, made.weights, made.weights_sha256], stack]


def _making(provenance: Provenance) -> list[Any]:
    """What tells images of one slice apart by how they were made."""
    made, prompts = provenance.made_by, provenance.prompts
    said = [str(prompts.metadata), str(prompts.undersampling)] if prompts else None
    return [made.version, made.method, made.weights, made.weights_sha256, made.settings, said]


def _derived(prefix: str, kind: str, parts: Any) -> str:
    text = canonical_bytes([kind, parts]).decode()
    return str(generate_uid(prefix=prefix, entropy_srcs=[text]))

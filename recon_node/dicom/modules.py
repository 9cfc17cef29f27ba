"""Patient, study, series and equipment modules from the header (PS3.3 C.7.1 to C.7.5).

A value the header does not give is taken from the site's settings, then from a named fallback; what
was put in place of what is recorded, so that nobody takes it for the scanner's word.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from recon_node.core.scan import ScanHeader, StudyInfo
from recon_node.core.types import ImageSeries
from recon_node.dicom.provenance import Provenance, series_description
from recon_node.dicom.text import dicom_date, dicom_time, one_line, person_name
from recon_node.dicom.uids import DEFAULT_PREFIX, SeriesUids

Fallbacks = dict[str, str]
"""DICOM keyword to a sentence on what stands in for the missing value."""

PATIENT_POSITIONS = ("HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL")
FALLBACK_BODY_PART = "HEART"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a site says about itself where a header is silent."""

    institution: str | None = None
    department: str | None = None
    station: str | None = None
    manufacturer: str | None = None
    """Of the scanner."""
    patient_name: str | None = None
    study_description: str | None = None
    uid_prefix: str = DEFAULT_PREFIX
    """UID root of the site, ending in a dot."""


DEFAULT_SITE = Site()


def add_patient(ds: Dataset, header: ScanHeader, site: Site, uids: SeriesUids, used: Fallbacks) -> None:
    """Patient and Patient Study modules; an unknown patient never shares an ID with another."""
    patient = header.patient
    name = patient.name or site.patient_name
    if patient.name is None and site.patient_name:
        used["PatientName"] = "from the site's settings"
    ds.PatientName = person_name(name or "")
    ds.PatientID = one_line(patient.patient_id or "", 64)
    if not ds.PatientID:
        ds.PatientID = f"UNKNOWN-{uids.study[-12:]}"
        used["PatientID"] = "made from the study instance UID"
    ds.PatientBirthDate = dicom_date(patient.birth_date)
    ds.PatientSex = patient.sex if patient.sex in ("M", "F", "O") else ""
    if patient.weight_kg is not None and patient.weight_kg > 0:
        ds.PatientWeight = f"{patient.weight_kg:.4g}"
    if patient.height_m is not None and patient.height_m > 0:
        ds.PatientSize = f"{patient.height_m:.4g}"


def add_study(ds: Dataset, header: ScanHeader, site: Site, uids: SeriesUids) -> None:
    """General Study module."""
    study = header.study
    ds.StudyInstanceUID = uids.study
    ds.StudyDate = dicom_date(study.study_date) or dicom_date(study.series_date)
    ds.StudyTime = dicom_time(study.study_time) or dicom_time(study.series_time)
    ds.AccessionNumber = one_line(study.accession_number or "", 16)
    ds.ReferringPhysicianName = person_name(study.referring_physician or "")
    ds.StudyID = ""
    description = study.study_description or site.study_description
    if description:
        ds.StudyDescription = one_line(description, 64)


def add_series(
    ds: Dataset,
    images: ImageSeries,
    provenance: Provenance,
    uids: SeriesUids,
    number: int,
    used: Fallbacks,
    label: str,
) -> None:
    """General Series and Frame of Reference modules."""
    header = images.header
    study = header.study
    ds.Modality = "MR"
    ds.SeriesInstanceUID = uids.series
    ds.SeriesNumber = number
    ds.SeriesDate = dicom_date(study.series_date) or dicom_date(study.study_date)
    ds.SeriesTime = series_time(study)
    what = study.series_description or header.protocol or ""
    ds.SeriesDescription = series_description(provenance, one_line(f"{label} {what}", 64))
    if header.protocol:
        ds.ProtocolName = one_line(header.protocol, 64)
    ds.BodyPartExamined = one_line(study.body_part or FALLBACK_BODY_PART, 16).upper()
    if not study.body_part:
        used["BodyPartExamined"] = f"{FALLBACK_BODY_PART} assumed"
    ds.PatientPosition = header.patient_position if header.patient_position in PATIENT_POSITIONS else ""
    ds.FrameOfReferenceUID = uids.frame_of_reference
    ds.PositionReferenceIndicator = ""
    if not images.geometry.known:
        used["ImageOrientationPatient"] = "the raw data gives no directions; axial assumed"


def series_time(study: StudyInfo) -> str:
    """TM of the series, else of the study."""
    return dicom_time(study.series_time) or dicom_time(study.study_time)


def add_equipment(ds: Dataset, header: ScanHeader, site: Site, used: Fallbacks) -> None:
    """General Equipment module: the scanner (this node is in ContributingEquipmentSequence)."""
    ds.Manufacturer = one_line(header.vendor or site.manufacturer or "", 64)
    if not header.vendor:
        used["Manufacturer"] = "from the site's settings" if site.manufacturer else "left empty"
    optional = {
        "ManufacturerModelName": (header.model, 64),
        "InstitutionName": (header.institution or site.institution, 64),
        "InstitutionalDepartmentName": (site.department, 64),
        "StationName": (header.station or site.station, 16),
        "DeviceSerialNumber": (header.device_serial, 64),
    }
    for keyword, (value, length) in optional.items():
        if value:
            setattr(ds, keyword, one_line(value, length))

"""A whole series in one instance: Enhanced MR and Legacy Converted Enhanced MR (PS3.3 A.36, A.71).

Both are made from the template of the classic series, so that every value has one origin and the same
series gives the same bytes. ImageType is DERIVED always: as ORIGINAL, Enhanced MR demands what raw data
does not tell (absorption rate, receive coil, saturation, and more).
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Sequence
from io import BytesIO

from pydicom import dcmwrite
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, generate_uid

from recon_node.core.choices import MARKS, Format
from recon_node.core.errors import ConfigError, DicomError
from recon_node.dicom.build import SeriesTemplate
from recon_node.dicom.compress import compressed_frames
from recon_node.dicom.provenance import CREATOR, PRIVATE_GROUP
from recon_node.dicom.template import EncodedInstance
from recon_node.dicom.text import code

_SOP_CLASSES = {
    "enhanced-mr": EnhancedMRImageStorage,
    "legacy-enhanced-mr": LegacyConvertedEnhancedMRImageStorage,
}
_DIMENSIONS = ("StackID", "InStackPositionNumber", "TemporalPositionIndex")
_REGIONS = {
    "HEART": ("80891009", "Heart"),
    "AORTA": ("15825003", "Aorta"),
    "CHEST": ("51185008", "Chest"),
    "BRAIN": ("12738006", "Brain"),
}
"""Body part to its code (PS3.16 annex L)."""
_ANY_REGION = ("38266002", "Entire body")
_COMMON = """
SpecificCharacterSet StudyDate SeriesDate StudyTime SeriesTime AccessionNumber Modality Manufacturer
InstitutionName ReferringPhysicianName StationName StudyDescription SeriesDescription
InstitutionalDepartmentName ManufacturerModelName PatientName PatientID PatientBirthDate PatientSex
PatientSize PatientWeight BodyPartExamined DeviceSerialNumber ProtocolName PatientPosition
ContributingEquipmentSequence StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber FrameOfReferenceUID
PositionReferenceIndicator ImageComments SamplesPerPixel PhotometricInterpretation Rows Columns
BitsAllocated BitsStored HighBit PixelRepresentation BurnedInAnnotation DerivationDescription
"""
"""What stands at the top as it does in a classic instance."""
_FUNCTIONAL = """
SliceThickness ImagePositionPatient ImageOrientationPatient PixelSpacing RescaleIntercept RescaleSlope
RescaleType WindowCenter WindowWidth RealWorldValueMappingSequence ImageType SOPClassUID ContentDate
"""
"""What has a functional group of its own."""


def build_multiframe(template: SeriesTemplate, kind: Format) -> Dataset:
    """One instance with every image of a series as a frame.

    Parameters
    ----------
    template : SeriesTemplate
        The classic series.
    kind : {"enhanced-mr", "legacy-enhanced-mr"}
        SOP class.

    Returns
    -------
    Dataset
        With file meta information; series and instance UID are its own, hashed from the classic ones.

    Raises
    ------
    ConfigError
        The template has a mark on the picture: neither holds an overlay, Enhanced MR nothing burnt in.
    DicomError
        Where a frame cannot be compressed.
    """
    old = template.shared
    mark = "overlay" if 0x60003000 in old else "burn" if old.BurnedInAnnotation == "YES" else "none"
    if mark not in MARKS[kind]:
        raise ConfigError(f"mark {mark} does not exist in format {kind}: choose {' or '.join(MARKS[kind])}")
    missing = [name for name in ("PixelSpacing", "ImagePositionPatient") if name not in old]
    if missing:
        raise DicomError(
            f"format {kind} needs {' and '.join(missing)}, which the raw data lacks: choose classic"
        )
    ds = Dataset()
    _copy(old, ds, _COMMON.split())
    ds.update(copy.deepcopy(old.group_dataset(PRIVATE_GROUP)))
    ds.SOPClassUID = _SOP_CLASSES[kind]
    ds.SeriesInstanceUID = _own_uid(template, kind, "series")
    ds.SOPInstanceUID = _own_uid(template, kind, "instance")
    ds.InstanceNumber, ds.NumberOfFrames = 1, len(template.pixels)
    ds.LossyImageCompression, ds.PresentationLUTShape = "00", "IDENTITY"
    ds.AcquisitionContextSequence = Items()
    _add_mandatory(ds, template)
    frame_type = _add_frame_type(ds, old, kind)
    _add_dimensions(ds, template)
    ds.SharedFunctionalGroupsSequence = [_shared_groups(template, frame_type, kind)]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame_groups(template, index, kind) for index in range(len(template.pixels))
    ]
    _add_pixels(ds, template)
    return ds


def _own_uid(template: SeriesTemplate, *what: str) -> UID:
    return generate_uid(template.uids.prefix, [*what, template.uids.series])


def _add_mandatory(ds: Dataset, template: SeriesTemplate) -> None:
    """Values that may not be empty here, with named fallbacks."""
    block = ds.private_block(PRIVATE_GROUP, CREATOR)
    used = json.loads(block[0x11].value)
    ds.ContentDate = template.shared.get("ContentDate") or "19000101"
    ds.ContentTime = _values(template, 0x00080033)[0] or "000000"
    if not template.shared.get("ContentDate"):
        used["ContentDate"] = "the raw data has no date"
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"):
        if not ds.get(keyword):
            setattr(ds, keyword, "unknown")
            used[keyword] = "the raw data does not tell"
    ds.ContentQualification = "PRODUCT" if block[0x06].value == "YES" else "RESEARCH"
    ds.ApplicableSafetyStandardAgency = "IEC"
    used["ApplicableSafetyStandardAgency"] = "IEC assumed, the raw data does not tell"
    block[0x11].value = json.dumps(used, sort_keys=True, ensure_ascii=True)


def _copy(old: Dataset, new: Dataset, keywords: Sequence[str]) -> None:
    for keyword in keywords:
        if keyword in old:
            new[keyword] = old[keyword]


def _values(template: SeriesTemplate, tag: int) -> tuple[str, ...]:
    """What differs between frames at `tag`; empty strings where nothing does."""
    found = [slot.values for slot in template.slots if slot.tag == tag]
    return found[0] if found else ("",) * len(template.pixels)


def _add_frame_type(ds: Dataset, old: Dataset, kind: Format) -> Dataset:
    """MR Image Description macro at the top; returns its twin for the frames (PS3.3 C.8.13.3)."""
    gated = old.ScanOptions == "CG"
    component = {"P": "PHASE"}.get(old.ImageType[2], "MAGNITUDE")
    value3 = old.ImageType[2].replace("VELOCITY MAP", "VELOCITY").replace(" MAP", "_MAP")
    flavour = ("CARDIAC_GATED" if gated else "CARDIAC") if value3 in ("M", "P") else value3
    ds.ImageType = ["DERIVED", "PRIMARY", flavour, "NONE"]
    frame = Dataset()
    frame.FrameType = ds.ImageType
    for item in (ds, frame):
        item.PixelPresentation, item.VolumetricProperties = "MONOCHROME", "VOLUME"
        item.VolumeBasedCalculationTechnique = "NONE"
        if kind == "enhanced-mr":
            item.ComplexImageComponent, item.AcquisitionContrast = component, "UNKNOWN"
    return frame


def _add_dimensions(ds: Dataset, template: SeriesTemplate) -> None:
    """Frames of one place that follow each other in time."""
    organization = Dataset()
    organization.DimensionOrganizationUID = _own_uid(template, "dimension")
    ds.DimensionOrganizationSequence = [organization]
    ds.DimensionIndexSequence = []
    for keyword in _DIMENSIONS:
        index = Dataset()
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionIndexPointer = tag_for_keyword(keyword)
        index.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
        index.DimensionDescriptionLabel = keyword
        ds.DimensionIndexSequence.append(index)


def _shared_groups(template: SeriesTemplate, frame_type: Dataset, kind: Format) -> Dataset:
    old = template.shared
    groups = Dataset()
    groups.PixelMeasuresSequence = [_picked(old, "SliceThickness", "PixelSpacing")]
    groups.PlaneOrientationSequence = [_picked(old, "ImageOrientationPatient")]
    groups.PixelValueTransformationSequence = [
        _picked(old, "RescaleIntercept", "RescaleSlope", "RescaleType")
    ]
    groups.FrameVOILUTSequence = [_picked(old, "WindowCenter", "WindowWidth")]
    groups.MRImageFrameTypeSequence = [frame_type]
    _copy(old, groups, ["RealWorldValueMappingSequence"])
    anatomy = Dataset()
    value, meaning = _REGIONS.get(old.BodyPartExamined, _ANY_REGION)
    anatomy.AnatomicRegionSequence = [code(value, "SCT", meaning)]
    anatomy.FrameLaterality = "U"
    groups.FrameAnatomySequence = [anatomy]
    if kind == "legacy-enhanced-mr":
        known = {*_COMMON.split(), *_FUNCTIONAL.split()}
        rest = Dataset()
        for element in old:
            if element.keyword and element.keyword not in known:
                rest.add(element)
        groups.UnassignedSharedConvertedAttributesSequence = [rest]
    return groups


def _frame_groups(template: SeriesTemplate, index: int, kind: Format) -> Dataset:
    groups, content = Dataset(), Dataset()
    content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = "1", 1, index + 1
    content.DimensionIndexValues = [1, 1, index + 1]
    if inversion := _values(template, 0x00180082)[index] or template.shared.get("InversionTime"):
        # MR Modifier, its place in Enhanced MR, also demands what raw data does not tell.
        content.FrameComments = f"Inversion time {inversion} ms"
    date, clock = template.shared.get("AcquisitionDate"), _values(template, 0x00080032)[index]
    if date and clock:
        content.FrameAcquisitionDateTime = f"{date}{clock}"
    groups.FrameContentSequence = [content]
    # The same for all; yet readers take frames for slices where it is shared.
    groups.PlanePositionSequence = [_picked(template.shared, "ImagePositionPatient")]
    if kind == "legacy-enhanced-mr":
        _add_converted(groups, template, index)
    else:
        _add_enhanced(groups, template, index)
    return groups


def _add_converted(groups: Dataset, template: SeriesTemplate, index: int) -> None:
    """Where the frame comes from, and what has no place in the functional groups."""
    own = Dataset()
    for slot in template.slots:
        if slot.tag != 0x00080018:
            own.add_new(slot.tag, slot.vr, slot.values[index])
    groups.UnassignedPerFrameConvertedAttributesSequence = [own]
    source = Dataset()
    source.ReferencedSOPClassUID = template.shared.SOPClassUID
    source.ReferencedSOPInstanceUID = template.instance_uids[index]
    groups.ConversionSourceAttributesSequence = [source]


def _add_enhanced(groups: Dataset, template: SeriesTemplate, index: int) -> None:
    trigger, echo = _values(template, 0x00181060)[index], _values(template, 0x00180081)[index]
    if trigger:
        cardiac = Dataset()
        cardiac.NominalCardiacTriggerDelayTime = float(trigger)
        if interval := template.shared.get("NominalInterval"):
            cardiac.RRIntervalTimeNominal = float(interval)
        groups.CardiacSynchronizationSequence = [cardiac]
    if time := echo or template.shared.get("EchoTime"):
        item = Dataset()
        item.EffectiveEchoTime = float(time)
        groups.MREchoSequence = [item]


def _picked(old: Dataset, *keywords: str) -> Dataset:
    new = Dataset()
    _copy(old, new, keywords)
    return new


def _add_pixels(ds: Dataset, template: SeriesTemplate) -> None:
    syntax = UID(template.meta.TransferSyntaxUID)
    if syntax.is_compressed:
        ds.add_new(0x7FE00010, "OB", compressed_frames(template.pixels, syntax))
        ds["PixelData"].is_undefined_length = True
    else:
        ds.add_new(0x7FE00010, "OW", template.pixels.astype("<u2").tobytes())
    ds.file_meta = template.file_meta(0)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID


def encode_multiframe(template: SeriesTemplate, kind: Format) -> tuple[Dataset, EncodedInstance]:
    """`build_multiframe` and its file's bytes (PS3.10).

    Raises
    ------
    ConfigError, DicomError
        As for `build_multiframe`, and where a value cannot be encoded.
    """
    ds, stream = build_multiframe(template, kind), BytesIO()
    try:
        dcmwrite(stream, ds, enforce_file_format=True)
    except (ValueError, TypeError, NotImplementedError, UnicodeError, struct.error, OverflowError) as error:
        # NotImplementedError is pydicom's own, for value representations it cannot write.
        raise DicomError(f"the series cannot be encoded: {error}") from error
    return ds, EncodedInstance(sop_instance_uid=str(ds.SOPInstanceUID), pieces=(stream.getvalue(),))

from dataclasses import replace

import pytest
from dicom_samples import HEADER, MADE_BY
from pydicom.uid import UID

from recon_node.core.errors import DicomError
from recon_node.core.scan import PatientInfo, SliceIndex, StudyInfo
from recon_node.dicom import Provenance
from recon_node.dicom.uids import is_uid, series_uids

STUDY = HEADER.study
OTHER_WEIGHTS = replace(MADE_BY, weights_sha256="cd" * 32)


def uids(images, **options):
    provenance = options.pop("provenance", Provenance(made_by=images.made_by))
    return series_uids(images, provenance, options={"quantity": "magnitude"}, **options)


def test_same_values_give_the_same_valid_uids(make_images):
    first, second = uids(make_images()), uids(make_images())
    assert first == second
    for uid in (first.study, first.series, first.frame_of_reference, first.instance(0)):
        assert UID(uid).is_valid
        assert is_uid(uid)


def test_instances_of_a_series_differ_and_have_one_length(make_images):
    made = uids(make_images())
    instances = [made.instance(n) for n in range(300)]
    assert len(set(instances)) == 300
    assert {len(uid) for uid in instances} == {64}


@pytest.mark.parametrize(
    "change",
    [
        {"index": SliceIndex(slice=3)},
        {"index": SliceIndex(slice=2, set=1)},
        {"index": SliceIndex(slice=2, repetition=1)},
        {"made_by": OTHER_WEIGHTS},
        {"made_by": replace(MADE_BY, settings={"cascades": 5})},
        {"made_by": replace(MADE_BY, version="0.2.0")},
        {"acquisition_times_s": (1.0, 2.0, 3.0, 4.0, 5.0)},
        {"study": replace(STUDY, measurement_id="another")},
    ],
)
def test_what_makes_other_images_makes_another_series_in_the_same_study(make_images, change):
    one, other = uids(make_images()), uids(make_images(**change))
    assert one.study == other.study
    assert one.series != other.series
    assert one.instance(0) != other.instance(0)


def test_valid_uids_of_the_header_are_kept(make_images):
    study = replace(STUDY, study_instance_uid="1.3.12.2.1107.5", frame_of_reference_uid="1.2.3.4")
    made = uids(make_images(study=study))
    assert (made.study, made.frame_of_reference) == ("1.3.12.2.1107.5", "1.2.3.4")


@pytest.mark.parametrize("bad", ["XXXX.XX", "1.2.03", "45387_30797374", "1." * 40 + "1", "1", "", "1.2.3."])
def test_uids_of_the_header_that_are_none_are_replaced(make_images, bad):
    made = uids(make_images(study=replace(STUDY, study_instance_uid=bad, frame_of_reference_uid=bad)))
    assert made.study != bad
    assert UID(made.study).is_valid
    assert UID(made.frame_of_reference).is_valid


def test_series_of_one_visit_share_a_derived_study(make_images):
    visit = StudyInfo(study_date="2026-05-01", study_time="10:00:00", measurement_id="1")
    first = uids(make_images(study=visit))
    second = uids(make_images(study=replace(visit, measurement_id="2"), index=SliceIndex(slice=4)))
    assert first.study == second.study
    assert first.series != second.series


def test_scans_without_any_identifier_are_told_apart_by_their_source(make_images):
    nobody = {"study": StudyInfo(), "patient": PatientInfo()}
    images = make_images(**nobody, acquisition_times_s=None)
    one, other = (uids(images, provenance=Provenance(made_by=MADE_BY, source_id=name)) for name in "ab")
    assert one.study != other.study
    assert one.series != other.series


def test_prefix_of_a_site_is_used(make_images):
    made = uids(make_images(study=StudyInfo()), prefix="1.2.276.0.7230010.3.")
    assert made.study.startswith("1.2.276.0.7230010.3.")
    assert made.instance(0).startswith("1.2.276.0.7230010.3.")


@pytest.mark.parametrize("prefix", ["1.2.3", "x.", "", "1..2.", "1." * 30, "01.2."])
def test_prefix_that_is_no_uid_root_is_refused(make_images, prefix):
    with pytest.raises(DicomError, match="UID prefix"):
        uids(make_images(), prefix=prefix)

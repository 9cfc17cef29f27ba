from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_samples import HEADER, MADE_BY

from recon_node.core.scan import PatientInfo, StudyInfo
from recon_node.core.types import Verdict
from recon_node.dicom import Provenance, Site, read_provenance
from recon_node.dicom.sequence import sequence_kind
from recon_node.images import scale_series


@pytest.fixture
def read(write):
    """The data sets of a series written with the options given."""

    def run(images=None, **options):
        return [pydicom.dcmread(instance.path) for instance in write(images, **options)]

    return run


def test_times_and_numbers_follow_the_phases(read, make_images):
    images = make_images()
    read = read(images)
    assert [float(ds.TriggerTime) for ds in read] == list(images.trigger_times_ms)
    assert [ds.InstanceNumber for ds in read] == [1, 2, 3, 4, 5]
    assert [ds.AcquisitionTime for ds in read][:2] == ["102030.500000", "102030.540000"]
    first = read[0]
    assert (first.ScanOptions, first.CardiacNumberOfImages) == ("CG", 5)
    assert (first.NominalInterval, first.HeartRate) == (857, 70)
    assert (first.StudyDate, first.ContentDate, first.AcquisitionDate) == ("20260501",) * 3


def test_an_ungated_series_says_nothing_about_the_heart(read, make_images):
    ds = read(make_images(trigger_times_ms=None, rr_interval_ms=None))[0]
    assert not ds.ScanOptions
    for keyword in ("TriggerTime", "CardiacNumberOfImages", "NominalInterval", "HeartRate"):
        assert keyword not in ds


def test_sequence_parameters_have_the_units_of_the_standard(read):
    ds = read()[0]
    assert float(ds.ImagingFrequency) == 123.25
    assert float(ds.EchoTime) == 1.51
    assert float(ds.RepetitionTime) == 3.11
    assert float(ds.FlipAngle) == 50
    assert float(ds.MagneticFieldStrength) == 2.89362
    assert (ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType) == ("GR", "SS", "2D")
    assert list(ds.AcquisitionMatrix) == [0, 96, 40, 0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CV_tfi2d1 cine", ("GR", "SS")),
        ("fl2d1 t1 map", ("GR", "SP")),
        ("epi2d diffusion", ("EP", "NONE")),
        ("HASTE dark blood", ("SE", "SK")),
        ("something of a physicist", ("RM", "NONE")),
    ],
)
def test_scanning_sequence_is_read_from_the_names_and_research_mode_where_unknown(name, kind):
    assert sequence_kind(name) == kind


def test_header_without_anything_gets_named_fallbacks(read, make_images):
    bare = dict.fromkeys(("vendor", "model", "institution", "protocol", "sequence", "field_strength_t"))
    bare |= {
        "te_ms": (),
        "tr_ms": (),
        "flip_deg": (),
        "resonance_frequency_hz": None,
        "patient_position": None,
    }
    images = make_images(header=bare, patient=PatientInfo(), study=StudyInfo())
    ds = read(images, site=Site(manufacturer="Maker", institution="Clinic", patient_name="Unknown"))[0]
    assert (ds.Manufacturer, ds.InstitutionName, str(ds.PatientName)) == ("Maker", "Clinic", "Unknown")
    assert ds.PatientID.startswith("UNKNOWN-")
    assert ds.BodyPartExamined == "HEART"
    assert (ds.StudyDate, ds.PatientBirthDate, ds.AccessionNumber) == ("", "", "")
    fallbacks = read_provenance(ds)["fallbacks"]
    assert set(fallbacks) == {
        "PatientName",
        "PatientID",
        "Manufacturer",
        "BodyPartExamined",
        "ScanningSequence",
    }


def test_patients_without_identity_do_not_share_an_id(read, make_images, tmp_path):
    def patient_id(measurement: str, folder: str) -> str:
        images = make_images(patient=PatientInfo(), study=StudyInfo(measurement_id=measurement))
        return read(images, folder=tmp_path / folder)[0].PatientID

    assert patient_id("1", "a") != patient_id("2", "b")


@pytest.mark.parametrize("name", ["Muster^Erika", "Müller^Jürgen", "王^小東", "山田^太郎", "Łukasz^Żak"])
def test_names_of_any_script_survive(read, make_images, name):
    ds = read(make_images(patient=PatientInfo(name=name, patient_id="1")))[0]
    assert str(ds.PatientName) == name


def test_text_that_dicom_forbids_is_made_harmless(read, make_images):
    study = replace(
        HEADER.study, accession_number="12345678901234567890", study_description="a\\b\nc\x07d" * 30
    )
    ds = read(make_images(study=study, header={"protocol": "p\\" * 80, "station": "long station name here"}))[
        0
    ]
    assert len(ds.AccessionNumber) <= 16
    assert len(ds.StationName) <= 16
    assert len(ds.StudyDescription) <= 64
    assert isinstance(ds.ProtocolName, str)


@pytest.mark.parametrize("text", ["01.05.2026", "2026-13-45", ""])
def test_dates_that_are_none_are_left_empty(read, make_images, text):
    ds = read(make_images(study=replace(HEADER.study, study_date=text, series_date=None)))[0]
    assert ds.StudyDate == ""


@pytest.mark.parametrize("protocol", ["sax", "a very long protocol name " * 4])
def test_description_warns_while_weights_are_not_validated(read, make_images, protocol):
    ds = read(make_images(header={"protocol": protocol}))[0]
    assert ds.SeriesDescription.startswith("cardiomm")
    assert ds.SeriesDescription.endswith("NOT FOR CLINICAL USE")
    assert len(ds.SeriesDescription) <= 64
    assert "NOT FOR CLINICAL USE" in ds.ImageComments
    assert "NOT FOR CLINICAL USE" in ds.DerivationDescription


def test_validated_weights_drop_the_warning_and_only_then(read, provenance):
    ds = read(provenance=replace(provenance, validated=True))[0]
    for text in (ds.SeriesDescription, ds.ImageComments, ds.DerivationDescription):
        assert "CLINICAL" not in text


def test_every_instance_tells_how_it_was_made(read, provenance):
    for ds in read():
        facts = read_provenance(ds)
        assert facts["weights_sha256"] == MADE_BY.weights_sha256
        assert facts["metadata_prompt"] == str(provenance.prompts.metadata)
        assert facts["verdict"] == "warn"
        for text in (ds.ImageComments, ds.DerivationDescription):
            for fact in (MADE_BY.weights_sha256, "held-out lines fit badly", "random undersampling", "WARN"):
                assert fact in text
        equipment = ds.ContributingEquipmentSequence[0]
        assert equipment.Manufacturer == "recon-node"
        assert "0.1.0" in equipment.SoftwareVersions
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_provenance_of_another_writer_is_not_mistaken_for_ours():
    with pytest.raises(KeyError):
        read_provenance(pydicom.Dataset())


def test_learned_images_are_derived_and_linear_ones_original(read, make_images, tmp_path):
    assert read(folder=tmp_path / "a")[0].ImageType[0] == "DERIVED"
    linear = replace(MADE_BY, method="sense", weights=None, weights_sha256=None)
    ds = read(make_images(made_by=linear), folder=tmp_path / "b")[0]
    assert ds.ImageType[0] == "ORIGINAL"


def test_very_long_reasons_do_not_break_the_instance(read, provenance):
    verdict = Verdict(verdict="fallback", score=0.1, reasons=("because " * 3000,))
    ds = read(provenance=replace(provenance, verdict=verdict))[0]
    assert len(ds.DerivationDescription) <= 1024
    assert len(ds.ImageComments) <= 10240
    assert read_provenance(ds)["reasons"] == ["because " * 3000]
    assert "FALLBACK" in ds.SeriesDescription


def test_bare_provenance_is_enough(read):
    ds = read(provenance=Provenance(made_by=MADE_BY))[0]
    assert read_provenance(ds)["verdict"] is None


@pytest.mark.parametrize("quantity", ["magnitude", "phase"])
def test_rescaled_values_are_the_images(read, make_images, quantity):
    images = make_images()
    pixels = scale_series(images, quantity=quantity)
    truth = np.abs(images.data) if quantity == "magnitude" else np.angle(images.data)
    for phase, ds in enumerate(read(images, pixels=pixels)):
        real = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        assert np.abs(real - truth[phase]).max() <= 0.5001 * float(ds.RescaleSlope)
        assert ds.ImageType[2] == {"magnitude": "M", "phase": "P"}[quantity]


def test_phase_and_magnitude_are_two_series(write, make_images, tmp_path):
    images = make_images()
    series = {
        write(images, pixels=scale_series(images, quantity=q))[0].series_instance_uid
        for q in ("magnitude", "phase")
    }
    assert len(series) == 2


def test_series_number_is_the_slice_unless_given(read, tmp_path):
    assert read(folder=tmp_path / "a")[0].SeriesNumber == 1003
    assert read(folder=tmp_path / "b", series_number=77)[0].SeriesNumber == 77

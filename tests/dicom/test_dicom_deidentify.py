import builtins
import re
import subprocess
from dataclasses import replace

import pydicom
import pytest
from dicom_samples import HEADER

from recon_node.core.errors import ConfigError, DicomError
from recon_node.core.scan import PatientInfo
from recon_node.dicom import deidentify, read_provenance

KEY = b"a secret of the research office!"


@pytest.fixture
def instances(write):
    """Data sets of a series as written."""
    return [pydicom.dcmread(instance.path) for instance in write()]


def everything(ds) -> str:
    return str(ds.file_meta) + str(ds)


def test_nothing_that_identifies_is_left(instances):
    ds = instances[0]
    clean = everything(deidentify(ds, key=KEY))
    for secret in ("Muster", "Erika", "P-1", "19700131", "A123", "General Hospital", "20260501", "cine_sax"):
        assert secret in everything(ds)
        assert secret not in clean
    for uid in (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.FrameOfReferenceUID):
        assert uid not in clean


def test_pixels_geometry_timing_and_provenance_stay(instances):
    ds = instances[2]
    clean = deidentify(ds, key=KEY)
    assert clean.PixelData == ds.PixelData
    for keyword in ("ImagePositionPatient", "PixelSpacing", "TriggerTime", "EchoTime", "RescaleSlope"):
        assert clean[keyword].value == ds[keyword].value
    assert read_provenance(clean) == read_provenance(ds)
    assert clean.SeriesDescription == "cardiomm NOT FOR CLINICAL USE"


def test_the_given_data_set_is_not_touched(instances):
    before = everything(instances[0])
    deidentify(instances[0], key=KEY)
    assert everything(instances[0]) == before


def test_same_key_gives_the_same_pseudonym_and_uids_another_key_others(instances):
    one, again, other = (deidentify(instances[0], key=k) for k in (KEY, KEY, b"y" * 16))
    assert one == again
    for keyword in ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "StudyDate"):
        assert one[keyword].value != other[keyword].value


def test_a_series_stays_together(instances):
    clean = [deidentify(ds, key=KEY) for ds in instances]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({ds[keyword].value for ds in clean}) == 1
    assert len({ds.SOPInstanceUID for ds in clean}) == len(clean)
    assert all(ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID for ds in clean)


def test_dates_of_a_patient_move_together(write, make_images, tmp_path):
    def study_date(date: str):
        study = replace(HEADER.study, study_date=date, series_date=date)
        ds = pydicom.dcmread(write(make_images(study=study), folder=tmp_path / date)[0].path)
        text = deidentify(ds, key=KEY).StudyDate
        return pydicom.valuerep.DA(text)

    assert (study_date("2026-05-20") - study_date("2026-05-01")).days == 19
    assert study_date("2026-05-01").year < 2027


def test_sequences_of_other_writers_are_cleaned_too(instances):
    ds = instances[0]
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = ds.SOPClassUID
    item.ReferencedSOPInstanceUID = "1.2.3.4.5"
    item.PatientName = "Muster^Erika"
    ds.ReferencedImageSequence = [item]
    ds.private_block(0x0099, "SOMEBODY ELSE", create=True).add_new(1, "LO", "Erika")
    clean = deidentify(ds, key=KEY)
    assert "1.2.3.4.5" not in everything(clean)
    assert "Erika" not in everything(clean)


def test_what_would_still_name_the_patient_is_not_shared(instances):
    instances[0].SoftwareVersions = "for Muster"
    instances[0].add_new(0x00181020, "LO", "for Muster")
    with pytest.raises(DicomError, match="still holds the patient's name"):
        deidentify(instances[0], key=KEY)


@pytest.mark.parametrize(
    "name",
    ["Heart", "Sense^Short", "Random^Small", "Siemens^Erika", "Method^Axis", "Ding^Art", "Heart^Image^A"],
)
def test_a_patient_whose_name_is_a_word_of_the_trade_is_shared(write, make_images, tmp_path, name):
    patient = replace(HEADER.patient, name=name, patient_id="HEART")
    for instance in write(make_images(patient=patient), folder=tmp_path):
        clean = deidentify(pydicom.dcmread(instance.path), key=KEY)
        assert str(clean.PatientName).startswith("RN-")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Muster^Erika", "for Muster"),
        ("Muster^Erika", "repeat_of_MUSTER"),
        ("Muster^Erika", "erika-2"),
        ("Muster^Erika", "MusterErika03"),
        ("Müller^Jörg", "muller phantom"),
        ("Short^Ann", "Short moved"),
        ("Li^Ng Wei", "ask Wei"),
        ("Nobody^Else", "case 4711-A again"),
    ],
)
def test_a_name_that_somebody_typed_is_found(write, make_images, tmp_path, name, text):
    patient = replace(HEADER.patient, name=name, patient_id="4711-A")
    ds = pydicom.dcmread(write(make_images(patient=patient), folder=tmp_path)[0].path)
    ds.add_new(0x00181020, "LO", text)
    with pytest.raises(DicomError, match="still holds the patient's name"):
        deidentify(ds, key=KEY)


def test_two_names_of_the_patient_are_beside_each_other_are_no_coincidence(write, make_images, tmp_path):
    patient = replace(HEADER.patient, name="Heart^Cine")
    images = make_images(patient=patient, header={"model": "Heart Cine"})
    ds = pydicom.dcmread(write(images, folder=tmp_path)[0].path)
    with pytest.raises(DicomError, match="still holds the patient's name"):
        deidentify(ds, key=KEY)


def test_text_of_other_writers_is_never_taken_for_our_own(instances):
    ds = instances[0]
    ds.remove_private_tags()
    item = pydicom.Dataset()
    item.Manufacturer, item.SoftwareVersions = "recon-node", "for Muster"
    ds.ContributingEquipmentSequence = [item]
    with pytest.raises(DicomError, match="still holds the patient's name"):
        deidentify(ds, key=KEY)


def test_patients_without_an_id_are_told_apart_by_their_study(write, make_images, tmp_path):
    def pseudonym(uid: str) -> str:
        study = replace(HEADER.study, study_instance_uid=uid)
        images = make_images(study=study, patient=PatientInfo())
        ds = pydicom.dcmread(write(images, folder=tmp_path / uid)[0].path)
        return deidentify(ds, key=KEY).PatientID

    assert pseudonym("1.2.3.4") != pseudonym("1.2.3.5")


def test_foreign_instances_with_burnt_in_text_are_refused(instances):
    ds = instances[0]
    ds.remove_private_tags()
    ds.BurnedInAnnotation = "YES"
    with pytest.raises(DicomError, match="burnt into"):
        deidentify(ds, key=KEY)


def test_a_short_key_is_refused(instances):
    with pytest.raises(ConfigError, match="the key has 4 bytes"):
        deidentify(instances[0], key=b"1234")


def test_a_missing_package_is_one_clear_error(instances, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("dicomanonymizer"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install dicom-anonymizer"):
        deidentify(instances[0], key=KEY)


@pytest.mark.real
def test_deidentified_instances_pass_the_validators(instances, tool, tmp_path):
    paths = []
    for n, ds in enumerate(instances):
        paths.append(tmp_path / f"{n}.dcm")
        deidentify(ds, key=KEY).save_as(paths[-1], enforce_file_format=True)
    for program, files in (("dciodvfy", paths[:1]), ("dcentvfy", paths)):
        done = subprocess.run([tool(program), *files], check=False, capture_output=True, text=True)
        assert not re.search(r"\berror\b", done.stdout + done.stderr, re.IGNORECASE), done.stderr

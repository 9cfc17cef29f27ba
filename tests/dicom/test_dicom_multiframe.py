"""A series as one instance, through the validators and readers of others."""

import subprocess

import highdicom
import numpy as np
import pytest
from dicom_samples import GEOMETRIES
from pydicom import dcmread
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage
from test_dicom_gates import KINDS, errors_of
from test_dicom_geometry import nifti_affine

from recon_node.core.errors import ConfigError
from recon_node.core.scan import StudyInfo
from recon_node.dicom import deidentify, read_provenance
from recon_node.images import image_affine, scale_series, store

FORMS = {
    "enhanced-mr": EnhancedMRImageStorage,
    "legacy-enhanced-mr": LegacyConvertedEnhancedMRImageStorage,
}
pytestmark = pytest.mark.parametrize("form", FORMS)


@pytest.mark.real
@pytest.mark.parametrize("kind", KINDS)
def test_the_validators_find_no_errors(write, make_images, tool, kind, form):
    options = dict(KINDS[kind])
    [whole] = write(make_images(options.pop("shape", (5, 40, 48)), **options), form=form)
    assert errors_of(tool("dciodvfy"), whole.path) == []
    assert errors_of(tool("dcentvfy"), whole.path) == []


def test_frames_are_the_images_and_the_same_each_time(write, make_images, tmp_path, form):
    images = make_images()
    pixels = scale_series(images)
    [one] = write(images, pixels=pixels, form=form)
    [two] = write(images, pixels=pixels, form=form, folder=tmp_path / "again")
    assert one.path.read_bytes() == two.path.read_bytes()
    ds = dcmread(one.path)
    assert one.sop_class_uid == ds.SOPClassUID == FORMS[form]
    assert one.sop_instance_uid == ds.SOPInstanceUID
    assert (ds.pixel_array == pixels.data).all()
    assert read_provenance(ds)["verdict"] == "warn"
    assert "NOT FOR CLINICAL USE" in ds.SeriesDescription


def test_it_is_another_series_of_the_same_study(write, make_images, form):
    images = make_images()
    [whole] = write(images, form=form)
    classic = write(images)
    assert whole.study_instance_uid == classic[0].study_instance_uid
    assert whole.series_instance_uid != classic[0].series_instance_uid
    frames = dcmread(whole.path).PerFrameFunctionalGroupsSequence
    if form == "legacy-enhanced-mr":
        sources = [f.ConversionSourceAttributesSequence[0].ReferencedSOPInstanceUID for f in frames]
        assert sources == [instance.sop_instance_uid for instance in classic]
        times = [f.UnassignedPerFrameConvertedAttributesSequence[0].TriggerTime for f in frames]
    else:
        times = [f.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime for f in frames]
    assert [float(t) for t in times] == pytest.approx(images.trigger_times_ms)


@pytest.mark.parametrize("kind", ["rle", "jpeg-ls", "jpeg-2000"])
def test_compressed_frames_read_back_equal(write, make_images, form, kind):
    images = make_images()
    pixels = scale_series(images)
    [whole] = write(images, pixels=pixels, form=form, compression=kind)
    assert (dcmread(whole.path).pixel_array == pixels.data).all()


@pytest.mark.real
def test_velocity_keeps_its_unit_and_passes_the_validator(write, make_images, tool, form):
    images = make_images()
    values = np.angle(images.data)
    [whole] = write(images, pixels=store(values, "phase"), form=form)
    assert errors_of(tool("dciodvfy"), whole.path) == []
    shared = dcmread(whole.path).SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "rad"


@pytest.mark.real
@pytest.mark.parametrize(
    ("part", "region"), [(None, "Heart"), ("heart", "Heart"), ("Chest", "Chest"), ("KNEE", "Entire body")]
)
def test_the_anatomy_is_that_of_the_header(write, make_images, tool, form, part, region):
    [whole] = write(make_images(study=StudyInfo(measurement_id="1", body_part=part)), form=form)
    shared = dcmread(whole.path).SharedFunctionalGroupsSequence[0]
    assert shared.FrameAnatomySequence[0].AnatomicRegionSequence[0].CodeMeaning == region
    assert errors_of(tool("dciodvfy"), whole.path) == []


def test_highdicom_opens_it(write, form):
    [whole] = write(form=form)
    image = highdicom.imread(whole.path)
    assert image.number_of_frames == 5


@pytest.mark.real
@pytest.mark.parametrize("where", GEOMETRIES)
def test_dcm2niix_finds_the_geometry_of_the_raw_data(write, make_images, tool, tmp_path, form, where):
    images = make_images((1, 40, 48), where=where)  # it takes several frames of one place for slices
    [whole] = write(images, form=form)
    command = [tool("dcm2niix"), "-b", "n", "-z", "n", "-f", "out", "-o", tmp_path, whole.path.parent]
    subprocess.run(command, check=True, capture_output=True)
    found = nifti_affine(next(tmp_path.glob("out*.nii")).read_bytes())
    wanted = np.diag([-1, -1, 1, 1]) @ image_affine(images.geometry, (40, 48))
    corners = np.array([[0, 0, 0, 1], [47, 0, 0, 1], [0, 39, 0, 1]]).T
    flipped = np.array([[0, 39, 0, 1], [47, 39, 0, 1], [0, 0, 0, 1]]).T
    assert found @ flipped == pytest.approx(wanted @ corners, abs=0.01)


def test_a_mark_that_the_sop_class_does_not_hold_is_refused(write, tool, form):
    with pytest.raises(ConfigError, match="mark overlay does not exist"):
        write(form=form, mark="overlay")
    if form == "enhanced-mr":
        with pytest.raises(ConfigError, match="mark burn does not exist"):
            write(form=form, mark="burn")
    else:
        [whole] = write(form=form, mark="burn")
        assert errors_of(tool("dciodvfy"), whole.path) == []


@pytest.mark.real
def test_it_can_be_deidentified(write, tool, tmp_path, form):
    [whole] = write(form=form)
    clean = deidentify(dcmread(whole.path), key=b"0123456789abcdef")
    assert "Muster" not in str(clean)
    clean.save_as(tmp_path / "clean.dcm")
    assert errors_of(tool("dciodvfy"), tmp_path / "clean.dcm") == []


@pytest.mark.real
def test_a_study_of_both_forms_is_consistent(write, make_images, tool, form):
    images = make_images()
    written = [*write(images), *write(images, form=form)]
    assert errors_of(tool("dcentvfy"), *(instance.path for instance in written)) == []

import io
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from recon_node.core.errors import DicomError
from recon_node.core.scan import PatientInfo
from recon_node.dicom import build_series, encode_series
from recon_node.images import scale_series


@pytest.mark.parametrize("name", ["Muster^Erika", "Müller^Jürgen", "王^小東", "山田^太郎=やまだ^たろう"])
@pytest.mark.parametrize("shape", [(3, 40, 48), (1, 7, 9)])
def test_template_gives_the_bytes_that_pydicom_writes(make_images, provenance, name, shape):
    images = make_images(shape, patient=PatientInfo(name=name, patient_id="7"))
    template = build_series(images, pixels=scale_series(images), provenance=provenance)
    for phase, instance in enumerate(encode_series(template)):
        reference = io.BytesIO()
        pydicom.dcmwrite(reference, template.dataset(phase), enforce_file_format=True)
        assert bytes(instance) == reference.getvalue()


def test_template_without_triggers_gives_the_bytes_that_pydicom_writes(make_images, provenance):
    images = make_images(trigger_times_ms=None, acquisition_times_s=None, rr_interval_ms=None)
    template = build_series(images, pixels=scale_series(images), provenance=provenance)
    reference = io.BytesIO()
    pydicom.dcmwrite(reference, template.dataset(4), enforce_file_format=True)
    assert bytes(list(encode_series(template))[4]) == reference.getvalue()


def test_value_that_cannot_be_encoded_is_one_dicom_error(make_images, provenance):
    images = make_images()
    template = build_series(images, pixels=scale_series(images), provenance=provenance)
    template.shared.add_new(0x00181318, "DS", "0")
    template.shared[0x00181318].VR = "XX"
    with pytest.raises(DicomError, match="cannot be encoded"):
        list(encode_series(template))


def test_pixels_of_a_wrong_type_or_shape_are_refused(make_images, provenance):
    images = make_images()
    pixels = scale_series(make_images((5, 40, 47)))
    with pytest.raises(DicomError, match=r"expected uint16 \(5, 40, 48\)"):
        build_series(images, pixels=pixels, provenance=provenance)


def test_provenance_of_another_method_is_refused(make_images, provenance):
    images = make_images()
    other = replace(provenance, made_by=replace(provenance.made_by, method="sense"))
    with pytest.raises(DicomError, match="provenance says sense"):
        build_series(images, pixels=scale_series(images), provenance=other)


def test_times_that_do_not_match_the_images_are_refused(make_images, provenance):
    images = make_images(trigger_times_ms=(1.0, 2.0))
    with pytest.raises(DicomError, match="trigger_times_ms has 2 entries for 5 images"):
        build_series(images, pixels=scale_series(images), provenance=provenance)


def test_empty_series_is_refused(make_images, provenance):
    images = make_images()
    pixels = scale_series(images)
    empty = make_images(data=np.zeros((0, 40, 48), np.complex64), trigger_times_ms=(), acquisition_times_s=())
    with pytest.raises(DicomError, match="nothing to write"):
        build_series(empty, pixels=pixels, provenance=provenance)

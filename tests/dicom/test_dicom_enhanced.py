import builtins
import re
import subprocess

import numpy as np
import pydicom
import pytest

from recon_node.core.errors import ConfigError, DicomError
from recon_node.dicom import legacy_enhanced, write_legacy_enhanced
from recon_node.images import scale_series

pytest.importorskip("highdicom")


def test_frames_of_the_multi_frame_object_are_the_images(write, make_images, tmp_path):
    images = make_images(where="double-oblique")
    pixels = scale_series(images)
    single = write(images, pixels=pixels)
    done = write_legacy_enhanced(single, tmp_path / "multi", fsync=True)
    ds = pydicom.dcmread(done.path)
    np.testing.assert_array_equal(ds.pixel_array, pixels.data)
    assert ds.SOPClassUID == done.sop_class_uid == pydicom.uid.LegacyConvertedEnhancedMRImageStorage
    assert ds.StudyInstanceUID == single[0].study_instance_uid
    assert ds.SeriesInstanceUID != single[0].series_instance_uid
    plane = pydicom.dcmread(single[0].path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    frame = ds.PerFrameFunctionalGroupsSequence[0]
    for keyword, group in (
        ("ImagePositionPatient", "PlanePositionSequence"),
        ("ImageOrientationPatient", "PlaneOrientationSequence"),
        ("PixelSpacing", "PixelMeasuresSequence"),
    ):
        (item,) = (part[group].value[0] for part in (shared, frame) if group in part)
        assert item[keyword].value == plane[keyword].value
    assert ds.SeriesDescription.endswith("NOT FOR CLINICAL USE")


def test_same_series_gives_the_same_bytes(write, tmp_path):
    single = write()
    first, second = (write_legacy_enhanced(single, tmp_path / name).path.read_bytes() for name in "ab")
    assert first == second


def test_a_series_that_is_gone_is_one_clear_error(write, tmp_path):
    single = write()
    single[1].path.unlink()
    with pytest.raises(DicomError, match=r"cannot read 0002\.dcm"):
        write_legacy_enhanced(single, tmp_path / "multi")
    assert not (tmp_path / "multi").exists()


def test_images_of_two_series_are_refused(write, make_images, tmp_path):
    mixed = [
        pydicom.dcmread(write(make_images(header={"protocol": name}), folder=tmp_path / name)[0].path)
        for name in ("one", "two")
    ]
    mixed[1].SeriesInstanceUID = "1.2.3"
    with pytest.raises(DicomError, match="cannot be made multi-frame"):
        legacy_enhanced(mixed)
    with pytest.raises(DicomError, match="no instances"):
        legacy_enhanced([])


def test_a_missing_package_is_one_clear_error(write, monkeypatch, tmp_path):
    single = write()
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("highdicom"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install highdicom"):
        write_legacy_enhanced(single, tmp_path)


@pytest.mark.real
@pytest.mark.parametrize("where", ["axial", "double-oblique"])
def test_multi_frame_objects_pass_the_validators(write, make_images, tool, tmp_path, where):
    single = write(make_images(where=where))
    path = write_legacy_enhanced(single, tmp_path / "multi").path
    for program, files in (("dciodvfy", [path]), ("dcentvfy", [path, *(one.path for one in single)])):
        done = subprocess.run([tool(program), *files], check=False, capture_output=True, text=True)
        assert not re.search(r"\berror\b", done.stdout + done.stderr, re.IGNORECASE), done.stderr

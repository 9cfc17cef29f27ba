import errno
import os

import numpy as np
import pydicom
import pytest

from recon_node.core import durable
from recon_node.core.errors import DicomError
from recon_node.images import scale_series


def test_written_series_reads_back_with_its_pixels(write, make_images):
    images = make_images()
    pixels = scale_series(images)
    written = write(images, pixels=pixels)
    read = [pydicom.dcmread(instance.path) for instance in written]
    np.testing.assert_array_equal([ds.pixel_array for ds in read], pixels.data)
    for ds, instance in zip(read, written, strict=True):
        assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == instance.sop_instance_uid
        assert ds.SeriesInstanceUID == instance.series_instance_uid
        assert ds.StudyInstanceUID == instance.study_instance_uid
        assert ds.SOPClassUID == instance.sop_class_uid
        assert ds.file_meta.TransferSyntaxUID == instance.transfer_syntax_uid
        assert ds.InstanceNumber == instance.instance_number


def test_files_lie_in_a_folder_by_study_and_series(write, tmp_path):
    written = write(folder=tmp_path / "new" / "folder")
    first = written[0]
    expected = tmp_path / "new/folder" / first.study_instance_uid / first.series_instance_uid / "0001.dcm"
    assert first.path == expected
    assert sorted(expected.parent.iterdir()) == [instance.path for instance in written]


@pytest.mark.parametrize("fsync", [False, True])
def test_same_values_give_the_same_bytes_in_another_folder_and_in_the_same(write, tmp_path, fsync):
    first = [instance.path.read_bytes() for instance in write(folder=tmp_path / "a", fsync=fsync)]
    second = [instance.path.read_bytes() for instance in write(folder=tmp_path / "b")]
    again = [instance.path.read_bytes() for instance in write(folder=tmp_path / "a", fsync=fsync)]
    assert first == second == again
    assert len(list((tmp_path / "a").rglob("*.dcm"))) == len(first)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_when_writing_fails_half_way(write, tmp_path, monkeypatch, failure):
    real, calls = os.writev, []

    def failing(handle, pieces):
        calls.append(handle)
        if len(calls) == 3:
            raise failure
        return real(handle, pieces)

    monkeypatch.setattr(os, "writev", failing)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else DicomError
    with pytest.raises(expected, match="No space left" if expected is DicomError else None):
        write(folder=tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    assert not list((tmp_path / "out").rglob(".writing-*"))


def test_a_failed_replay_leaves_the_older_files_whole(write, tmp_path, monkeypatch):
    written = write(folder=tmp_path)
    before = [instance.path.read_bytes() for instance in written]
    monkeypatch.setattr(os, "writev", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken disk")))
    with pytest.raises(DicomError, match="broken disk"):
        write(folder=tmp_path)
    assert [instance.path.read_bytes() for instance in written] == before


def test_short_writes_of_the_kernel_are_continued(write, tmp_path, monkeypatch):
    whole = [instance.path.read_bytes() for instance in write(folder=tmp_path / "a")]
    monkeypatch.setattr(os, "writev", lambda handle, pieces: os.write(handle, b"".join(pieces)[:1001]))
    monkeypatch.setattr(durable, "MAX_WRITE", 700)
    assert [instance.path.read_bytes() for instance in write(folder=tmp_path / "b")] == whole


def test_a_file_where_the_folder_should_be_is_one_clear_error(write, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(DicomError, match="cannot write DICOM files to"):
        write(folder=tmp_path / "out")

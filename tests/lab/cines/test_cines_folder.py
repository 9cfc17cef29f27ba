"""Cines of a folder: what is read, and one clear line for what is none."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.lab.cines import fingerprint, read_cines

FRAMES, NY, NX = 6, 40, 48


def beating(seed: int = 0) -> np.ndarray:
    """`(phase, y, x)` uint16 magnitudes of a disc that beats in noise, as archives keep them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:NY, :NX]
    radius = 8 + 2 * np.cos(2 * np.pi * np.arange(FRAMES) / FRAMES)[:, None, None]
    disc = 800.0 * (np.hypot(y - NY / 2, x - NX / 2) < radius) + 200
    noise = rng.normal(0, 20, (2, *disc.shape))
    return np.hypot(disc + noise[0], noise[1]).astype(np.uint16)


def zero_filled(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """What a scanner's interpolation makes of images."""
    full = np.zeros((len(images), *shape), complex)
    y, x = (n // 2 - m // 2 for n, m in zip(shape, images.shape[1:], strict=True))
    full[:, y : y + images.shape[1], x : x + images.shape[2]] = centred_fft(images.astype(np.complex64))
    gain = np.sqrt(np.prod(shape) / np.prod(images.shape[1:]))
    return np.abs(centred_ifft(full) * gain)


def dicom(pixels: np.ndarray, series: str, number: int, **values: object) -> Dataset:
    head = Dataset()
    head.file_meta = FileMetaDataset()
    head.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    head.file_meta.MediaStorageSOPClassUID = head.SOPClassUID = MRImageStorage
    head.file_meta.MediaStorageSOPInstanceUID = head.SOPInstanceUID = generate_uid()
    head.SeriesInstanceUID, head.InstanceNumber, head.Modality = series, number, "MR"
    head.PatientName, head.Manufacturer, head.MagneticFieldStrength = "Secret^Name", "SIEMENS", 1.494
    head.PixelSpacing, head.PhotometricInterpretation, head.SamplesPerPixel = [1.5, 1.25], "MONOCHROME2", 1
    head.ImagePositionPatient, head.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    head.BitsAllocated, head.BitsStored, head.HighBit, head.PixelRepresentation = 16, 16, 15, 0
    head.Rows, head.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        head.NumberOfFrames = len(pixels)
    head.PixelData = pixels.astype("<u2").tobytes()
    for key, value in values.items():
        if value is None:
            delattr(head, key)
        else:
            setattr(head, key, value)
    return head


def save(head: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, head, enforce_file_format=True)


def series(folder: Path, images: np.ndarray, **values: object) -> None:
    uid = generate_uid()
    for number, frame in enumerate(images):
        head = dicom(frame, uid, len(images) - number, TriggerTime=float(40 * number), **values)
        save(head, folder / f"{len(images) - number}.dcm")


def test_an_npz_clip_comes_with_its_pixel_size_trigger_times_and_field(tmp_path: Path) -> None:
    times = np.arange(FRAMES) * 30.0
    np.savez(tmp_path / "a.npz", cine=beating(), pixel_mm=[1.4, 1.8], trigger_ms=times, field_t=3.0)
    (cine,) = read_cines(tmp_path)
    assert (cine.name, cine.pixel_mm, cine.field_t) == ("a", (1.4, 1.8), 3.0)
    assert cine.trigger_times_ms == tuple(times)
    np.testing.assert_array_equal(cine.images, beating())


def test_a_dicom_series_is_sorted_by_trigger_time_and_named_after_its_folder(tmp_path: Path) -> None:
    series(tmp_path / "sax", beating())
    (cine,) = read_cines(tmp_path)
    np.testing.assert_array_equal(cine.images, beating())
    assert (cine.name, cine.vendor, cine.field_t, cine.pixel_mm) == ("sax", "Siemens", 1.5, (1.5, 1.25))


def test_a_series_of_several_slices_becomes_one_clip_for_each(tmp_path: Path) -> None:
    uid = generate_uid()
    for place in range(2):
        for number, frame in enumerate(beating(place)):
            where = [0, 0, 8.0 * place]
            save(
                dicom(frame, uid, 10 * place + number, ImagePositionPatient=where),
                tmp_path / "stack" / f"{place}_{number}.dcm",
            )
    found = read_cines(tmp_path)
    assert [cine.name for cine in found] == ["stack_slice01", "stack_slice02"]
    for place, cine in enumerate(found):
        np.testing.assert_array_equal(cine.images, beating(place))


def test_a_multi_frame_object_is_a_clip(tmp_path: Path) -> None:
    save(dicom(beating(), generate_uid(), 1), tmp_path / "multi" / "one.dcm")
    (cine,) = read_cines(tmp_path)
    np.testing.assert_array_equal(cine.images, beating())


def test_nifti_slices_over_time_are_clips(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    data = np.stack([beating(0), beating(1)]).transpose(3, 2, 0, 1).astype(np.int16)
    image = nibabel.Nifti1Image(data, np.diag([1.25, 1.5, 8, 1]))
    nibabel.save(image, tmp_path / "scan_4d.nii.gz")
    found = read_cines(tmp_path)
    assert [cine.name for cine in found] == ["scan_4d_slice01", "scan_4d_slice02"]
    np.testing.assert_array_equal(found[1].images, beating(1))
    assert found[0].pixel_mm == (1.5, 1.25)


@pytest.mark.parametrize("shape", [(80, 96), (64, 48), (40, 72)])
def test_zero_filling_is_found_and_taken_out(tmp_path: Path, shape: tuple[int, int]) -> None:
    grown = zero_filled(beating(), shape)
    series(tmp_path / "grown", np.round(grown), PixelSpacing=[1.0, 1.0])
    (cine,) = read_cines(tmp_path)
    assert all(abs(a - b) <= 2 for a, b in zip(cine.images.shape[1:], (NY, NX), strict=True))
    field = [n * step for n, step in zip(cine.images.shape[1:], cine.pixel_mm, strict=True)]
    assert field == pytest.approx(shape)


def test_the_acquisition_matrix_of_the_header_goes_before_what_the_spectrum_shows(tmp_path: Path) -> None:
    series(tmp_path / "said", beating(), AcquisitionMatrix=[0, 48, 32, 0])
    (cine,) = read_cines(tmp_path)
    assert cine.images.shape == (FRAMES, 32, 48)
    assert cine.images.mean() == pytest.approx(beating().mean(), rel=0.02)


def _damaged_value(folder: Path) -> None:
    """A position that is no number; no writer would."""
    series(folder, beating(), ImagePositionPatient=[0, 0, 1.25])
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.25", b"1.T5"))


def _mixed(folder: Path) -> None:
    uid = generate_uid()
    save(dicom(beating()[0], uid, 1), folder / "1.dcm")
    save(dicom(beating()[0, :32], uid, 2), folder / "2.dcm")


BAD = {
    "one frame": lambda f: series(f, beating()[:1]),
    "colour": lambda f: series(f, beating(), PhotometricInterpretation="RGB"),
    "burned": lambda f: series(f, beating(), BurnedInAnnotation="YES"),
    "pixel size": lambda f: series(f, beating(), PixelSpacing=None),
    "segmentation": lambda f: series(f, beating(), Modality="SEG"),
    "mixed sizes": _mixed,
    "a value cannot be read": _damaged_value,
}


@pytest.mark.parametrize("what", BAD)
def test_each_bad_series_is_one_clear_line_and_the_others_are_read(tmp_path: Path, what: str) -> None:
    BAD[what](tmp_path / "bad")
    np.savez(tmp_path / "good.npz", cine=beating(), pixel_mm=[1.4, 1.8])
    lines: list[str] = []
    assert [cine.name for cine in read_cines(tmp_path, tell=lines.append)] == ["good"]
    (line,) = lines
    assert what in line
    assert line.startswith("bad")
    assert "\n" not in line
    assert len(line) <= 300
    assert "Secret" not in line


@pytest.mark.parametrize("what", BAD)
def test_a_folder_of_nothing_but_bad_series_says_what_is_wrong(tmp_path: Path, what: str) -> None:
    BAD[what](tmp_path / "bad")
    with pytest.raises(DataError, match=what):
        read_cines(tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cine": beating()[0]}, "expected numbers"),
        ({"cine": beating()[..., None].repeat(3, -1)}, "colour"),
        ({"cine": beating()[:1]}, "one frame"),
        ({"images": beating()}, "no array `cine`"),
        ({"cine": beating() * np.float32("nan")}, "finite"),
        ({"cine": beating() * np.float32(1e30)}, "the brightest pixel is"),
    ],
)
def test_an_npz_file_that_is_no_cine_says_why(
    tmp_path: Path, values: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / "bad.npz", pixel_mm=[1.4, 1.8], **values)
    with pytest.raises(DataError, match=said):
        read_cines(tmp_path)


def test_nifti_segmentations_and_single_frames_are_told_apart_from_cines(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    labels = (beating() > 500).transpose(2, 1, 0)[:, :, None].astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "gt.nii")
    still = beating().transpose(2, 1, 0).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(still, np.eye(4)), tmp_path / "still.nii")
    lines: list[str] = []
    with pytest.raises(DataError):
        read_cines(tmp_path, tell=lines.append)
    assert "segmentation" in lines[0]
    assert "one frame" in lines[1]


def test_clips_are_chosen_by_parts_of_their_names_or_patterns(tmp_path: Path) -> None:
    for number, name in enumerate(("site_A1", "site_A2", "site_B1")):
        np.savez(tmp_path / f"{name}.npz", cine=beating(number), pixel_mm=[1.4, 1.8])
    assert [c.name for c in read_cines(tmp_path, leave_out=["_B"])] == ["site_A1", "site_A2"]
    assert [c.name for c in read_cines(tmp_path, only=["*1"], leave_out=["_B"])] == ["site_A1"]
    with pytest.raises(DataError, match="left out by name"):
        read_cines(tmp_path, leave_out=["site"])


def test_the_fingerprint_is_of_the_images_and_not_of_their_name(tmp_path: Path) -> None:
    for number, name in ((0, "a"), (0, "b"), (1, "c")):
        np.savez(tmp_path / f"{name}.npz", cine=beating(number), pixel_mm=[1.4, 1.8])
    a, b, c = map(fingerprint, read_cines(tmp_path))
    assert a == b != c


def _claiming(path: Path, shape: tuple[int, ...]) -> None:
    """An array that claims a shape and holds nothing."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("cine.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())


def _not_finite(path: Path) -> None:
    np.savez(path, cine=np.full((4, 32, 32), np.nan), pixel_mm=[1.5, 1.5])


def _huge_nifti(path: Path) -> None:
    head = bytearray(4096)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<5h", head, 40, 4, 32767, 32767, 100, 100)
    struct.pack_into("<hh", head, 70, 4, 16)
    struct.pack_into("<4f", head, 80, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    path.write_bytes(bytes(head))


def _locked(path: Path) -> None:
    """Its arrays are encrypted, as the archive has it."""
    np.savez(path, cine=beating(), pixel_mm=[1.5, 1.5])
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(mark, at + 1)
    path.write_bytes(bytes(data))


def _unknown_kind(path: Path) -> None:
    _huge_nifti(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<hh", data, 70, 4096, 16)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "write", "word"),
    [
        ("a.npz", lambda path: _claiming(path, (100_000, 100_000, 1000)), "expected at most"),
        ("a.npz", lambda path: _claiming(path, (2, 0, 8)), "no empty axis"),
        ("a.npz", _not_finite, "no finite numbers"),
        ("a.npz", _locked, "cannot be read .RuntimeError"),
        ("a.nii", _huge_nifti, "expected at most"),
        ("a.nii", _unknown_kind, "cannot be read .HeaderDataError"),
    ],
    ids=["huge", "empty", "not finite", "encrypted", "huge NIfTI", "unknown kind"],
)
def test_a_file_that_claims_more_than_there_is_is_refused_unread(name, write, word, tmp_path: Path) -> None:
    if name.endswith(".nii"):
        pytest.importorskip("nibabel")
    write(tmp_path / name)
    with pytest.raises(DataError, match=word):
        read_cines(tmp_path)

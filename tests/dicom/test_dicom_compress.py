import io
import re
import subprocess

import numpy as np
import pydicom
import pytest

import recon_node.dicom.compress as compress
from recon_node.core.errors import ConfigError, DicomError
from recon_node.dicom import build_series, encode_series
from recon_node.images import scale_series

KINDS = {
    "rle": "1.2.840.10008.1.2.5",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg-2000": "1.2.840.10008.1.2.4.90",
}
NEEDS = {"jpeg-ls": "jpeg_ls", "jpeg-2000": "openjpeg"}


@pytest.fixture(params=KINDS)
def kind(request):
    """Each compression whose package is installed."""
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return request.param


@pytest.mark.parametrize("shape", [(3, 40, 48), (2, 41, 47)])
def test_compressed_pixels_read_back_equal(write, make_images, kind, shape):
    images = make_images(shape)
    pixels = scale_series(images)
    written = write(images, pixels=pixels, compression=kind)
    read = [pydicom.dcmread(instance.path) for instance in written]
    assert {str(ds.file_meta.TransferSyntaxUID) for ds in read} == {KINDS[kind]}
    np.testing.assert_array_equal([ds.pixel_array for ds in read], pixels.data)
    plain = write(images, pixels=pixels)
    assert [a.sop_instance_uid for a in written] == [b.sop_instance_uid for b in plain]


def test_compressed_template_gives_the_bytes_that_pydicom_writes(make_images, provenance, kind):
    images = make_images((2, 40, 48))
    template = build_series(images, pixels=scale_series(images), provenance=provenance, compression=kind)
    for phase, instance in enumerate(encode_series(template)):
        reference = io.BytesIO()
        pydicom.dcmwrite(reference, template.dataset(phase), enforce_file_format=True)
        assert bytes(instance) == reference.getvalue()


def test_an_unknown_compression_is_refused(write):
    with pytest.raises(ConfigError, match="expected one of none, rle"):
        write(compression="zip")


def test_a_missing_encoder_says_what_to_install(write, monkeypatch):
    class Missing:
        is_available = False

    monkeypatch.setattr(compress, "get_encoder", lambda _: Missing())
    with pytest.raises(ConfigError, match="pip install pylibjpeg"):
        write(compression="jpeg-2000")


def test_an_encoder_that_fails_leaves_nothing_behind(write, tmp_path, monkeypatch):
    class Broken:
        is_available = True

        def encode(self, *_, **__):
            raise RuntimeError("out of luck")

    monkeypatch.setattr(compress, "get_encoder", lambda _: Broken())
    with pytest.raises(DicomError, match="out of luck"):
        write(compression="rle", folder=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.dcm"))


@pytest.mark.real
def test_compressed_instances_pass_dciodvfy(write, tool, kind):
    path = write(compression=kind)[0].path
    done = subprocess.run([tool("dciodvfy"), path], check=False, capture_output=True, text=True)
    assert not re.search(r"\berror\b", done.stderr, re.IGNORECASE), done.stderr


@pytest.mark.real
def test_dcmtk_decodes_run_lengths_to_the_same_pixels(write, make_images, tool, tmp_path):
    images = make_images()
    pixels = scale_series(images)
    path = write(images, pixels=pixels, compression="rle")[1].path
    subprocess.run([tool("dcmdrle"), path, tmp_path / "plain.dcm"], check=True)
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "plain.dcm").pixel_array, pixels.data[1])

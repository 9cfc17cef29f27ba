"""Every kind of output through the validators and readers of others."""

import re
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_samples import GEOMETRIES, HEADER, MADE_BY

from recon_node.core.scan import PatientInfo, SliceIndex, StudyInfo
from recon_node.images import scale_series

pytestmark = pytest.mark.real

BARE = {
    "header": {
        "vendor": None, "model": None, "institution": None, "protocol": None, "sequence": None,
        "field_strength_t": None, "resonance_frequency_hz": None, "te_ms": (), "tr_ms": (), "flip_deg": (),
        "patient_position": None,
    },
    "patient": PatientInfo(),
    "study": StudyInfo(),
}  # fmt: skip

KINDS = {
    **{where: {"where": where} for where in GEOMETRIES},
    "bare header": BARE,
    "ungated": {"trigger_times_ms": None, "rr_interval_ms": None, "acquisition_times_s": None},
    "chinese name": {"patient": PatientInfo(name="王^小東", patient_id="1")},
    "latin name": {"patient": PatientInfo(name="Müller^Jürgen", patient_id="1")},
    "inversion recovery": {"header": {"ti_ms": (120.0,), "sequence": "fl2d"}},
    "unknown sequence": {"header": {"sequence": "x", "protocol": "y"}},
    "three dimensions": {"header": {"encoded_matrix": (96, 40, 12)}},
    "single image": {"shape": (1, 40, 48)},
    "linear method": {"made_by": replace(MADE_BY, method="sense", weights=None, weights_sha256=None)},
    "all zero": {"data": np.zeros((5, 40, 48), np.complex64)},
}


def errors_of(program: str, *files) -> list[str]:
    """Lines with an error, whatever the exit code says."""
    done = subprocess.run(
        [program, *files], check=False, capture_output=True, text=True, errors="replace", timeout=60
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_and_dcentvfy_find_no_errors(write, make_images, tool, kind):
    options = dict(KINDS[kind])
    paths = [instance.path for instance in write(make_images(options.pop("shape", (5, 40, 48)), **options))]
    for path in (paths[0], paths[-1]):
        assert errors_of(tool("dciodvfy"), path) == []
    assert errors_of(tool("dcentvfy"), *paths) == []


def test_phase_images_pass_dciodvfy(write, make_images, tool):
    images = make_images()
    written = write(images, pixels=scale_series(images, quantity="phase"))
    assert errors_of(tool("dciodvfy"), written[0].path) == []


def test_dciodvfy_would_say_so_if_something_were_wrong(write, tool, tmp_path):
    ds = pydicom.dcmread(write()[0].path)
    del ds.PixelSpacing
    ds.save_as(tmp_path / "broken.dcm")
    assert errors_of(tool("dciodvfy"), tmp_path / "broken.dcm")


def test_slices_and_methods_of_a_study_are_consistent(write, make_images, tool, tmp_path):
    linear = replace(MADE_BY, method="sense", weights=None, weights_sha256=None)
    series = [
        write(make_images(index=SliceIndex(slice=n), made_by=made_by), folder=tmp_path)
        for n in range(2)
        for made_by in (MADE_BY, linear)
    ]
    assert len({instances[0].series_instance_uid for instances in series}) == 4
    paths = [instance.path for instances in series for instance in instances]
    assert errors_of(tool("dcentvfy"), *paths) == []


def test_dcmtk_reads_tags_and_pixels(write, make_images, tool, tmp_path):
    images = make_images((1, 40, 48), header={"patient": replace(HEADER.patient, name="Müller^Jürgen")})
    pixels = scale_series(images)
    path = write(images, pixels=pixels)[0].path
    dump = subprocess.run([tool("dcmdump"), "+U8", path], check=True, capture_output=True, text=True).stdout
    assert "Müller^Jürgen" in dump
    picture = tmp_path / "picture.pgm"
    command = [tool("dcmj2pnm"), "--write-16-bit-pnm", "--no-modality", "--set-window", "32768", "65536"]
    subprocess.run([*command, path, picture], check=True, capture_output=True)
    kind, columns, rows, _, *values = picture.read_text().split()
    assert (kind, columns, rows) == ("P2", "48", "40")
    shown = np.array(values, int).reshape(40, 48)
    assert np.abs(shown - pixels.data[0].astype(int)).max() <= 2

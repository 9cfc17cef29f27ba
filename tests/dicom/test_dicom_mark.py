import re
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from recon_node.core.types import Verdict
from recon_node.dicom import deidentify
from recon_node.dicom.mark import text_mask
from recon_node.images import scale_series

SHAPE = (2, 64, 160)


@pytest.fixture
def read(write, make_images, tmp_path):
    """First data set of a series with a mark."""

    def run(mark, **options):
        images = make_images(SHAPE)
        folder = tmp_path / f"{mark}-{len(options)}"
        return pydicom.dcmread(write(images, folder=folder, mark=mark, **options)[0].path)

    return run


@pytest.mark.parametrize("mark", ["overlay", "burn"])
def test_nothing_is_written_on_images_that_pass(read, provenance, mark):
    passed = replace(provenance, verdict=Verdict(verdict="pass", score=0.9))
    ds = read(mark, provenance=passed)
    assert 0x60003000 not in ds
    assert ds.BurnedInAnnotation == "NO"
    np.testing.assert_array_equal(ds.pixel_array, read("none", provenance=passed).pixel_array)


def test_an_overlay_leaves_the_pixels_alone(read):
    ds = read("overlay")
    np.testing.assert_array_equal(ds.overlay_array(0x6000), text_mask("WARNING trust 0.61", SHAPE[1:]))
    np.testing.assert_array_equal(ds.pixel_array, read("none").pixel_array)
    assert ds.overlay_array(0x6000).sum() > 100


def test_burnt_in_text_is_in_the_pixels_and_declared(read):
    plain, ds = read("none"), read("burn")
    mask = text_mask("WARNING trust 0.61", SHAPE[1:])
    white = (float(ds.WindowCenter) + float(ds.WindowWidth) / 2) / float(ds.RescaleSlope)
    np.testing.assert_allclose(ds.pixel_array[mask], white, rtol=1e-3)
    changed = ds.pixel_array != plain.pixel_array
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    changed[rows[0] - 1 : rows[-1] + 2, columns[0] - 1 : columns[-1] + 2] = False
    assert not changed.any()
    assert ds.BurnedInAnnotation == "YES"
    assert deidentify(ds, key=b"k" * 16).BurnedInAnnotation == "YES"


def test_a_marked_series_is_another_series(read):
    assert len({read(mark).SeriesInstanceUID for mark in ("none", "overlay", "burn")}) == 3


def test_a_picture_too_small_for_the_text_gets_what_fits():
    assert text_mask("WARNING", (8, 8)).shape == (8, 8)
    assert not text_mask("", (8, 8)).any()


@pytest.mark.real
@pytest.mark.parametrize("mark", ["overlay", "burn"])
@pytest.mark.parametrize("columns", [160, 47])
def test_marked_instances_pass_dciodvfy(write, make_images, tool, mark, columns):
    images = make_images((1, 41, columns))
    path = write(images, pixels=scale_series(images), mark=mark)[0].path
    done = subprocess.run([tool("dciodvfy"), path], check=False, capture_output=True, text=True)
    assert not re.search(r"\berror\b", done.stderr, re.IGNORECASE), done.stderr

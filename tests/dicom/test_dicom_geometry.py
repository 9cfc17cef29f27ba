"""Geometry, proven by formula and by readers that share no code with the writer."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from dicom_samples import GEOMETRIES, geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import DicomError
from recon_node.dicom.geometry import image_plane
from recon_node.images import image_affine

SHAPES = [(1, 40, 48), (1, 41, 47), (1, 48, 20)]


def plane_affine(plane):
    """PS3.3 equation C.7.6.2.1-1."""
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * plane.spacing[1], column * plane.spacing[0]
    affine[:3, 3] = plane.position
    return affine


@pytest.mark.parametrize("where", GEOMETRIES)
@pytest.mark.parametrize("shape", [(40, 48), (41, 47), (1, 1)])
def test_the_pixel_of_the_fourier_centre_lies_at_the_isocentre_of_the_slice(where, shape):
    where = geometry(where)
    affine = plane_affine(image_plane(where, shape))
    centre = affine @ [shape[1] // 2, shape[0] // 2, 0, 1]
    np.testing.assert_allclose(centre[:3], where.position_mm, atol=1e-9)
    np.testing.assert_allclose(affine[:, [0, 1, 3]], image_affine(where, shape)[:, [0, 1, 3]], atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3), noise=st.floats(-0.005, 0.005))
def test_orientation_is_orthonormal_even_from_rounded_directions(angles, noise):
    a, b, c = angles
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    twist = np.array([[np.cos(c), 0, np.sin(c)], [0, 1, 0], [-np.sin(c), 0, np.cos(c)]])
    read, phase = (turn @ tilt @ twist).T[:2]
    skewed = replace(geometry(), read_dir=tuple(read * 1.0005), phase_dir=tuple(phase + noise * read))
    orientation = np.reshape(image_plane(skewed, (4, 6)).orientation, (2, 3))
    np.testing.assert_allclose(orientation @ orientation.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(orientation[0], read, atol=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        {"read_dir": (0.0, 0.0, 0.0)},
        {"read_dir": (np.nan, 0.0, 0.0)},
        {"phase_dir": (1.0, 1.0, 0.0)},
        {"fov_mm": (0.0, 1.0, 1.0)},
        {"position_mm": (np.inf, 0.0, 0.0)},
    ],
)
def test_geometry_that_no_scanner_has_is_refused(change):
    with pytest.raises(DicomError, match=r"slice geometry|square"):
        image_plane(replace(geometry(), **change), (4, 4))


def test_slice_location_runs_along_the_normal():
    at = [image_plane(geometry("double-oblique", position=tuple(p)), (8, 8)) for p in ((0, 0, 0), (3, 4, 5))]
    plane = at[0]
    normal = np.cross(plane.orientation[:3], plane.orientation[3:])
    assert at[1].location - at[0].location == pytest.approx(normal @ [3, 4, 5])


@pytest.mark.real
@pytest.mark.parametrize("where", GEOMETRIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dcm2niix_finds_the_geometry_of_the_raw_data(write, make_images, tool, tmp_path, where, shape):
    fov = (shape[2] * 1.7, shape[1] * 2.3, 8.0)
    images = make_images(shape, geometry=geometry(where, fov=fov))
    folder = write(images, folder=tmp_path / "in")[0].path.parent
    (tmp_path / "out").mkdir()
    command = [tool("dcm2niix"), "-b", "y", "-z", "n", "-f", "image", "-o", tmp_path / "out", folder]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (path,) = (tmp_path / "out").glob("*.nii")
    found = nifti_affine(path.read_bytes())
    columns, rows = shape[2], shape[1]
    wanted = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image_affine(images.geometry, (rows, columns))
    flip = np.eye(4)  # NIfTI counts rows from below
    flip[1, 1], flip[1, 3] = -1, rows - 1
    corners = np.array([[0, 0, 0, 1], [columns - 1, 0, 0, 1], [0, rows - 1, 0, 1], [9, 7, 0, 1]]).T
    np.testing.assert_allclose((found @ corners)[:3], (wanted @ flip @ corners)[:3], atol=0.01)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["EchoTime"] == pytest.approx(0.00151)
    assert sidecar["RepetitionTime"] == pytest.approx(0.00311)


def nifti_affine(content: bytes) -> np.ndarray:
    """The sform of a NIfTI-1 header (srow_x, srow_y, srow_z at byte 280)."""
    affine = np.eye(4)
    affine[:3] = np.frombuffer(content, "<f4", 12, 280).reshape(3, 4)
    return affine


@pytest.mark.parametrize("where", GEOMETRIES)
def test_highdicom_finds_the_geometry_of_the_raw_data(write, make_images, where):
    highdicom = pytest.importorskip("highdicom")
    images = make_images((1, 40, 48), where=where)
    ds = pydicom.dcmread(write(images)[0].path)
    transform = highdicom.spatial.ImageToReferenceTransformer.for_image(ds)
    indices = np.array([[0.5, 0.5], [24.5, 20.5], [47.5, 0.5]])  # image coordinates: pixel centres at .5
    affine = image_affine(images.geometry, (40, 48))
    wanted = [(affine @ [i - 0.5, j - 0.5, 0, 1])[:3] for i, j in indices]
    np.testing.assert_allclose(transform(indices), wanted, atol=0.01)

from itertools import product

import numpy as np
import pytest
from images_samples import make

from recon_node.images import Orientation, display_orientation, image_affine, orient

L, P, H = np.eye(3)
PLANES = {"axial": (L, P), "coronal": (L, -H), "sagittal": (P, -H)}
TURNS = [Orientation(transpose=t, flip_y=y, flip_x=x) for t, y, x in product((False, True), repeat=3)]


def places(images):
    """Patient position of each pixel, by its (unique) value."""
    rows, columns = images.data.shape[1:]
    affine = image_affine(images.geometry, (rows, columns))
    return {
        complex(images.data[0, j, i]): tuple(np.round((affine @ [i, j, 0, 1])[:3], 9))
        for j, i in product(range(rows), range(columns))
    }


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("shape", [(4, 6), (5, 6), (5, 7)])
def test_turning_leaves_every_pixel_at_its_place_in_the_patient(turn, shape):
    images = make(np.arange(np.prod(shape)).reshape(1, *shape), fov=(shape[0] * 3.0, shape[1] * 2.0))
    turned = orient(images, turn)
    assert places(turned) == places(images)
    assert turned.data.shape[1:] == (shape[::-1] if turn.transpose else shape)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("turn", TURNS)
def test_any_turned_plane_comes_back_to_how_it_is_shown(plane, turn):
    row, column = PLANES[plane]
    tilt = np.array([0.05, -0.08, 0.06])  # a little oblique
    row = (row + tilt) / np.linalg.norm(row + tilt)
    column = column - row * (row @ column)
    column /= np.linalg.norm(column)
    shown = make(np.arange(20).reshape(1, 4, 5), directions=(row, column))
    acquired = orient(shown, turn)
    back = orient(acquired, display_orientation(acquired.geometry))
    np.testing.assert_array_equal(back.data, shown.data)
    np.testing.assert_allclose(back.geometry.read_dir, row, atol=1e-12)
    np.testing.assert_allclose(back.geometry.phase_dir, column, atol=1e-12)
    np.testing.assert_allclose(back.geometry.position_mm, shown.geometry.position_mm, atol=1e-9)


def test_unknown_directions_are_left_alone():
    images = make(np.arange(20).reshape(1, 4, 5), directions=(-L, -P), known=False)
    assert display_orientation(images.geometry) == Orientation()

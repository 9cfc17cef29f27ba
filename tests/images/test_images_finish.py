import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images_samples import make

from recon_node.core.errors import DataError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.images import finish, image_affine, pixel_size_mm


def noise(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def wave(images, shape, k):
    """exp(2 pi i k.r) over patient millimetres relative to the position, on the grid of `images`."""
    j, i = np.mgrid[: shape[0], : shape[1]]
    points = image_affine(images.geometry, shape) @ np.stack([i, j, 0 * i, 0 * i + 1]).reshape(4, -1)
    phase = k @ (points[:3] - np.array(images.geometry.position_mm)[:, None])
    return np.exp(2j * np.pi * phase).reshape(shape)


def test_image_on_the_right_grid_is_left_alone():
    images = make(noise((2, 32, 30)))
    done = finish(images, shape=(32, 30))
    np.testing.assert_array_equal(done.data, images.data)
    assert done.geometry == images.geometry


def test_phase_oversampling_is_cut_off_around_the_centre():
    images = make(noise((2, 48, 30)), fov=(480.0, 300.0), recon_fov=(320.0, 300.0))
    done = finish(images, shape=(32, 30))
    np.testing.assert_array_equal(done.data, images.data[:, 8:40])
    assert done.geometry.fov_mm == (300.0, 320.0, 8.0)
    assert done.geometry.position_mm == images.geometry.position_mm


@pytest.mark.parametrize("factor", [2, 3])
def test_interpolation_by_zero_filling_keeps_the_samples_it_had(factor):
    images = make(noise((1, 24, 30)))
    done = finish(images, shape=(24 * factor, 30 * factor))
    start = [(n * factor) // 2 - factor * (n // 2) for n in (24, 30)]
    np.testing.assert_allclose(
        done.data[:, start[0] :: factor, start[1] :: factor], images.data, rtol=1e-4, atol=1e-5
    )


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(8, 33), columns=st.integers(8, 33),
    recon=st.tuples(st.integers(6, 50), st.integers(6, 50)),
    part=st.tuples(st.floats(0.4, 1.0), st.floats(0.4, 1.0)),
)  # fmt: skip
def test_every_pixel_shows_what_lies_at_its_place(rows, columns, recon, part):
    """A plane wave, known at every point in the patient, stays one on the new grid."""
    fov = (rows * 5.0, columns * 4.0)
    images = make(
        noise((1, rows, columns)), fov=fov, recon_fov=(fov[0] * part[0], fov[1] * part[1]),
        directions=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    )  # fmt: skip
    k = np.array([0.0, 1 / fov[1], 2 / fov[0]])  # whole periods over the grid
    images = make(
        wave(images, (rows, columns), k)[None], fov=fov, recon_fov=(fov[0] * part[0], fov[1] * part[1]),
        directions=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    )  # fmt: skip
    done = finish(images, shape=recon)
    inside = np.abs(done.data[0]) > 0  # beyond the grid's field of view there is nothing
    interpolated = (
        fov[0] / pixel_size_mm(done.geometry, recon)[0],
        fov[1] / pixel_size_mm(done.geometry, recon)[1],
    )
    if min(interpolated) < 6:  # the wave itself does not fit into such a k-space
        return
    np.testing.assert_allclose(done.data[0][inside], wave(done, recon, k)[inside], atol=2e-4)
    for size, asked in zip(pixel_size_mm(done.geometry, recon), (0, 1), strict=True):
        wanted = fov[asked] * part[asked] / recon[asked]
        assert abs(fov[asked] / size - fov[asked] / wanted) <= 0.5001


def test_coarser_pixels_come_from_the_centre_of_k_space():
    images = make(noise((1, 32, 32)), fov=(320.0, 320.0))
    done = finish(images, shape=(16, 16))
    centre = centred_fft(images.data)[:, 8:24, 8:24]
    np.testing.assert_allclose(done.data, centred_ifft(centre) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4), (4, -1), (4, 100000)])
def test_absurd_matrices_are_refused(shape):
    with pytest.raises(DataError, match="recon matrix"):
        finish(make(noise((1, 8, 8))), shape=shape)


def test_fields_of_view_that_contradict_the_matrix_are_refused():
    images = make(noise((1, 8, 8)), fov=(400.0, 400.0), recon_fov=(0.4, 400.0))
    with pytest.raises(DataError, match="check the header's fields of view"):
        finish(images, shape=(64, 64))

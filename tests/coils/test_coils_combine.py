import numpy as np
import pytest

from recon_node.coils import calibration_region, combine, expand, root_sum_of_squares
from recon_node.core.errors import CalibrationError, DataError
from recon_node.core.types import CoilMaps


def random_maps(rng: np.random.Generator, sets: int = 1) -> CoilMaps:
    data = rng.standard_normal((sets, 4, 6, 5)) + 1j * rng.standard_normal((sets, 4, 6, 5))
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    return CoilMaps(data=data.astype(np.complex64), support=np.ones((6, 5), bool))


def test_combining_expanded_images_gives_them_back() -> None:
    rng = np.random.default_rng(0)
    maps, images = random_maps(rng), rng.standard_normal((3, 2, 6, 5)).astype(np.complex64)
    np.testing.assert_allclose(combine(expand(images, maps), maps), images, atol=1e-5)


def test_combining_is_the_adjoint_of_expanding() -> None:
    rng = np.random.default_rng(1)
    maps, images = random_maps(rng), rng.standard_normal((2, 6, 5)).astype(np.complex64)
    coil_images = (rng.standard_normal((2, 4, 6, 5)) + 1j).astype(np.complex64)
    left = np.vdot(coil_images, expand(images, maps))
    assert left == pytest.approx(np.vdot(combine(coil_images, maps), images), rel=1e-4)


def test_of_several_map_sets_the_powers_are_added() -> None:
    rng = np.random.default_rng(2)
    maps = random_maps(rng, sets=2)
    coil_images = rng.standard_normal((4, 6, 5)).astype(np.complex64)
    single = [CoilMaps(data=maps.data[i : i + 1], support=maps.support) for i in range(2)]
    parts = [combine(coil_images, one) for one in single]
    found = combine(coil_images, maps)
    np.testing.assert_allclose(np.abs(found), np.hypot(*np.abs(parts)), rtol=1e-5)
    np.testing.assert_allclose(np.angle(found), np.angle(parts[0] + parts[1]), atol=1e-4)


def test_root_sum_of_squares_is_the_norm_over_coils() -> None:
    coil_images = np.full((2, 4, 6, 5), 3 + 4j, np.complex64)
    found = root_sum_of_squares(coil_images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 10.0, rtol=1e-6)


def test_images_of_other_coils_or_pixels_are_refused() -> None:
    maps = random_maps(np.random.default_rng(3))
    with pytest.raises(DataError, match="do not fit maps"):
        combine(np.ones((5, 6, 5), np.complex64), maps)
    with pytest.raises(DataError, match="do not fit maps"):
        expand(np.ones((6, 6), np.complex64), maps)


def test_the_calibration_region_is_the_mean_of_the_phases_that_sampled_a_point() -> None:
    mask = np.zeros((2, 16, 12), bool)
    mask[:, 4:12] = True
    mask[1, 4:12:2] = False
    data = np.zeros((2, 3, 16, 12), np.complex64)
    data[0], data[1] = 1, 3
    data *= mask[:, None]
    block = calibration_region(data, mask, size=(24, 8))
    assert block.shape == (3, 8, 8)
    np.testing.assert_array_equal(block[:, ::2], 1)
    np.testing.assert_array_equal(block[:, 1::2], 2)


def test_the_calibration_region_keeps_the_centre_at_half_its_size() -> None:
    data = np.zeros((1, 2, 21, 18), np.complex64)
    data[:, :, 10, 9] = 1
    for size in ((9, 8), (8, 9), (24, 24)):
        block = calibration_region(data, np.ones((1, 21, 18), bool), size=size)
        assert block[0, block.shape[1] // 2, block.shape[2] // 2] == 1


def test_lines_that_end_on_one_side_limit_the_calibration_region() -> None:
    mask = np.zeros((1, 32, 32), bool)
    mask[:, 12:30] = True
    assert calibration_region(np.ones((1, 2, 32, 32), np.complex64), mask).shape == (2, 9, 24)


def test_a_square_of_calibration_samples_is_found() -> None:
    mask = np.zeros((1, 32, 40), bool)
    mask[:, 10:22, 14:26] = True
    assert calibration_region(np.ones((1, 2, 32, 40), np.complex64), mask).shape == (2, 12, 12)


def test_too_few_central_lines_are_refused() -> None:
    mask = np.zeros((1, 32, 32), bool)
    mask[:, 15:18] = True
    with pytest.raises(CalibrationError, match="expected at least 6 x 6"):
        calibration_region(np.ones((1, 2, 32, 32), np.complex64), mask)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(CalibrationError, match="does not fit a mask"):
        calibration_region(np.ones((1, 2, 32, 32), np.complex64), np.ones((2, 32, 32), bool))

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.coils import espirit, espirit_slices
from recon_node.coils.eigenmaps import Operator, dominant, operator_samples
from recon_node.coils.espirit import noise_edge, virtual_coil
from recon_node.coils.gridding import dense_maps, interpolated_maps
from recon_node.coils.kernels import calibration_matrix, position_gram, sample_gram, signal_kernels
from recon_node.core.errors import CalibrationError, ConfigError
from recon_node.core.fft import centred_fft, centred_ifft


def residual(coil_images: np.ndarray, maps: np.ndarray, where: np.ndarray) -> float:
    """Share of the coil images that maps `(map, coil, y, x)` cannot explain."""
    basis = maps.transpose(2, 3, 1, 0)[where]
    signal = coil_images.transpose(1, 2, 0)[where][..., None]
    left = signal - basis @ (np.linalg.pinv(basis, rcond=1e-3) @ signal)
    return float(np.linalg.norm(left) / np.linalg.norm(signal))


def map_error(found: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    onto = np.sum(true.conj() * found, axis=0)
    difference = found - true * np.exp(1j * np.angle(onto))
    return float(np.linalg.norm(difference[:, where]) / np.linalg.norm(true[:, where]))


def sigpy_maps(calibration: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Maps by sigpy from the same calibration data, zero outside the eigenvalue crop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sigpy.mri.app import EspiritCalib

        kspace = np.zeros((len(calibration), *shape), np.complex64)
        size = calibration.shape[1]
        first = [n // 2 - size // 2 for n in shape]
        kspace[:, first[0] : first[0] + size, first[1] : first[1] + size] = calibration
        app = EspiritCalib(kspace, calib_width=size, thresh=0.02, kernel_width=6, crop=0.8, show_pbar=False)
        maps = app.run()
    return maps / np.maximum(np.linalg.norm(maps, axis=0), 1e-9)


def test_maps_have_unit_norm_inside_the_support_and_are_zero_outside(scene) -> None:
    maps = espirit(scene.calibration, (64, 64))
    norm = np.linalg.norm(maps.data[0], axis=0)
    np.testing.assert_allclose(norm[maps.support], 1, atol=1e-5)
    assert not norm[~maps.support].any()
    assert maps.support[scene.body].mean() > 0.99
    assert maps.support[~scene.body].mean() < 0.6


@pytest.mark.parametrize("coils", [4, 8, 16, 32])
def test_maps_agree_with_the_true_sensitivities(new_scene, coils: int) -> None:
    scene = new_scene(coils=coils)
    maps = espirit(scene.calibration, (64, 64))
    assert map_error(maps.data[0], scene.maps, maps.support & scene.body) < 0.03


@pytest.mark.parametrize(("acs", "snr"), [(24, 40.0), (24, 5.0), (12, 40.0), (16, 10.0)])
def test_no_worse_than_sigpy_on_the_same_simulated_data(new_scene, acs: int, snr: float) -> None:
    scene = new_scene(acs=acs, snr=snr, coils=6)
    ours = espirit(scene.calibration, (64, 64))
    theirs = sigpy_maps(scene.calibration, (64, 64))
    where = ours.support & scene.body & (np.abs(theirs).sum(axis=0) > 0)
    assert where.sum() > 0.8 * scene.body.sum()
    assert residual(scene.coil_images, ours.data, where) < 1.01 * residual(
        scene.coil_images, theirs[None], where
    )
    assert map_error(ours.data[0], scene.maps, where) < 1.01 * map_error(theirs, scene.maps, where)


def test_no_worse_than_sigpy_on_measured_data(brain) -> None:
    calibration = brain[:, 20:44, 20:44]
    ours = espirit(calibration, (64, 64))
    theirs = sigpy_maps(calibration, (64, 64))
    images = centred_ifft(brain)
    energy = np.linalg.norm(images, axis=0)
    where = (energy > 0.1 * np.percentile(energy, 99)) & ours.support & (np.abs(theirs).sum(axis=0) > 0)
    assert where.sum() > 500
    assert residual(images, ours.data, where) < 1.01 * residual(images, theirs[None], where)


@pytest.mark.parametrize(("crop", "most"), [(0.9, 0.05), (0.8, 0.1)], ids=str)
def test_interpolation_from_the_coarse_grid_equals_every_pixel_on_its_own(scene, brain, crop, most) -> None:
    for calibration in (scene.calibration, brain[:, 20:44, 20:44]):
        coarse, dense = (espirit(calibration, (96, 90), crop=crop, grid=grid) for grid in (None, 96))
        both = coarse.support & dense.support
        assert both.sum() > 0.98 * dense.support.sum()
        difference = np.linalg.norm(coarse.data[0] - dense.data[0], axis=0)
        assert np.median(difference[both]) < 2e-3
        assert np.percentile(difference[both], 99) < most


def test_the_coarse_grid_is_as_good_on_a_field_of_view_that_wraps(new_scene) -> None:
    images, layers, calibration = folded(new_scene)
    coarse, dense = (espirit(calibration, images.shape[1:], grid=grid) for grid in (32, 64))
    where = (layers > 0) & coarse.support & dense.support
    assert where.sum() > 0.9 * ((layers > 0) & dense.support).sum()
    assert residual(images, coarse.data, where) < 1.02 * residual(images, dense.data, where)


def test_pixels_around_a_zero_of_the_virtual_coil_are_interpolated_in_one_phase(scene) -> None:
    kernels = signal_kernels(scene.calibration.astype(complex), 6, 0.02)
    operator = Operator(operator_samples(kernels))
    vectors = dense_maps(operator, (64, 64), virtual_coil(scene.calibration.astype(complex)), 1)[1][0]
    heart = scene.body & (np.hypot(*(np.mgrid[-32:32, -32:32])) < 16)
    virtual = (vectors[:, 30, 30] - vectors[:, 34, 36]).astype(np.complex64)  # vanishes about in between
    dense = dense_maps(operator, (64, 64), virtual, 1)[1][0]
    coarse = interpolated_maps(operator, (64, 64), virtual, 32, 0.9)[1][0]
    onto = np.abs(np.sum(virtual.conj()[:, None, None] * dense, axis=0))
    assert onto[heart].min() < 0.02 < 0.1 < onto[heart].max()
    coarse /= np.linalg.norm(coarse, axis=0)
    assert np.abs(np.linalg.norm(coarse - dense, axis=0))[heart & (onto > 0.02)].max() < 0.05


@pytest.mark.parametrize("count", [1, 2])
def test_filtered_iteration_finds_the_leading_eigenpairs(count: int) -> None:
    rng = np.random.default_rng(5)
    draw = rng.standard_normal((50, 9, 9, 2)) @ [1, 1j]
    basis = np.linalg.qr(draw)[0]
    levels = np.sort(rng.uniform(0, 0.85, (50, 9)), axis=1)[:, ::-1].copy()
    levels[:, :count] = np.linspace(1, 0.93, count)
    matrices = ((basis * levels[:, None]) @ basis.conj().swapaxes(1, 2)).astype(np.complex64)
    start = rng.standard_normal((50, 9, count, 2)).astype(np.float32).view(np.complex64)[..., 0]
    values, vectors = dominant(matrices, start)
    np.testing.assert_allclose(values, levels[:, :count], atol=1e-4)
    overlap = np.abs(np.sum(basis[:, :, :count].conj() * vectors, axis=1))
    assert overlap.min() > 0.999


@pytest.mark.parametrize("options", [{}, {"maps": 2}, {"threshold": "auto"}, {"soft": True, "crop": 0.8}])
@pytest.mark.parametrize("coils", [4, 16])
def test_a_torch_tensor_gives_the_maps_that_numpy_gives(new_scene, coils: int, options: dict) -> None:
    scene = new_scene(coils=coils)
    ours = espirit(scene.calibration, (72, 64), **options)
    tensors = espirit(torch.tensor(scene.calibration), (72, 64), **options)
    assert isinstance(tensors.data, np.ndarray)
    assert np.count_nonzero(ours.support != tensors.support) <= 2
    both = ours.support & tensors.support
    assert np.abs(ours.data[0] - tensors.data[0])[:, both].max() < 5e-3  # both stop at 1e-3


def test_a_tensor_that_is_no_calibration_is_refused_as_an_array_is() -> None:
    with pytest.raises(CalibrationError, match=r"shape \(8, 24\)"):
        espirit(torch.ones(8, 24), (32, 32))
    with pytest.raises(CalibrationError, match="NaN"):
        espirit(torch.full((4, 24, 24), float("nan")), (32, 32))


def test_every_map_is_real_and_positive_on_the_virtual_coil(scene) -> None:
    maps = espirit(scene.calibration, (64, 64))
    onto = np.einsum("c,cyx->yx", virtual_coil(scene.calibration.astype(complex)).conj(), maps.data[0])
    bright = np.abs(onto) > 0.2
    assert bright.sum() > 500
    assert np.abs(np.angle(onto[bright])).max() < 0.02


def test_the_same_calibration_gives_the_same_maps_bit_for_bit(scene) -> None:
    first, second = (espirit(scene.calibration, (64, 60)) for _ in range(2))
    assert np.array_equal(first.data, second.data)


def test_scaling_the_data_changes_nothing(scene) -> None:
    first, second = (espirit(2.0**power * scene.calibration, (64, 64)) for power in (0, -24))
    np.testing.assert_array_equal(first.data, second.data)


def test_permuting_coils_permutes_maps(scene) -> None:
    order = np.random.default_rng(0).permutation(8)
    plain, permuted = espirit(scene.calibration, (64, 64)), espirit(scene.calibration[order], (64, 64))
    assert map_error(permuted.data[0], plain.data[0][order], scene.body) < 2e-3


def test_a_dead_coil_gets_a_zero_map_and_leaves_the_others_alone(scene) -> None:
    calibration = np.insert(scene.calibration, 3, 0, axis=0)
    plain, with_dead = espirit(scene.calibration, (64, 64)), espirit(calibration, (64, 64))
    assert not with_dead.data[0, 3].any()
    assert map_error(np.delete(with_dead.data[0], 3, axis=0), plain.data[0], scene.body) < 2e-3


def test_a_single_coil_gets_a_map_of_ones(scene) -> None:
    maps = espirit(scene.calibration[:1], (64, 64))
    np.testing.assert_allclose(maps.data[0, 0][maps.support], 1, atol=1e-5)


def folded(new_scene, keep: int = 40):
    """A field of view narrower than the body: columns fold onto each other."""
    scene = new_scene(snr=1.0, size=64, coils=8)
    true = scene.coil_images
    images, layers = np.zeros((8, 64, keep), complex), np.zeros((64, keep), int)
    for column in range(64):
        images[:, :, (column - (64 - keep) // 2) % keep] += true[:, :, column]
        layers[:, (column - (64 - keep) // 2) % keep] += scene.body[:, column]
    noise = np.random.default_rng(1).standard_normal((2, *images.shape)) / 60
    kspace = centred_fft(images) + noise[0] + 1j * noise[1]
    return images, layers, kspace[:, 20:44, keep // 2 - 12 : keep // 2 + 12]


def test_two_map_sets_explain_a_folded_field_of_view(new_scene) -> None:
    images, layers, calibration = folded(new_scene)
    one = espirit(calibration, images.shape[1:])
    two = espirit(calibration, images.shape[1:], maps=2)
    assert two.data.shape == (2, *images.shape)
    assert residual(images, two.data, layers == 2) < 0.1 * residual(images, one.data, layers == 2)
    overlap = np.abs(np.sum(two.data[0].conj() * two.data[1], axis=0))
    assert overlap.max() < 1e-3


@pytest.mark.parametrize("maps", [1, 2])
def test_signal_from_outside_the_field_of_view_is_seen(new_scene, brain, maps: int) -> None:
    images, layers, calibration = folded(new_scene)
    share = (layers == 2).sum() / (layers > 0).sum()
    assert 0.3 * share < espirit(calibration, images.shape[1:], maps=maps).folded < 1.5 * share
    narrow = np.ascontiguousarray(brain[:, ::2][:, 4:28, 20:44])
    assert espirit(narrow, (40, 64), maps=maps).folded > 0.1


@pytest.mark.parametrize("coils", [4, 8, 16, 28])
@pytest.mark.parametrize("snr", [4.0, 8.0, 15.0, 40.0])
@pytest.mark.parametrize("threshold", [0.02, "auto"])
def test_nothing_is_said_to_fold_where_nothing_does(new_scene, brain, coils, snr, threshold) -> None:
    scene = new_scene(coils=coils, snr=snr)
    assert (espirit(scene.calibration, (64, 64), threshold=threshold).folded or 0) < 0.01
    assert espirit(brain[:, 20:44, 20:44], (64, 64)).folded < 0.01


def test_the_automatic_threshold_keeps_more_signal_when_there_is_less_noise(new_scene) -> None:
    quiet, loud = new_scene(snr=400.0), new_scene(snr=4.0)
    for scene, factor in ((quiet, 0.9), (loud, 1.05)):
        fixed = espirit(scene.calibration, (64, 64))
        automatic = espirit(scene.calibration, (64, 64), threshold="auto")
        where = fixed.support & automatic.support & scene.body
        assert residual(scene.coil_images, automatic.data, where) < factor * residual(
            scene.coil_images, fixed.data, where
        )


def test_the_noise_edge_bounds_the_singular_values_of_noise() -> None:
    noise = np.random.default_rng(9).standard_normal((2, 4, 16, 16)) / np.sqrt(2)
    largest = np.linalg.norm(calibration_matrix(noise[0] + 1j * noise[1], 6), 2)
    assert noise_edge((4, 16, 16), 6) == pytest.approx(largest, rel=0.15)


def test_automatic_threshold_with_nothing_but_noise_still_gives_finite_maps() -> None:
    noise = np.random.default_rng(9).standard_normal((4, 16, 16, 2)) @ np.array([0.1, 0.1j])
    assert np.isfinite(espirit(noise, (48, 48), threshold="auto").data).all()


def test_soft_maps_fade_where_hard_maps_end(scene) -> None:
    hard, soft = espirit(scene.calibration, (64, 64)), espirit(scene.calibration, (64, 64), soft=True)
    norm = np.linalg.norm(soft.data[0], axis=0)
    assert np.array_equal(hard.support, soft.support)
    assert ((norm > 0.05) & (norm < 0.95)).sum() > 50
    assert norm.max() < 1 + 1e-5
    assert (norm[~hard.support] <= 0.5 + 1e-5).all()


@pytest.mark.parametrize("shape", [(48, 48), (45, 51), (24, 24), (160, 40)])
def test_any_image_size_works(scene, shape: tuple[int, int]) -> None:
    maps = espirit(scene.calibration, shape)
    assert maps.data.shape == (1, 8, *shape)
    assert np.isfinite(maps.data).all()
    assert maps.support.any()


def test_slices_side_by_side_equal_one_after_the_other(scene, new_scene) -> None:
    calibrations = [scene.calibration, new_scene(seed=1).calibration, new_scene(seed=2).calibration]
    together = espirit_slices(calibrations, (64, 64), workers=2, kernel=5)
    for calibration, maps in zip(calibrations, together, strict=True):
        assert np.array_equal(maps.data, espirit(calibration, (64, 64), kernel=5).data)


@given(
    coils=st.integers(1, 9),
    size=st.tuples(st.integers(6, 14), st.integers(6, 14)),
    rank=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=15)
def test_maps_are_finite_and_bounded_for_any_calibration(coils, size, rank, seed) -> None:
    rng = np.random.default_rng(seed)
    calibration = rng.standard_normal((coils, *size)) + 1j * rng.standard_normal((coils, *size))
    calibration[rank:] = calibration[:1]
    maps = espirit(calibration, (40, 36), maps=min(2, coils))
    norm = np.linalg.norm(maps.data, axis=1)
    assert np.isfinite(maps.data).all()
    assert norm.max() < 1 + 1e-4


@pytest.mark.parametrize("coils", [2, 20])
def test_signal_kernels_span_the_windows_of_noiseless_data(new_scene, coils: int) -> None:
    scene = new_scene(coils=coils, snr=1e5, acs=14)
    calibration = scene.calibration.astype(complex)
    kernels = signal_kernels(calibration, 5, 1e-3).reshape(-1, coils * 25)
    gram = kernels @ kernels.conj().T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-3)
    windows = calibration_matrix(calibration, 5)
    left = windows - windows @ kernels.conj().T @ kernels
    assert np.linalg.norm(left) < 5e-3 * np.linalg.norm(windows)


def test_the_gram_matrix_of_positions_equals_the_product_of_the_calibration_matrix(scene) -> None:
    matrix = calibration_matrix(scene.calibration.astype(complex), 6)
    gram = position_gram(scene.calibration.astype(complex), 6)
    np.testing.assert_allclose(gram, matrix @ matrix.conj().T, rtol=1e-9, atol=1e-6)


def test_the_gram_matrix_of_samples_equals_the_product_of_the_calibration_matrix(scene) -> None:
    matrix = calibration_matrix(scene.calibration[:2].astype(complex), 5)
    np.testing.assert_allclose(sample_gram(matrix), matrix.conj().T @ matrix, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_a_calibration_that_is_not_finite_is_refused(spoiled: float) -> None:
    calibration = np.ones((4, 12, 12), np.complex64)
    calibration[1, 3, 3] = spoiled
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        espirit(calibration, (64, 64))


def test_a_calibration_of_zeros_is_refused() -> None:
    with pytest.raises(CalibrationError, match="zero everywhere"):
        espirit(np.zeros((4, 12, 12), np.complex64), (64, 64))


def test_a_calibration_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"5 x 24.*smaller than the 6 x 6"):
        espirit(np.ones((4, 5, 24), np.complex64), (64, 64))


def test_a_calibration_larger_than_the_image_is_refused() -> None:
    with pytest.raises(CalibrationError, match="larger than the image"):
        espirit(np.ones((4, 24, 24), np.complex64), (20, 64))


def test_a_calibration_of_the_wrong_rank_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"expected axes \(coil, ay, ax\)"):
        espirit(np.ones((24, 24), np.complex64), (64, 64))


def test_more_map_sets_than_coils_are_refused() -> None:
    with pytest.raises(CalibrationError, match="2 map sets asked for with 1 coils"):
        espirit(np.ones((1, 12, 12), np.complex64), (64, 64), maps=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kernel": 1},
        {"threshold": -0.1},
        {"threshold": 1.0},
        {"threshold": float("nan")},
        {"maps": 0},
        {"crop": 1.0},
        {"crop": float("nan")},
    ],
)
def test_an_option_out_of_range_is_named(scene, wrong: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is"):
        espirit(scene.calibration, (64, 64), **wrong)

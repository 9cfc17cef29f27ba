import numpy as np
import pytest
from simulate_cases import small_cine

from recon_node.core.errors import ConfigError
from recon_node.core.fft import centred_fft
from recon_node.simulate import MODALITIES, draw_example
from recon_node.simulate.canvas import Plane
from recon_node.simulate.subject import draw_subject


def test_kspace_is_the_transform_of_maps_times_images_plus_white_unit_noise():
    example = small_cine()
    clean = centred_fft(example.maps[None] * example.images[:, None])
    noise = example.kspace - clean
    flat = np.moveaxis(noise, 1, 0).reshape(noise.shape[1], -1)
    covariance = flat @ flat.conj().T / flat.shape[1]
    assert np.abs(covariance - np.eye(len(covariance))).max() < 0.02
    assert abs(np.mean(flat**2)) < 0.01  # circular: both parts alike and independent


def test_maps_have_unit_root_sum_of_squares_and_are_smooth():
    maps = small_cine().maps
    assert np.allclose(np.sum(np.abs(maps) ** 2, axis=0), 1, atol=1e-4)
    middle = maps[:, 20:76, 20:76]
    assert np.abs(np.diff(middle, axis=-1)).max() < 0.15


def test_arrays_have_the_promised_types_and_shapes():
    example = small_cine()
    assert example.images.dtype == example.maps.dtype == example.kspace.dtype == np.complex64
    assert example.images.shape == example.lv.shape == example.rv.shape == (10, 96, 96)
    assert example.kspace.shape == (10, 6, 96, 96)
    assert len(example.trigger_times_ms) == len(example.lv_volume_ml) == 10


def test_one_seed_gives_one_example_and_another_seed_another():
    first, again, other = small_cine(5), small_cine(5), small_cine(6)
    assert first.kspace.tobytes() == again.kspace.tobytes()
    assert first.kspace.tobytes() != other.kspace.tobytes()


def stack_volumes(seed, phases=8, slices=28):
    """Left and right ventricular volumes from the masks of a dense stack, and the stated ones."""
    subject = draw_subject(
        np.random.default_rng(seed),
        phases=phases,
        coils=2,
        modality="cine",
        view="short-axis",
        lifespan="Adult",
        breathing_mm=0.0,
        arrhythmia=0.0,
    )
    length = subject.scene.heart.length_mm
    edges = np.linspace(-length / 2 - 6, length / 2 + 6, slices + 1)
    step = edges[1] - edges[0]
    found = np.zeros((2, phases))
    for z in (edges[1:] + edges[:-1]) / 2:
        plane = Plane.make((128, 128), fov_mm=(256.0, 256.0), z=float(z), thickness_mm=float(step))
        frames = subject.scene.render(plane)
        area = plane.pixel_mm**2 / 1000
        found += np.stack([frames.lv.sum(axis=(1, 2)), frames.rv.sum(axis=(1, 2))]) * area * step
    return found, subject.scene.volumes_ml()


@pytest.mark.parametrize("seed", [0, 3])
def test_volumes_and_ejection_fraction_from_the_masks_are_those_stated(seed):
    (lv, rv), (lv_stated, rv_stated) = stack_volumes(seed)
    assert np.allclose(lv, lv_stated, rtol=0.025)
    assert np.allclose(rv, rv_stated, rtol=0.06)
    measured = 100 * (1 - lv.min() / lv.max())
    stated = 100 * (1 - lv_stated.min() / lv_stated.max())
    assert abs(measured - stated) < 1.0


def test_the_wall_keeps_its_volume_and_thickens_while_the_cavity_empties():
    subject = draw_subject(np.random.default_rng(2), phases=2, coils=1, modality="cine")
    heart = subject.scene.heart
    diastole, systole = heart.at(1.0), heart.at(0.0)

    def outer_ml(state):
        return 2 / 3 * np.pi * state.outer_radius**2 * state.outer_length / 1000

    assert outer_ml(systole) - systole.volume_ml == pytest.approx(heart.myocardium_ml)
    assert outer_ml(diastole) - diastole.volume_ml == pytest.approx(heart.myocardium_ml)
    assert systole.outer_radius - systole.radius > diastole.outer_radius - diastole.radius
    assert systole.length < diastole.length


def test_the_heart_moves_while_the_spine_stays():
    example = small_cine(breathing_mm=0.0, arrhythmia=0.0)
    change = np.abs(np.diff(np.abs(example.images), axis=0)).max(axis=0)
    heart = example.lv.max(axis=0) > 0.5
    assert change[heart].max() > 0.3 * np.abs(example.images)[:, heart].max()
    assert change[-12:, 30:60].max() < 0.02 * np.abs(example.images).max()


def test_breathing_moves_the_liver():
    still = small_cine(breathing_mm=0.0).images
    moving = small_cine(breathing_mm=6.0).images
    spread_still, spread_moving = (np.abs(i)[:, 50:70, 15:45].std(axis=0).mean() for i in (still, moving))
    assert spread_moving > 5 * spread_still


def test_breathing_lifts_the_chest_but_not_the_back():
    still = np.abs(small_cine(breathing_mm=0.0, arrhythmia=0.0).images)
    moving = np.abs(small_cine(breathing_mm=6.0, arrhythmia=0.0).images)
    rows = np.nonzero(still[0].max(axis=1) > 0.2 * still[0].max())[0]
    front, back = slice(rows[0] - 2, rows[0] + 4), slice(rows[-1] - 3, rows[-1] + 3)
    still_front, front_change = (i[:, front].std(axis=0).mean() for i in (still, moving))
    back_change = moving[:, back].std(axis=0).mean()
    assert front_change > 5 * still_front
    assert front_change > 3 * back_change


def test_the_apex_is_smaller_than_the_base():
    base, apex = small_cine(level=0.2), small_cine(level=0.85)
    assert apex.lv[0].sum() < 0.7 * base.lv[0].sum()


def test_infarction_shows_bright_in_late_enhancement_only_where_the_wall_is():
    with_scar, without = (
        small_cine(9, modality="late Gadolinium enhancement", phases=1, infarct=scar, snr_scale=np.inf)
        for scar in (True, False)
    )
    wall = with_scar.myocardium[0] > 0.95
    bright = np.abs(with_scar.images[0])[wall].max() / np.median(np.abs(with_scar.images[0])[wall])
    plain = np.abs(without.images[0])[without.myocardium[0] > 0.95]
    assert bright > 2 * plain.max() / np.median(plain)


@pytest.mark.parametrize("modality", list(MODALITIES))
def test_every_modality_gives_finite_frames_with_a_visible_heart(modality):
    example = small_cine(4, modality=modality, phases=None)
    assert np.isfinite(example.kspace).all()
    heart = np.abs(example.images)[(example.lv + example.myocardium) > 0.9]
    assert heart.max() > 3  # above the noise of a frame
    assert example.metadata["modality"] == modality


def test_long_axis_and_children_can_be_drawn():
    long_axis = small_cine(view="long-axis")
    child = small_cine(lifespan="Pediatric")
    assert long_axis.metadata["view"] == "long-axis"
    assert long_axis.lv[0].sum() > 0
    assert child.metadata["lifespan"] == "Pediatric"
    assert child.lv_volume_ml.max() < small_cine().lv_volume_ml.max()


def test_infinite_signal_to_noise_leaves_the_noise_out():
    example = small_cine(snr_scale=np.inf)
    clean = centred_fft(example.maps[None] * example.images[:, None])
    assert np.array_equal(example.kspace, clean)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modality": "PET"}, "PET"),
        ({"view": "sideways"}, "sideways"),
        ({"lifespan": "Dog"}, "Dog"),
        ({"vendor": "Acme"}, "Acme"),
        ({"vendor": "GE", "field_t": 5.0}, "5.0 T"),
        ({"coils": 0}, "coils is 0"),
        ({"phases": 0}, "phases is 0"),
        ({"matrix": (8, 96)}, "matrix"),
    ],
)
def test_an_example_that_cannot_be_is_refused_with_what_was_found(options, words):
    with pytest.raises(ConfigError, match=words):
        draw_example(np.random.default_rng(0), **options)

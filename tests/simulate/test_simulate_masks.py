import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import ConfigError
from recon_node.simulate import draw_mask
from recon_node.simulate.masks import acs_range, spoke_count

SHAPE = (40, 192, 64)


def outside_acs(mask, acs=20):
    lines = mask[:, :, 0].copy()
    keep = np.ones(lines.shape[1], bool)
    keep[acs_range(lines.shape[1], acs)] = False
    return lines[:, keep]


@pytest.mark.parametrize("acceleration", [2, 4, 7.5, 24])
def test_random_lines_outside_the_acs_are_kept_with_probability_one_over_r(acceleration):
    mask = draw_mask("random", acceleration, shape=(400, 192, 4), rng=np.random.default_rng(0))
    lines = outside_acs(mask)
    sigma = np.sqrt((1 / acceleration) * (1 - 1 / acceleration) / lines.size)
    assert abs(lines.mean() - 1 / acceleration) < 4 * sigma


def test_random_lines_are_drawn_anew_in_every_phase():
    mask = draw_mask("random", 8, shape=SHAPE, rng=np.random.default_rng(0))
    assert len({m.tobytes() for m in mask[:, :, 0]}) == SHAPE[0]


@pytest.mark.parametrize("acceleration", [2, 4, 8, 16, 24])
def test_uniform_takes_every_rth_line_from_the_first(acceleration):
    mask = draw_mask("uniform", acceleration, shape=SHAPE, rng=np.random.default_rng(0))
    wanted = np.arange(SHAPE[1]) % acceleration == 0
    wanted[86:106] = True
    assert np.array_equal(mask, np.broadcast_to(wanted[None, :, None], SHAPE))


def test_interleaving_moves_uniform_lines_so_that_r_phases_cover_everything():
    mask = draw_mask("uniform", 4, shape=(4, 64, 8), acs=0, rng=np.random.default_rng(0), interleave=True)
    assert np.array_equal(mask.sum(axis=0), np.ones((64, 8)))


@pytest.mark.parametrize("acceleration", [4, 8, 16, 24])
def test_radial_samples_two_points_per_spoke_on_a_ring(acceleration):
    mask = draw_mask("radial", acceleration, shape=(2, 512, 512), acs=0, rng=np.random.default_rng(1))[1]
    y, x = np.nonzero(mask)
    radius = np.hypot(y - 256, x - 256)
    angle = np.degrees(np.arctan2(y - 256, x - 256))[(radius > 225) & (radius < 254)] % 180
    bins, _ = np.histogram(angle, bins=np.arange(0, 181, 180 / (8 * spoke_count(acceleration))))
    filled = np.flatnonzero(bins)
    groups = 1 + np.sum(np.diff(filled) > 1) - (filled[0] == 0 and filled[-1] == len(bins) - 1)
    assert groups == spoke_count(acceleration)


def test_radial_spokes_turn_from_phase_to_phase():
    mask = draw_mask("radial", 16, shape=(12, 128, 128), rng=np.random.default_rng(1))
    assert len({m.tobytes() for m in mask}) == 12
    assert mask.any(axis=0).mean() > 3 * mask[0].mean()


@settings(deadline=None, max_examples=30)
@given(
    pattern=st.sampled_from(["uniform", "random", "radial"]),
    acceleration=st.integers(1, 30),
    ny=st.integers(24, 90),
    nx=st.integers(24, 90),
    seed=st.integers(0, 5),
)
def test_the_acs_is_always_sampled_and_one_means_everything(pattern, acceleration, ny, nx, seed):
    mask = draw_mask(pattern, acceleration, shape=(2, ny, nx), acs=20, rng=np.random.default_rng(seed))
    assert mask.shape == (2, ny, nx)
    assert mask[:, ny // 2 - 10 : ny // 2 + 10, nx // 2 - 10 : nx // 2 + 10].all()
    if acceleration == 1:
        assert mask.all()
    if pattern != "radial":
        assert np.array_equal(mask, np.repeat(mask[:, :, :1], nx, axis=2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": "spiral"}, "spiral"),
        ({"acceleration": 0.5}, "0.5"),
        ({"acceleration": float("nan")}, "nan"),
        ({"pattern": "uniform", "acceleration": 2.5}, "integer"),
        ({"shape": (1, 0, 8)}, "shape"),
        ({"acs": 99}, "99 ACS"),
        ({"acs": -1}, "-1 ACS"),
    ],
)
def test_a_mask_that_cannot_be_is_refused_with_what_was_found(changes, words):
    options = {"pattern": "random", "acceleration": 4, "shape": (2, 32, 32), "acs": 8} | changes
    with pytest.raises(ConfigError, match=words):
        draw_mask(
            options.pop("pattern"), options.pop("acceleration"), rng=np.random.default_rng(0), **options
        )

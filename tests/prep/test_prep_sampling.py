from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import DataError
from recon_node.prep import classify_sampling

ACS = 20
SIZES = st.integers(96, 256)
RATES = st.integers(2, 24)


def with_acs(lines: np.ndarray, acs: int = ACS) -> np.ndarray:
    centre = lines.shape[-1] // 2
    lines[..., centre - acs // 2 : centre + acs // 2] = True
    return lines


def spokes(phases: int, shape: tuple[int, int], count: int, *, turn: float = 137.5) -> np.ndarray:
    ny, nx = shape
    mask = np.zeros((phases, ny, nx), dtype=bool)
    along = np.arange(-max(shape), max(shape), 0.5)
    for phase in range(phases):
        for number in range(count):
            angle = np.deg2rad(number * 180 / count + phase * turn + 3)
            y = np.rint(ny // 2 + along * np.sin(angle)).astype(int)
            x = np.rint(nx // 2 + along * np.cos(angle)).astype(int)
            inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
            mask[phase, y[inside], x[inside]] = True
    mask[:, ny // 2 - 10 : ny // 2 + 10, nx // 2 - 10 : nx // 2 + 10] = True
    return mask


@settings(deadline=None, max_examples=150)
@given(
    SIZES,
    RATES,
    st.integers(0, 23),
    st.sampled_from([1, 3, 25]),
    st.booleans(),
    st.sampled_from([16, 20, 24]),
)
def test_regular_lines_are_uniform_with_their_exact_spacing(
    ny: int, rate: int, offset: int, phases: int, shifted: bool, acs: int
) -> None:
    shift = np.arange(phases)[:, None] * shifted
    lines = with_acs((np.arange(ny)[None] - offset - shift) % rate == 0, acs)
    found = classify_sampling(np.repeat(lines[:, :, None], 8, axis=2))
    assert found.pattern == "uniform"
    few = lines[0].sum() < acs + 6  # several grids may fit that few lines
    assert found.acceleration == rate or few
    assert acs <= found.acs <= acs + 2
    assert found.partial_fourier == 1.0
    assert len(found.per_phase) == phases


@settings(deadline=None, max_examples=150)
@given(SIZES, st.integers(2, 24), st.sampled_from([1, 12]), st.integers(0, 10**6))
def test_random_lines_are_random_with_the_rate_outside_the_block(
    ny: int, rate: int, phases: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.random((phases, ny)) < 1 / rate
    outside = np.ones(ny, dtype=bool)
    outside[ny // 2 - 10 : ny // 2 + 10] = False
    lines = with_acs(drawn.copy())
    if (drawn & outside).sum(axis=1).min() < 4:
        return  # a handful of lines can lie regularly by chance
    found = classify_sampling(lines[:, :, None])
    assert found.pattern == "random"
    truth = phases * outside.sum() / (drawn & outside).sum()
    assert found.acceleration == pytest.approx(truth, rel=0.35)
    assert found.acs >= ACS - 1
    assert found.effective_acceleration == pytest.approx(lines.size / lines.sum())


@pytest.mark.parametrize("shape", [(96, 96), (128, 160), (192, 192), (198, 442), (256, 192)])
@pytest.mark.parametrize("rate", [4, 6, 8, 12, 16, 20, 24])
@pytest.mark.parametrize("phases", [1, 3])
def test_spokes_are_radial_with_their_nominal_acceleration(
    shape: tuple[int, int], rate: int, phases: int
) -> None:
    count = round(180 / (0.6 * rate))
    found = classify_sampling(spokes(phases, shape, count))
    assert found.pattern == "radial"
    assert found.acceleration == pytest.approx(300 / count)
    assert found.acs >= 20
    assert found.acs_kx[1] - found.acs_kx[0] == found.acs


def test_golden_angle_spokes_are_radial_too() -> None:
    mask = np.zeros((192, 192), dtype=bool)
    along = np.arange(-96, 96, 0.5)
    for number in range(24):
        angle = np.deg2rad(number * 111.246)
        y, x = (np.rint(96 + along * f(angle)).astype(int).clip(0, 191) for f in (np.sin, np.cos))
        mask[y, x] = True
    assert classify_sampling(mask).pattern == "radial"


@pytest.mark.parametrize("rate", [2, 4, 8, 16, 24])
def test_scattered_points_are_random(rate: int) -> None:
    mask = np.random.default_rng(rate).random((3, 160, 128)) < 1 / rate
    mask[:, 70:90, 54:74] = True
    found = classify_sampling(mask)
    assert found.pattern == "random"
    assert found.acceleration == pytest.approx(rate, rel=0.1)
    assert found.acs == 20


@pytest.mark.parametrize("shape", [(64,), (64, 48), (5, 64, 48)])
def test_everything_sampled_is_full(shape: tuple[int, ...]) -> None:
    found = classify_sampling(np.ones(shape))
    assert (found.pattern, found.acceleration, found.effective_acceleration) == ("full", 1.0, 1.0)
    assert found.acs_ky == (0, 64)


@pytest.mark.parametrize("fraction", [5 / 8, 6 / 8, 7 / 8])
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("rate", [1, 2, 4])
def test_a_missing_side_is_partial_fourier(fraction: float, low: bool, rate: int) -> None:
    ny = 192
    lines = with_acs(np.arange(ny) % rate == 0, 24)
    cut = round(ny * (1 - fraction))
    lines[slice(0, cut) if low else slice(ny - cut, ny)] = False
    found = classify_sampling(lines)
    assert found.partial_fourier == pytest.approx(fraction, abs=0.03)
    assert found.pattern == ("full" if rate == 1 else "uniform")
    assert found.acceleration == rate


def test_an_asymmetric_echo_is_no_pattern() -> None:
    mask = np.zeros((3, 96, 80), dtype=bool)
    mask[:, ::3, 16:] = True
    mask[:, 38:58, 16:] = True
    found = classify_sampling(mask)
    assert (found.pattern, found.acceleration, found.acs) == ("uniform", 3, 20)


def test_zero_filled_resolution_is_full() -> None:
    lines = np.zeros(192, dtype=bool)
    lines[20:172] = True
    assert classify_sampling(lines).pattern == "full"


def test_a_central_block_alone_is_no_pattern() -> None:
    found = classify_sampling(with_acs(np.zeros(192, dtype=bool)))
    assert (found.pattern, found.acs) == ("unknown", 20)


@pytest.mark.parametrize("spacing", [2.5, 3.7, 5.2])
def test_rounded_equal_spacing_is_uniform(spacing: float) -> None:
    lines = np.zeros(200, dtype=bool)
    lines[np.floor(np.arange(0, 200, spacing)).astype(int)] = True
    found = classify_sampling(with_acs(lines))
    assert found.pattern == "uniform"
    assert found.acceleration == pytest.approx(spacing, abs=0.1)


@pytest.mark.parametrize("rate", [3, 4, 6, 8, 12, 16, 24])
def test_one_line_jittered_in_each_cell_is_random(rate: int) -> None:
    rng = np.random.default_rng(rate)
    lines = np.zeros((8, 192), dtype=bool)
    cells = np.arange(0, 192, rate)
    for row in lines:
        row[cells + rng.integers(rate, size=len(cells))] = True
    found = classify_sampling(with_acs(lines)[:, :, None])
    assert found.pattern == "random"
    assert found.acceleration == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("mask", [np.zeros(8), np.ones((2, 2, 2, 2)), np.ones((0, 4)), np.float64(1)])
def test_what_is_no_mask_is_a_clear_error(mask: np.ndarray) -> None:
    with pytest.raises(DataError, match="sampling mask"):
        classify_sampling(mask)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.floats(0.02, 0.98)
)
def test_any_mask_gives_finite_sensible_numbers(
    phases: int, ny: int, nx: int, seed: int, density: float
) -> None:
    mask = np.random.default_rng(seed).random((phases, ny, nx)) < density
    mask[0, 0, 0] = True
    found = classify_sampling(mask)
    assert np.isfinite([found.acceleration, found.effective_acceleration, *found.per_phase]).all()
    assert 1 <= found.effective_acceleration <= mask.size
    assert 0 < found.partial_fourier <= 1
    assert mask[:, slice(*found.acs_ky), slice(*found.acs_kx)].all()


SIDES = st.sampled_from([(162, 246), (128, 128), (192, 320)])


def lines_and_square(shape: tuple[int, int], lines: np.ndarray) -> np.ndarray:
    ny, nx = shape
    mask = np.repeat(lines[:, None], nx, axis=1)
    mask[ny // 2 - 10 : ny // 2 + 10, nx // 2 - 10 : nx // 2 + 10] = True
    return mask


@settings(deadline=None, max_examples=60)
@given(SIDES, RATES, st.integers(0, 10**6))
def test_lines_around_a_calibration_square_are_lines(shape: tuple[int, int], rate: int, seed: int) -> None:
    ny, _ = shape
    grid = classify_sampling(lines_and_square(shape, np.arange(ny) % rate == 0))
    assert (grid.pattern, grid.acceleration) == ("uniform", rate)
    assert grid.acs >= 20
    drawn = np.random.default_rng(seed).random(ny) < 1 / rate
    if drawn.sum() < 12:
        return
    found = classify_sampling(lines_and_square(shape, drawn))
    assert found.pattern == "random"
    assert found.acceleration == pytest.approx(ny / drawn.sum(), rel=0.25)


@settings(deadline=None, max_examples=60)
@given(SIDES, st.sampled_from([8, 12, 16]), st.sampled_from(["half", "middle"]), st.integers(0, 10**6))
def test_two_schemes_of_lines_are_named_both_and_counted_by_their_points(
    shape: tuple[int, int], rate: int, where: str, seed: int
) -> None:
    ny, nx = shape
    drawn = np.random.default_rng(seed).random(ny) < 1 / rate
    if (drawn[: ny // 2 - 10].sum() + drawn[ny // 2 + 10 :].sum()) < 7:
        return
    off = np.abs(np.arange(nx) - nx // 2)
    columns = np.arange(nx) < nx // 2 if where == "half" else off < nx // 4
    mask = np.where(columns, (np.arange(ny) % rate == 0)[:, None], drawn[:, None])
    mask[ny // 2 - 10 : ny // 2 + 10] = True
    found = classify_sampling(mask)
    assert found.pattern == "mixed"
    assert {name for name, _ in found.parts} == {"uniform", "random"}
    assert dict(found.parts)["uniform"] == rate
    outside = np.ones(ny, bool)
    outside[slice(*found.acs_ky)] = False
    assert found.acceleration == pytest.approx(outside.sum() * nx / mask[outside].sum(), rel=1e-6)
    assert found.acs >= 20


@pytest.mark.parametrize("shape", [(162, 246), (192, 192)])
def test_lines_beside_spokes_are_named_both(shape: tuple[int, int]) -> None:
    mask = spokes(3, shape, 19)
    mask[:, ::8] = True
    found = classify_sampling(mask)
    assert found.pattern == "mixed"
    assert dict(found.parts)["radial"] == pytest.approx(300 / 19, rel=0.1)
    assert dict(found.parts)["uniform"] == 8
    assert found.acceleration < 8


def test_lines_along_both_axes_are_no_spokes() -> None:
    mask = np.zeros((162, 246), bool)
    mask[::12] = True
    mask[:, ::12] = True
    found = classify_sampling(mask)
    assert found.pattern == "uniform"
    assert found.acceleration == pytest.approx(mask.size / mask.sum(), rel=0.05)


def test_a_few_lines_of_two_schemes_are_not_two_spokes() -> None:
    """As a measured cardiac frame was: 32 of 162 lines, in two bands; once named 150x radial."""
    rng = np.random.default_rng(3)
    drawn = rng.permutation(162) < 12
    mask = np.where(np.arange(246) < 123, (np.arange(162) % 12 == 3)[:, None], drawn[:, None])
    mask[71:91] = True
    found = classify_sampling(mask)
    assert found.pattern == "mixed"
    assert 8 < found.acceleration < 20
    assert str(found).endswith("uniform)") or str(found).endswith("random)")

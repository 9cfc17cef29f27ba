import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import DataError
from recon_node.solvers.exact import LineSystems
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.planes import in_planes
from recon_node.solvers.tikhonov import tikhonov

CPU = torch.device("cpu")


def complex_noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    parts = rng.standard_normal((2, *shape))
    return ((parts[0] + 1j * parts[1]) / np.sqrt(2)).astype(np.complex64)


def a_slice(
    rng: np.random.Generator, *, sets: int, coils: int, grid: tuple[int, int], phases: int, masks: int
) -> tuple[SenseOperator, torch.Tensor]:
    """Maps that vanish at random places, whole columns among them, and frames that share a few masks."""
    ky, kx = grid
    maps = complex_noise(rng, sets, coils, ky, kx)
    maps *= (rng.random((ky, kx)) < 0.6) & (rng.random(kx) < 0.9)
    kinds = rng.random((masks, ky)) < 0.6
    mask = np.broadcast_to(kinds[rng.integers(0, masks, phases)][..., None], (phases, ky, kx))
    return SenseOperator(maps, mask.copy(), CPU), torch.from_numpy(complex_noise(rng, phases, sets, kx, ky))


slices = given(
    seed=st.integers(0, 2**32 - 1),
    sets=st.integers(1, 2),
    coils=st.integers(1, 4),
    grid=st.tuples(st.integers(2, 26), st.integers(2, 13)),
    phases=st.integers(1, 5),
    masks=st.integers(1, 3),
)


@slices
@settings(max_examples=60, deadline=None)
def test_solutions_solve_their_equations(
    seed: int, sets: int, coils: int, grid: tuple[int, int], phases: int, masks: int
) -> None:
    rng = np.random.default_rng(seed)
    operator, target = a_slice(rng, sets=sets, coils=coils, grid=grid, phases=phases, masks=masks)
    systems = LineSystems.of(operator)
    pull = torch.from_numpy(rng.random((grid[1], grid[0])).astype(np.float32)) + 0.1
    for weight in (0.5, pull):
        for x in (systems.solve(target, weight), in_planes(systems.inverses(weight))(target)):
            torch.testing.assert_close(operator.normal(x) + weight * x, target, rtol=1e-3, atol=1e-3)


@slices
@settings(max_examples=30, deadline=None)
def test_predicted_noise_is_the_noise_of_many_reconstructions(
    seed: int, sets: int, coils: int, grid: tuple[int, int], phases: int, masks: int
) -> None:
    """The columns of the matrix from samples to image say how much noise it lets through."""
    rng = np.random.default_rng(seed)
    operator, target = a_slice(rng, sets=sets, coils=coils, grid=grid, phases=phases, masks=masks)
    systems = LineSystems.of(operator)
    x, y = (int(rng.integers(0, size)) for size in target.shape[-2:])
    one = torch.zeros_like(target)
    one[:, 0, x, y] = 1
    row = operator.forward(systems.solve(one, 0.1))  # of the Hermitian inverse, through the samples
    expected = row.abs().square().sum(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(systems.noise(0.1)[:, 0, x, y], expected, rtol=1e-3, atol=1e-4)


def test_the_factor_and_conjugate_gradients_agree() -> None:
    rng = np.random.default_rng(1)
    operator, target = a_slice(rng, sets=1, coils=4, grid=(24, 20), phases=4, masks=4)
    prior = torch.from_numpy(complex_noise(rng, 1, 1, 20, 24)) * (operator.coverage() > 0)
    systems = LineSystems.of(operator)
    assert systems.pays(400)
    assert not systems.pays(0)
    exact = tikhonov(operator, target, 0.1, prior=prior, iterations=400, systems=systems)
    operator.lines = False
    steps = tikhonov(operator, target, 0.1, prior=prior, iterations=400)
    seen = (operator.coverage() > 0).expand_as(target)
    torch.testing.assert_close(exact[seen], steps[seen], rtol=1e-3, atol=1e-3)


def test_without_regularisation_conjugate_gradients_do() -> None:
    rng = np.random.default_rng(2)
    operator, target = a_slice(rng, sets=1, coils=1, grid=(12, 8), phases=2, masks=1)
    assert torch.isfinite(tikhonov(operator, operator.normal(target), 0.0, iterations=20)).all()


def test_a_weak_regularisation_is_solved_as_well() -> None:
    rng = np.random.default_rng(3)
    operator, image = a_slice(rng, sets=1, coils=6, grid=(24, 8), phases=2, masks=1)
    target = operator.normal(image)
    found = LineSystems.of(operator).solve(target, 1e-6)
    torch.testing.assert_close(operator.normal(found), target, rtol=1e-4, atol=1e-4)


def test_masks_that_vary_along_the_readout_are_refused() -> None:
    mask = np.ones((1, 8, 6), bool)
    mask[0, 1, 3] = False
    with pytest.raises(DataError, match="whole readout lines"):
        LineSystems.of(SenseOperator(np.ones((1, 2, 8, 6), np.complex64), mask, CPU))


@pytest.mark.parametrize(("masks", "applications", "pays"), [(1, 4, True), (20, 4, False), (20, 60, True)])
def test_factors_are_made_where_they_take_less_time(masks: int, applications: int, pays: bool) -> None:
    """Of a real slice that took 0.6 s by factors and 1.5 s by conjugate gradients, three steps of each."""
    maps = torch.zeros(1, 11, 256, 192, dtype=torch.complex64)
    maps[..., :188] = 1
    rows = torch.zeros(20, 192)
    rows[:, ::8] = 1
    rows[torch.arange(20), torch.arange(20) % masks] = 1
    assert LineSystems(maps, rows).pays(applications) is pays

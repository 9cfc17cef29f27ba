import numpy as np
import pytest
import torch

from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.response import response

CPU = torch.device("cpu")


def complex_noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def mask_of(kind: str, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    if kind == "lines":
        return np.broadcast_to(rng.random((shape[0], shape[1], 1)) < 0.4, shape)
    return rng.random(shape) < 0.4


@pytest.mark.parametrize("kind", ["lines", "points"])
@pytest.mark.parametrize("shape", [(3, 12, 10), (2, 11, 13)])
@pytest.mark.parametrize("sets", [1, 2])
def test_the_adjoint_passes_the_dot_product_test(kind: str, shape: tuple[int, int, int], sets: int) -> None:
    rng = np.random.default_rng(1)
    maps = complex_noise(rng, sets, 4, *shape[1:])
    operator = SenseOperator(maps, mask_of(kind, rng, shape), CPU)
    x = torch.from_numpy(complex_noise(rng, shape[0], sets, shape[2], shape[1]))
    y = torch.from_numpy(complex_noise(rng, shape[0], 4, shape[2], shape[1]))
    left = torch.vdot(y.flatten(), operator.forward(x).flatten())
    right = torch.vdot(operator.adjoint(y).flatten(), x.flatten())
    assert abs(left - right) < 1e-5 * abs(left)


@pytest.mark.parametrize("kind", ["lines", "points"])
@pytest.mark.parametrize("points", [12, 17, 34, 191])
def test_the_normal_operator_is_adjoint_after_forward_also_at_large_prime_lengths(
    kind: str, points: int
) -> None:
    rng = np.random.default_rng(2)
    maps = complex_noise(rng, 2, 4, points, 10)
    operator = SenseOperator(maps, mask_of(kind, rng, (3, points, 10)), CPU)
    x = torch.from_numpy(complex_noise(rng, 3, 2, 10, points))
    torch.testing.assert_close(
        operator.normal(x), operator.adjoint(operator.forward(x)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["lines", "points"])
@pytest.mark.parametrize("shape", [(3, 12, 10), (2, 11, 13)])
def test_samples_of_a_simulated_acquisition_equal_the_operator_on_its_image(
    kind: str, shape: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(3)
    maps, mask = complex_noise(rng, 1, 4, *shape[1:]), mask_of(kind, rng, shape)
    image = complex_noise(rng, *shape)
    kspace = centred_fft(maps * image[:, None]) * mask[:, None]
    operator = SenseOperator(maps, mask, CPU)
    assert operator.lines == (kind == "lines")
    moved = operator.from_grid(image[:, None])
    torch.testing.assert_close(operator.forward(moved), operator.samples(kspace), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(operator.to_grid(moved)[:, 0], image)


@pytest.mark.parametrize("kind", ["lines", "points"])
def test_the_normal_operator_equals_two_dimensional_transforms_there_and_back(kind: str) -> None:
    rng = np.random.default_rng(4)
    maps, mask = complex_noise(rng, 1, 4, 12, 10), mask_of(kind, rng, (2, 12, 10))
    image = complex_noise(rng, 2, 12, 10)
    masked = centred_fft(maps * image[:, None]) * mask[:, None]
    expected = np.sum(maps.conj() * centred_ifft(masked), axis=1)
    operator = SenseOperator(maps, mask, CPU)
    found = operator.to_grid(operator.normal(operator.from_grid(image[:, None])))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("points", [16, 17, 97, 191])
def test_no_transform_of_lines_has_a_large_prime_length(points: int) -> None:
    mask = (torch.rand(2, points, generator=torch.Generator().manual_seed(4)) < 0.3).float()
    weights = response(mask)
    length = weights.shape[-1]
    assert length == points or length >= 2 * points - 1
    while length % 2 == 0:
        length //= 2
    for factor in (3, 5, 7, 11, 13):
        while length % factor == 0:
            length //= factor
    assert length == 1

"""Motion between frames, and what an aligned network does with it."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import ConfigError
from recon_node.model import CardioMM, CardioMMConfig, UNetConfig
from recon_node.model.consistency import Physics
from recon_node.model.motion import cut_motion, find_motion, fused, moved, neighbour_indices, offsets
from recon_node.solvers.kt import KtConfig

ROWS = torch.arange(64.0)[:, None]
COLUMNS = torch.arange(56.0)
ALIGNED = CardioMMConfig(
    cascades=2,
    frames=5,
    temporal_mean=True,
    start="kt",
    kt=KtConfig(iterations=3, static_iterations=3),
    aligned=True,
    consistency="proximal",
    residual=True,
    text_features=12,
    text_size=16,
    unet=UNetConfig(
        stem=4,
        levels=(6, 8, 8),
        prompts=(2, 3, 4),
        bank_sizes=(8, 4, 2),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(1, 1, 1),
        bottleneck_blocks=1,
    ),
)


def blobs(down: float, across: float, size: float = 1.0) -> torch.Tensor:
    """A few soft blobs and a ring, displaced and stretched about the middle."""
    y, x = (ROWS - 32 - down) / size, (COLUMNS - 28 - across) / size
    ring = torch.exp(-(((y**2 + x**2).sqrt() - 14) ** 2) / 8)
    spots = [torch.exp(-((y - a) ** 2 + (x - b) ** 2) / 18) for a, b in ((-8, 4), (6, -7), (9, 9), (0, 0))]
    return (ring + sum(spots)).to(torch.complex64)


def inside(x: torch.Tensor) -> torch.Tensor:
    return x[..., 12:-12, 10:-10]


@given(down=st.floats(-3, 3), across=st.floats(-3, 3))
@settings(max_examples=15)
def test_a_shift_is_found_within_a_fifth_of_a_pixel(down, across):
    motion = find_motion(torch.stack([blobs(0, 0), blobs(down, across)]), 3, periodic=False)
    found = inside(motion[0, offsets(3).index(1)])
    middle = found.flatten(1).median(dim=1).values
    assert abs(float(middle[0]) - down) < 0.2
    assert abs(float(middle[1]) - across) < 0.2


def test_neighbours_moved_by_the_motion_found_look_like_their_frame():
    beats = [blobs(s, s / 2, 1 + s / 20) for s in (0.0, 1.2, 2.0, 1.2)]
    series = torch.stack(beats)
    motion = find_motion(series, 3, periodic=True)
    index = neighbour_indices(slice(0, 4), 4, 3, periodic=True)
    for frame in range(4):
        for place in (1, 2):
            other = series[index[frame, place]].real[None, None]
            aligned = moved(other, motion[frame, place][None])[0, 0]
            before = inside(other[0, 0] - series[frame].real).norm()
            after = inside(aligned - series[frame].real).norm()
            assert after < 0.3 * before


def test_motion_does_not_depend_on_scale_or_phase_of_the_images():
    series = torch.stack([blobs(0, 0), blobs(1, -2)])
    turned = series * 500 * torch.exp(torch.tensor(1j * 0.7))
    torch.testing.assert_close(
        find_motion(turned, 3, periodic=True), find_motion(series, 3, periodic=True), atol=1e-3, rtol=0
    )


def test_nothing_moves_in_equal_or_empty_frames():
    for series in (torch.zeros(3, 16, 16, dtype=torch.complex64), blobs(0, 0).expand(3, 64, 56)):
        assert float(find_motion(series, 5, periodic=True).abs().max()) < 1e-4


def test_images_that_are_not_displaced_stay_as_they_are():
    image = blobs(0, 0).real[None, None]
    torch.testing.assert_close(moved(image, torch.zeros(1, 2, 64, 56)), image, atol=1e-5, rtol=1e-5)


def test_agreeing_neighbours_average_the_noise_and_others_have_no_say():
    rng = torch.Generator().manual_seed(0)
    still = torch.full((200, 5, 2, 12, 12), 10.0)
    noisy = still + torch.randn(still.shape, generator=rng) * 0.5**0.5
    assert float((fused(noisy, tolerance=3.0) - 10).std()) < 0.6 * float((noisy[:, 0] - 10).std())
    other = noisy.clone()
    other[:, 1:] += 40
    torch.testing.assert_close(fused(other, tolerance=3.0), noisy[:, 0])


@given(first=st.integers(0, 5), length=st.integers(1, 7))
def test_cut_motion_points_to_the_frames_that_are_left(first, length):
    frames = torch.arange(12.0)
    index = neighbour_indices(slice(0, 12), 12, 5, periodic=True)
    steps = (frames[index] - frames[:, None] + 6) % 12 - 6
    motion = steps[:, :, None, None, None].expand(12, 5, 2, 1, 1)
    window = slice(first, min(first + length, 12))
    total = len(frames[window])
    left = neighbour_indices(slice(0, total), total, 5, periodic=False) - torch.arange(total)[:, None]
    assert torch.equal(cut_motion(motion, window)[:, :, 0, 0, 0], left.float())


def problem(frames=6, noise=1.0):
    rng = torch.Generator().manual_seed(3)
    truth = 30 * torch.stack([blobs(2 * (f % 3), f % 3) for f in range(frames)])[None]
    maps = torch.randn(1, 4, 64, 56, dtype=torch.complex64, generator=rng)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = (torch.rand(1, frames, 1, 56, generator=rng) < 0.5).expand(1, frames, 64, 56)
    kspace = torch.fft.fftshift(
        torch.fft.fft2(
            torch.fft.ifftshift(truth.unsqueeze(2) * maps.unsqueeze(1), dim=(-2, -1)), norm="ortho"
        ),
        dim=(-2, -1),
    )
    kspace = kspace + noise * torch.randn(kspace.shape, dtype=torch.complex64, generator=rng)
    texts = torch.randn(2, 1, 12, generator=rng)
    return truth, kspace * mask.unsqueeze(2), mask, maps, texts


def test_motion_found_before_is_the_one_found_inside_and_chunks_change_nothing():
    torch.manual_seed(0)
    net = CardioMM(ALIGNED).requires_grad_(False)
    for phase in net.phases:
        torch.nn.init.normal_(phase.model.unet.head.weight, std=0.05)
    _, kspace, mask, maps, texts = problem()
    first = torch.randn(1, 6, 64, 56, dtype=torch.complex64)
    motion = find_motion(first[0], 5, periodic=True)[None]
    whole = net(kspace, mask, *texts, maps, first=first)
    torch.testing.assert_close(net(kspace, mask, *texts, maps, first=first, motion=motion), whole)
    torch.testing.assert_close(
        net(kspace, mask, *texts, maps, first=first, chunk=2), whole, atol=1e-3, rtol=1e-4
    )
    assert not torch.allclose(
        net(kspace, mask, *texts, maps, first=first, motion=torch.zeros_like(motion)), whole
    )


def test_an_untrained_aligned_network_is_a_better_first_estimate():
    net = CardioMM(ALIGNED).requires_grad_(False)
    truth, kspace, mask, maps, texts = problem(frames=9)
    images = net(kspace, mask, *texts, maps, first=_noisy(truth))
    assert float((images - truth).norm()) < 0.9 * float((_noisy(truth) - truth).norm())


def _noisy(truth):
    rng = torch.Generator().manual_seed(8)
    return truth + 1.5 * torch.randn(truth.shape, dtype=truth.dtype, generator=rng)


def test_the_proximal_step_solves_its_least_squares_problem():
    truth, kspace, mask, maps, _ = problem(noise=0.0)
    physics = Physics(maps, mask)
    start = _noisy(truth)
    measured, weight = physics.adjoint(kspace), torch.full((1, 1, 1, 1), 3.0)
    x = physics.proximal(start, measured, weight)
    before = measured - physics.gram(start)
    after = measured - physics.gram(x) - weight * (x - start)
    assert float(after.norm()) < 0.05 * float(before.norm())


@pytest.mark.parametrize("change", [{"frames": 1}, {"start": "zero-filled"}, {"residual": False}])
def test_aligned_frames_need_neighbours_a_first_estimate_and_a_residual(change):
    with pytest.raises(ConfigError, match="aligned: found True, allowed false without frames"):
        dataclasses.replace(ALIGNED, **change)


def test_learned_maps_come_with_the_published_consistency_only():
    with pytest.raises(ConfigError, match="consistency: found 'proximal', allowed step with learned"):
        dataclasses.replace(CardioMMConfig.published(), consistency="proximal")


def test_gradients_of_the_proximal_step_are_those_of_its_solution():
    torch.manual_seed(1)
    maps = torch.randn(1, 3, 6, 5, dtype=torch.complex128)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = (torch.rand(1, 2, 1, 5) < 0.6).expand(1, 2, 6, 5)
    physics = Physics(maps, mask)
    images, measured, towards = (torch.randn(1, 2, 6, 5, dtype=torch.complex128) for _ in range(3))
    measured = physics.gram(measured)

    def loss(z, power):
        x = physics.proximal(z, measured, power.exp()[:, None, None, None])
        return (x.conj() * towards).real.sum()

    power = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    z = images.clone().requires_grad_()
    loss(z, power).backward()
    step = 1e-4
    with torch.no_grad():
        by_power = (loss(images, power + step) - loss(images, power - step)) / (2 * step)
        nudged = step * towards
        by_image = (loss(images + nudged, power) - loss(images - nudged, power)) / (2 * step)
    assert float(power.grad) == pytest.approx(float(by_power), rel=1e-3)
    assert float((z.grad.conj() * towards).real.sum()) == pytest.approx(float(by_image), rel=1e-3)


def test_the_weight_of_the_data_depends_on_what_the_texts_say():
    net = CardioMM(ALIGNED)
    phase = net.phases[0]
    torch.nn.init.normal_(phase.dc_linear.weight)
    texts = torch.nn.functional.normalize(torch.randn(3, 16), dim=-1)
    weights = phase.weight(texts, texts.flip(0))
    assert weights.shape == (3, 1, 1, 1)
    assert len(weights.unique()) == 3
    assert bool((weights > 0).all())


def test_the_exact_proximal_step_is_where_conjugate_gradients_end():
    rng = torch.Generator().manual_seed(3)
    maps = torch.randn(1, 4, 12, 16, dtype=torch.complex64, generator=rng)
    maps = maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()
    maps[..., :3] = 0
    rows = torch.rand(16, generator=rng) < 0.5
    physics = Physics(maps, rows.expand(1, 6, 12, 16))
    start, target = (torch.randn(1, 6, 12, 16, dtype=torch.complex64, generator=rng) for _ in range(2))
    measured, weight = physics.gram(target), torch.full((1, 1, 1, 1), 0.2)
    assert not physics.solves_exactly()
    with torch.no_grad():
        assert physics.solves_exactly()
        exact = physics.exact_proximal(start, measured, weight)
    many = physics.proximal(start, measured, weight, iterations=60)
    torch.testing.assert_close(exact, many, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert not Physics(maps, torch.rand(1, 6, 12, 16, generator=rng) < 0.5).solves_exactly()
        assert not Physics(maps.repeat(2, 1, 1, 1), rows.expand(2, 6, 12, 16)).solves_exactly()

import dataclasses

import numpy as np
import pytest
import torch

from recon_node.core.errors import DataError, ModelError
from recon_node.core.fft import centred_fft as numpy_fft
from recon_node.model import CardioMM, CardioMMConfig, UNetConfig
from recon_node.model.blocks import Slope
from recon_node.model.consistency import Physics, centred_fft, centred_ifft, combine, time_average
from recon_node.model.sensitivity import acs_region, acs_width
from recon_node.model.unet import asinh
from recon_node.solvers.kt import KtConfig, kt_estimate

UNET = UNetConfig(
    stem=4,
    levels=(6, 8, 8),
    prompts=(2, 3, 4),
    bank_sizes=(8, 4, 2),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    bottleneck_blocks=1,
)
CONFIG = CardioMMConfig(cascades=2, unet=UNET, text_features=12, text_size=16)
CINE = dataclasses.replace(
    CONFIG,
    frames=3,
    temporal_mean=True,
    start="kt",
    kt=KtConfig(iterations=3, static_iterations=3),
    residual=True,
)


def rand(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex64, generator=rng)


class Clip:
    """Two items of five frames and three coils, line masks unless asked otherwise."""

    def __init__(self, *, frames=5, shape=(19, 22), lines=True, seed=1):
        rng = torch.Generator().manual_seed(seed)
        keep = torch.rand(2, frames, 1 if lines else shape[0], shape[1], generator=rng) < 0.6
        self.mask = keep.expand(2, frames, *shape).contiguous()
        self.maps = rand(2, 3, *shape, seed=seed)
        self.maps = self.maps / self.maps.abs().square().sum(1, keepdim=True).sqrt()
        self.kspace = rand(2, frames, 3, *shape, seed=seed + 1) * self.mask.unsqueeze(2)
        self.meta = torch.randn(2, 12, generator=rng)
        self.us = torch.randn(2, 12, generator=rng)

    def of(self, item):
        one = slice(item, item + 1)
        return self.kspace[one], self.mask[one], self.meta[one], self.us[one], self.maps[one]

    @property
    def all(self):
        return self.kspace, self.mask, self.meta, self.us, self.maps


def made(config, seed=0):
    torch.manual_seed(seed)
    net = CardioMM(config).eval()
    for name, p in net.named_parameters():  # adapters and heads start silent: make them do something
        if name.endswith(("gamma", "beta")):
            torch.nn.init.normal_(p)
        if name.endswith("head.weight"):
            torch.nn.init.kaiming_uniform_(p, a=5**0.5)
        if name.endswith("dc_weight"):
            torch.nn.init.constant_(p, -0.6)
    return net.requires_grad_(False)


def distance(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("shape", [(8, 6), (7, 5)])
def test_the_transform_is_the_one_of_numpy(shape):
    x = rand(2, *shape)
    np.testing.assert_allclose(centred_fft(x).numpy(), numpy_fft(x.numpy()), atol=1e-6)
    np.testing.assert_allclose(centred_ifft(centred_fft(x)).numpy(), x.numpy(), atol=1e-6)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_image_domain_consistency_equals_the_k_space_step(lines, weight, scale):
    clip = Clip(lines=lines)
    maps = clip.maps * scale  # maps that are not normalised must do as well
    physics = Physics(maps, clip.mask)
    assert physics.lines is lines
    images = rand(2, 5, 19, 22, seed=9)
    model = centred_fft(images.unsqueeze(2) * maps.unsqueeze(1))
    mask = clip.mask.unsqueeze(2)
    kspace = torch.where(mask, (clip.kspace + weight * model) / (1 + weight), model)
    coils = centred_ifft(kspace)
    step = physics.consistent(images, physics.adjoint(clip.kspace), weight)
    assert distance(step, combine(coils, maps.unsqueeze(1))) < 2e-6
    assert distance(physics.coil_images(images, clip.kspace, weight), coils) < 2e-6


@pytest.mark.parametrize("lines", [True, False])
def test_the_gradient_of_the_normal_operator_is_right_for_images_and_for_learned_maps(lines):
    clip = Clip(frames=2, shape=(8, 8), lines=lines)
    maps = clip.maps.to(torch.complex128)
    images = rand(2, 2, 8, 8).to(torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Physics(maps, clip.mask).gram(x), (images,))
    grad = torch.autograd.grad(Physics(maps, clip.mask).gram(images).abs().sum(), images)[0]
    learned = maps.clone().requires_grad_()
    plain = torch.autograd.grad(Physics(learned, clip.mask).gram(images).abs().sum(), images)[0]
    assert distance(grad, plain) < 1e-12


def test_the_slope_has_the_librarys_values_and_gradients():
    slope = Slope()
    x = torch.randn(3, 4, 5, 5, requires_grad=True)
    weights = torch.randn(3, 4, 5, 5)
    grads = torch.autograd.grad((slope(x) * weights).sum(), (x, slope.weight))
    plain = torch.nn.functional.prelu(x, slope.weight)
    wanted = torch.autograd.grad((plain * weights).sum(), (x, slope.weight))
    torch.testing.assert_close(slope(x), plain)
    torch.testing.assert_close(grads, wanted)


@pytest.mark.parametrize("config", [CONFIG, CINE, dataclasses.replace(CONFIG, sensitivity=UNET)])
def test_a_batch_with_different_texts_equals_its_items_alone(config):
    net, clip = made(config), Clip(lines=False)
    maps = None if config.sensitivity else clip.maps
    together = net(clip.kspace, clip.mask, clip.meta, clip.us, maps, acs=6)
    for item in (0, 1):
        kspace, mask, meta, us, own = clip.of(item)
        alone = net(kspace, mask, meta, us, None if maps is None else own, acs=6)
        assert distance(together[item], alone[0]) < 1e-5


@pytest.mark.parametrize("periodic", [True, False])
def test_chunks_of_frames_change_nothing(periodic):
    net, clip = made(CINE), Clip()
    whole = net(*clip.all, periodic=periodic)
    for chunk in (1, 2, 3):
        assert distance(net(*clip.all, periodic=periodic, chunk=chunk), whole) < 1e-5


def test_frames_of_a_single_frame_network_do_not_see_each_other():
    net, clip = made(CONFIG), Clip()
    whole = net(*clip.all)
    alone = net(clip.kspace[:, 2:3], clip.mask[:, 2:3], clip.meta, clip.us, clip.maps)
    assert distance(whole[:, 2:3], alone) < 1e-5


def test_a_cine_network_sees_neighbours_around_the_end_only_if_periodic():
    net, clip = made(dataclasses.replace(CONFIG, cascades=1, frames=3)), Clip()
    other = clip.kspace.clone()
    other[:, -1] *= 2
    for periodic, changed in ((True, [0, 3, 4]), (False, [3, 4])):
        before = net(*clip.all, periodic=periodic)
        after = net(other, clip.mask, clip.meta, clip.us, clip.maps, periodic=periodic)
        moved = (after - before).abs().amax(dim=(0, 2, 3)) > 1e-6
        assert moved.nonzero().flatten().tolist() == changed


def test_rolling_a_periodic_clip_rolls_the_images():
    net, clip = made(CINE), Clip()
    rolled = [clip.kspace.roll(2, 1), clip.mask.roll(2, 1), clip.meta, clip.us, clip.maps]
    assert distance(net(*rolled), net(*clip.all).roll(2, 1)) < 1e-5


@pytest.mark.parametrize("config", [CONFIG, CINE])
def test_the_network_is_scale_equivariant(config):
    net, clip = made(config), Clip()
    first = rand(2, 5, 19, 22, seed=9)
    scaled = net(clip.kspace * 1000, *clip.all[1:], first=first * 1000)
    assert distance(scaled, 1000 * net(*clip.all, first=first)) < 1e-5


def test_with_everything_sampled_and_no_trust_in_the_network_the_truth_comes_back():
    net, clip = made(CONFIG), Clip()
    for phase in net.phases:
        phase.dc_weight.zero_()
    truth = rand(2, 5, 19, 22, seed=5)
    kspace = centred_fft(truth.unsqueeze(2) * clip.maps.unsqueeze(1))
    images = net(kspace, torch.ones_like(clip.mask), clip.meta, clip.us, clip.maps)
    assert distance(images, truth) < 1e-5


def test_a_residual_network_with_a_silent_head_keeps_its_input():
    net, clip = made(dataclasses.replace(CONFIG, residual=True)), Clip()
    for phase in net.phases:
        phase.model.unet.head.weight.zero_()
    meta, us = net.embed(clip.meta, clip.us)
    physics = Physics(clip.maps, clip.mask)
    start = physics.adjoint(clip.kspace)
    unchanged = physics.consistent(start, start, 0.6)
    assert distance(net.unroll(physics, start, meta, us), unchanged) < 1e-5


def test_a_new_residual_network_starts_as_its_first_estimate():
    torch.manual_seed(0)
    net, clip = CardioMM(dataclasses.replace(CINE, cascades=1)).requires_grad_(False), Clip()
    physics, first = Physics(clip.maps, clip.mask), rand(2, 5, 19, 22, seed=8)
    texts = net.embed(clip.meta, clip.us)
    images = net.unroll(physics, physics.adjoint(clip.kspace), *texts, first=first)
    assert distance(images, first) < 1e-6


def test_a_first_estimate_made_before_is_the_one_made_inside():
    net, clip = made(CINE), Clip()
    first = kt_estimate(clip.kspace, clip.mask, clip.maps, CINE.kt)
    assert distance(net(*clip.all, first=first), net(*clip.all)) < 1e-6
    assert distance(net(*clip.all, first=torch.zeros_like(first)), net(*clip.all)) > 1e-3


@pytest.mark.parametrize(("metadata", "undersampling"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_each_variant_sees_exactly_its_texts(metadata, undersampling):
    config = dataclasses.replace(CONFIG, metadata_text=bool(metadata), undersampling_text=bool(undersampling))
    net, clip = made(config), Clip()
    images = net(*clip.all)
    for position, seen in ((2, metadata), (3, undersampling)):
        changed = list(clip.all)
        changed[position] = -changed[position]
        assert (distance(net(*changed), images) > 1e-6) == bool(seen)


def test_sign_normalisation_gives_signs_and_l2_unit_vectors():
    clip = Clip()
    for norm, length in (("sign", 4.0), ("l2", 1.0)):
        meta, us = made(dataclasses.replace(CONFIG, text_norm=norm)).embed(clip.meta, clip.us)
        torch.testing.assert_close(meta.norm(dim=1), torch.full((2,), length))
        assert norm == "l2" or set(us.unique().tolist()) == {-1.0, 1.0}


def test_stored_statistics_centre_and_scale_the_text():
    clip, net, centred = Clip(), made(CONFIG), made(CONFIG)
    mean, scale = torch.randn(12), torch.rand(12) + 0.5
    centred.metadata_head.set_statistics(mean, scale)
    torch.testing.assert_close(
        centred.embed(clip.meta * scale + mean, clip.us)[0], net.embed(clip.meta, clip.us)[0]
    )
    with pytest.raises(ModelError, match="positive scale"):
        net.metadata_head.set_statistics(mean, torch.zeros(12))


def test_checkpointing_changes_memory_not_gradients():
    clip = Clip()
    grads = []
    for checkpointing in (False, True):
        net = made(CINE).requires_grad_()
        net.checkpointing = checkpointing
        net(*clip.all).abs().sum().backward()
        grads.append({name: p.grad for name, p in net.named_parameters()})
    torch.testing.assert_close(grads[0], grads[1])


def test_every_trainable_tensor_gets_a_gradient():
    net, clip = made(CINE).requires_grad_(), Clip()
    net(*clip.all).abs().square().sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in silent if not name.endswith(("squeeze.weight", "excite.weight"))] == []


def test_bfloat16_convolutions_stay_close_to_float32():
    net, clip = made(CINE), Clip()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(*clip.all)
    assert half.dtype == torch.complex64
    assert 0 < distance(half, net(*clip.all)) < 0.03


def test_the_time_average_counts_only_frames_that_sampled():
    clip = Clip()
    static = rand(2, 1, 3, 19, 22).expand(2, 5, 3, 19, 22)
    average = time_average(static * clip.mask.unsqueeze(2), clip.mask)
    sampled = clip.mask.any(dim=1).unsqueeze(1)
    torch.testing.assert_close(average, static[:, 0] * sampled)


@pytest.mark.parametrize(
    ("row", "width"),
    [
        ("0001110000", 2),
        ("0011111100", 6),
        ("0111111000", 4),
        ("0000010000", 1),
        ("0000000000", 1),
        ("1111100000", 1),
        ("1111111111", 1),
        ("01111111111", 1),
        ("001111010", 4),
    ],
)
def test_the_calibration_width_is_counted_from_the_centre(row, width):
    assert acs_width(torch.tensor([c == "1" for c in row])) == width


@pytest.mark.parametrize(("size", "width", "start"), [(40, 8, 16), (41, 8, 17), (40, 7, 17), (41, 7, 17)])
def test_the_calibration_region_lies_as_in_the_published_network(size, width, start):
    rows, columns = acs_region((30, size), width, "columns")
    assert (rows, columns) == (slice(0, 30), slice(start, start + width))
    assert acs_region((size, size), width, "square") == (columns, columns)


@pytest.mark.parametrize(("width", "rule"), [(41, "columns"), (31, "square"), (-1, "columns")])
def test_a_calibration_region_that_does_not_fit_is_refused(width, rule):
    with pytest.raises(DataError, match="does not fit"):
        acs_region((30, 40), width, rule)


def test_a_network_without_sensitivity_part_asks_for_maps():
    clip = Clip()
    with pytest.raises(ModelError, match="ESPIRiT"):
        made(CONFIG)(*clip.all[:4])


def test_text_of_another_length_is_refused():
    clip = Clip()
    with pytest.raises(ModelError, match="text encoder"):
        made(CONFIG)(clip.kspace, clip.mask, clip.meta[:, :5], clip.us, clip.maps)


def test_an_image_smaller_than_the_depth_is_refused():
    clip = Clip(shape=(7, 22))
    with pytest.raises(DataError, match="at least 8 x 8"):
        made(CONFIG)(*clip.all)


def test_a_network_that_starts_from_a_kt_estimate_asks_for_it():
    net, clip = made(CINE), Clip()
    physics = Physics(clip.maps, clip.mask)
    with pytest.raises(ModelError, match="k-t estimate"):
        net.unroll(physics, physics.adjoint(clip.kspace), *net.embed(clip.meta, clip.us))


def test_asinh_without_gradients_is_the_librarys():
    x = torch.cat([torch.linspace(-30, 30, 1001), torch.tensor([-1e-8, 0.0, 1e-4, -1e6, 1e17])])
    with torch.no_grad():
        torch.testing.assert_close(asinh(x), torch.asinh(x), rtol=5e-7, atol=0)
        assert torch.isfinite(asinh(torch.tensor([3e38]))).all()

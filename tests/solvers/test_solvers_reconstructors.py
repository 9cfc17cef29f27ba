import dataclasses

import numpy as np
import pytest
import torch

from recon_node.core.errors import ConfigError, DataError, DeviceError
from recon_node.core.fft import centred_fft
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, KSpace, Sampling
from recon_node.methods.iterative import settled
from recon_node.methods.kt import KtSparse
from recon_node.methods.l1_wavelet import L1Wavelet
from recon_node.methods.sense import Sense
from recon_node.methods.view_sharing import ViewSharing, share_views
from recon_node.methods.zero_filled import ZeroFilled
from recon_node.solvers.kt import KtConfig
from recon_node.solvers.planes import in_planes
from recon_node.solvers.total_variation import TotalVariation
from recon_node.solvers.wavelet import WaveletShrinkage

HEADER = ScanHeader(
    encoded_matrix=(40, 48, 1),
    encoded_fov_mm=(200.0, 240.0, 8.0),
    recon_matrix=(40, 48, 1),
    recon_fov_mm=(200.0, 240.0, 8.0),
)
GEOMETRY = SliceGeometry(
    position_mm=(1.0, 2.0, 3.0),
    read_dir=(1.0, 0.0, 0.0),
    phase_dir=(0.0, 1.0, 0.0),
    slice_dir=(0.0, 0.0, 1.0),
    fov_mm=(200.0, 240.0, 8.0),
)
SAMPLING = Sampling(pattern="unknown", acceleration=1.0, effective_acceleration=1.0, acs=0)


class Scene:
    """A beating disc in a textured body, seen by six coils, noise of standard deviation one."""

    def __init__(self, *, phases: int = 6, snr: float = 40.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[-1:1:48j, -1:1:40j]
        angle = 2 * np.pi * np.arange(6)[:, None, None] / 6
        maps = np.exp(1j * (angle + x * np.cos(angle))) / (
            0.4 + (y - 1.2 * np.sin(angle)) ** 2 + (x - 1.2 * np.cos(angle)) ** 2
        )
        self.support = (x / 0.9) ** 2 + (y / 0.8) ** 2 < 1
        maps = self.support * maps / np.linalg.norm(maps, axis=0)
        self.maps = CoilMaps(data=maps[None].astype(np.complex64), support=self.support)
        radius = 0.3 + 0.06 * np.cos(2 * np.pi * np.arange(phases) / phases)
        grain = rng.standard_normal((48, 40))
        for axis in (0, 1, 0, 1):
            grain = (np.roll(grain, 1, axis) + 2 * grain + np.roll(grain, -1, axis)) / 3
        body = 1 + 0.1 * grain
        heart = x**2 + y**2 < radius[:, None, None] ** 2
        self.truth = (snr * (body + heart) * self.support * np.exp(0.5j * x)).astype(np.complex64)
        coil_images = self.maps.data * self.truth[:, None]
        noise = rng.standard_normal((2, *coil_images.shape)) / np.sqrt(2)
        self.full = (centred_fft(coil_images) + noise[0] + 1j * noise[1]).astype(np.complex64)

    def kspace(self, mask: np.ndarray, **changes: object) -> KSpace:
        mask = np.array(np.broadcast_to(mask, (len(self.full), *self.full.shape[2:])))
        values = {
            "data": self.full * mask[:, None],
            "mask": mask,
            "header": HEADER,
            "index": SliceIndex(slice=3),
            "geometry": GEOMETRY,
            "sampling": SAMPLING,
            "whitened": True,
        }
        return KSpace(**(values | changes))

    def error(self, images: np.ndarray) -> float:
        """Root mean square error inside the support, in noise standard deviations."""
        return float(np.sqrt(np.mean(np.abs(images - self.truth)[:, self.support] ** 2)))


def lines(scene: Scene, rate: float, acs: int = 8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = rng.random((len(scene.truth), 48, 1)) < 1 / rate
    mask[:, 24 - acs // 2 : 24 + acs // 2] = True
    return mask


FULL = np.ones((1, 48, 40), bool)
METHODS = [
    ZeroFilled(),
    Sense(device="cpu"),
    L1Wavelet(device="cpu"),
    KtSparse(device="cpu"),
    ViewSharing(),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_names_itself_and_its_settings_in_the_series(method: object) -> None:
    scene = Scene(phases=4)
    made = method.reconstruct(scene.kspace(FULL), scene.maps, None)
    assert made.made_by.method == method.name
    assert made.index == SliceIndex(slice=3)
    assert made.geometry is GEOMETRY
    assert made.data.shape == (4, 48, 40)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_refuses_an_empty_mask(method: object) -> None:
    scene = Scene(phases=2)
    with pytest.raises(DataError, match="mask is empty"):
        method.reconstruct(scene.kspace(~FULL), scene.maps, None)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_a_method_refuses_samples_that_are_not_finite(method: object, spoiled: float) -> None:
    scene = Scene(phases=2)
    data = scene.full.copy()
    data[1, 2, 3, 4] = spoiled
    with pytest.raises(DataError, match="NaN or infinite"):
        method.reconstruct(scene.kspace(FULL, data=data), scene.maps, None)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("shape", [(1, 5, 48, 40), (1, 6, 48, 42)])
def test_a_method_refuses_maps_of_other_coils_or_pixels(method: object, shape: tuple[int, ...]) -> None:
    scene = Scene(phases=2)
    other = CoilMaps(data=np.zeros(shape, np.complex64), support=np.zeros(shape[2:], bool))
    with pytest.raises(DataError, match="coil maps"):
        method.reconstruct(scene.kspace(FULL), other, None)


def test_zero_filling_a_full_acquisition_gives_the_truth_to_noise_level() -> None:
    scene = Scene()
    assert scene.error(ZeroFilled().reconstruct(scene.kspace(FULL), scene.maps).data) < 1.1


def test_zero_filling_without_maps_is_the_root_sum_of_squares() -> None:
    scene = Scene()
    images = ZeroFilled().reconstruct(scene.kspace(FULL), None)
    assert images.made_by.settings["combination"] == "rss"
    assert np.abs(images.data - np.abs(scene.truth))[:, scene.support].mean() < 1.5


@pytest.mark.parametrize("kind", ["lines", "points"])
def test_sense_recovers_a_determined_problem_to_noise_level(kind: str) -> None:
    scene = Scene()
    mask = np.zeros((48, 40), bool)
    mask[::2] = True
    if kind == "points":
        mask ^= (np.arange(40) % 2).astype(bool)
    mask[20:28] = True
    kspace = scene.kspace(mask)
    found = Sense(iterations=60, regularisation=1e-4).reconstruct(kspace, scene.maps)
    assert scene.error(found.data) < 1.8
    assert scene.error(ZeroFilled().reconstruct(kspace, scene.maps).data) > 4


@pytest.mark.parametrize(
    "method",
    [
        Sense(iterations=80, regularisation=0.0),
        KtSparse(
            KtConfig(
                static_temporal=0.0,
                static_spatial=0.0,
                static_iterations=120,
                unfolding_iterations=120,
                unfolding_refinements=0,
            )
        ),
        L1Wavelet(iterations=120, regularisation=0.0),
    ],
    ids=["sense", "kt", "l1-wavelet"],
)
def test_two_map_sets_recover_a_folded_object(method: Sense | KtSparse | L1Wavelet) -> None:
    scene = Scene()
    first, second = scene.maps.data[0], np.roll(scene.maps.data[0], 24, axis=-2)
    second = second - first * np.sum(first.conj() * second, axis=0)
    sets = np.stack([first, second / np.maximum(np.linalg.norm(second, axis=0), 1e-6)])
    shifted = np.roll(scene.truth, 24, axis=-2)
    coil_images = sets[0] * scene.truth[:, None] + sets[1] * shifted[:, None]
    scene.full = centred_fft(coil_images).astype(np.complex64)
    kspace = scene.kspace(FULL)
    both = CoilMaps(data=sets, support=scene.support)
    found = method.reconstruct(kspace, both)
    assert np.abs(found.data) == pytest.approx(np.sqrt((np.abs(found.parts) ** 2).sum(axis=1)), rel=1e-4)
    assert np.abs(found.parts.sum(axis=1) - scene.truth - shifted).mean() < 0.02 * np.abs(scene.truth).mean()


def test_what_sense_chose_for_a_slice_serves_its_parts() -> None:
    scene = Scene(phases=4, snr=5.0)
    kspace = scene.kspace(lines(scene, 3))
    images = Sense().reconstruct(kspace, scene.maps, None)
    weight = images.made_by.settings["regularisation"]
    part = dataclasses.replace(kspace, data=kspace.data[:1], mask=kspace.mask[:1])
    alike, alone = settled(Sense(), images), Sense()
    found = alike.reconstruct(part, scene.maps, None)
    assert found.made_by.settings["regularisation"] == weight
    np.testing.assert_allclose(found.data, images.data[:1], atol=1e-3)
    assert alone.reconstruct(part, scene.maps, None).made_by.settings["regularisation"] != weight
    of_another = KtSparse().reconstruct(part, scene.maps, None)
    assert settled(alone, of_another) is alone


def test_sense_stops_early_when_the_tolerance_is_met() -> None:
    scene = Scene()
    points = np.random.default_rng(0).random(scene.truth.shape) < 0.5
    points[:, 20:28, 16:24] = True
    kspace = scene.kspace(points)
    loose = Sense(tolerance=0.1, iterations=50).reconstruct(kspace, scene.maps).data
    short = Sense(iterations=4).reconstruct(kspace, scene.maps).data
    full = Sense(iterations=50).reconstruct(kspace, scene.maps).data
    assert scene.error(full) < scene.error(loose)
    assert np.abs(full - short).max() > 0


def test_a_frame_without_samples_does_not_disturb_the_others() -> None:
    scene = Scene()
    mask = lines(scene, 2.0)
    mask[2] = False
    found = Sense(regularisation=0.001).reconstruct(scene.kspace(mask), scene.maps).data
    assert np.isfinite(found.view(np.float32)).all()
    assert not found[2].any()
    mask[2] = mask[3]
    np.testing.assert_allclose(
        found[3],
        Sense(regularisation=0.001).reconstruct(scene.kspace(mask), scene.maps).data[3],
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coil_maps_that_are_no_numbers_are_refused(method: object, value: float) -> None:
    scene = Scene(phases=2)
    broken = scene.maps.data.copy()
    broken[0, 0, 3, 4] = value
    with pytest.raises(DataError, match="coil maps hold NaN or infinite"):
        method.reconstruct(
            scene.kspace(lines(scene, 2.0)), CoilMaps(data=broken, support=scene.support), None
        )


def test_coil_maps_out_of_all_proportion_are_said_so() -> None:
    scene = Scene(phases=2)
    huge = CoilMaps(data=scene.maps.data * np.float32(1e18), support=scene.support)
    mask = np.zeros((48, 1), bool)
    mask[::2] = True
    with pytest.raises(DataError, match=r"cannot be unfolded.*calibrate again"):
        KtSparse().reconstruct(scene.kspace(mask), huge)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="iterations=0"):
        Sense(iterations=0)
    with pytest.raises(ConfigError, match="regularisation=-1"):
        L1Wavelet(regularisation=-1)
    with pytest.raises(ConfigError, match="temporal: found -1"):
        KtSparse(KtConfig(temporal=-1))


def test_a_missing_cuda_device_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    scene = Scene(phases=2)
    with pytest.raises(DeviceError, match="no CUDA device"):
        Sense(device="cuda").reconstruct(scene.kspace(FULL), scene.maps)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_same_data_gives_the_same_images_twice(method: object) -> None:
    scene = Scene(phases=3)
    kspace = scene.kspace(lines(scene, 3.0))
    once, twice = (method.reconstruct(kspace, scene.maps, None).data for _ in range(2))
    np.testing.assert_array_equal(once, twice)


def test_sparsity_beats_sense_and_time_beats_both() -> None:
    scene = Scene(phases=12)
    kspace = scene.kspace(lines(scene, 6.0))
    errors = {
        method.name: scene.error(method.reconstruct(kspace, scene.maps, None).data) for method in METHODS
    }
    assert errors["kt"] < 0.6 * errors["l1-wavelet"]
    assert errors["l1-wavelet"] < 0.8 * errors["sense"]
    assert errors["sense"] < 0.97 * errors["zero-filled"]
    assert errors["kt"] < 0.8 * errors["view-sharing"]


def test_a_frame_alone_is_smoothed_by_a_weight_of_its_own() -> None:
    scene = Scene(phases=1)
    kspace = scene.kspace(lines(scene, 3.0))

    def images(**weights: float) -> np.ndarray:
        return KtSparse(KtConfig(**weights)).reconstruct(kspace, scene.maps).data

    np.testing.assert_array_equal(images(spatial=1.0, static_spatial=1.0, static_temporal=1.0), images())
    assert np.abs(images(single_spatial=1.0) - images()).max() > 1


def test_view_sharing_a_still_object_gives_the_truth_to_noise_level() -> None:
    scene = Scene(phases=8)
    scene.full += centred_fft(scene.maps.data * (scene.truth[:1] - scene.truth)[:, None]).astype(np.complex64)
    mask = np.zeros((8, 48, 1), bool)
    for phase in range(8):
        mask[phase, phase % 4 :: 4] = True
    found = ViewSharing().reconstruct(scene.kspace(mask), scene.maps).data
    assert np.abs(found - scene.truth[:1])[:, scene.support].mean() < 1.2


def test_view_sharing_takes_the_nearest_frame_around_the_cycle() -> None:
    data = np.zeros((5, 1, 2, 2), np.complex64)
    mask = np.zeros((5, 2, 2), bool)
    for phase in (1, 4):
        data[phase, :, 0], mask[phase, 0] = phase, True
    filled = share_views(data, mask)
    assert [filled[phase, 0, 0, 0].real for phase in range(5)] == [2.5, 1, 1, 4, 4]
    assert not filled[:, :, 1].any()


@pytest.mark.parametrize("method", ["l1-wavelet", "kt"])
def test_scaling_data_that_were_not_whitened_scales_the_images(method: str) -> None:
    scene = Scene(phases=3, snr=5.0)
    kspace = scene.kspace(FULL, whitened=False)
    scaled = scene.kspace(FULL, whitened=False, data=kspace.data * np.float32(1e-4))
    chosen = next(m for m in METHODS if m.name == method)
    first, second = (chosen.reconstruct(k, scene.maps, None) for k in (kspace, scaled))
    np.testing.assert_allclose(second.data, first.data * 1e-4, rtol=1e-2, atol=2e-6)
    assert first.made_by.settings["noise_unit"] == pytest.approx(1, abs=0.15)


def test_running_out_of_device_memory_is_a_retryable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("recon_node.methods.sense.SenseOperator", full)
    scene = Scene(phases=2)
    with pytest.raises(DeviceError, match="out of memory") as caught:
        Sense().reconstruct(scene.kspace(FULL), scene.maps)
    assert caught.value.retryable


@pytest.mark.parametrize("size", [(48, 40), (33, 50), (7, 9)])
def test_wavelet_shrinkage_with_no_limit_changes_nothing(size: tuple[int, int]) -> None:
    x = torch.randn(2, 1, *size, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(WaveletShrinkage(0.0)(x), x, rtol=1e-4, atol=1e-5)


def test_total_variation_solves_its_proximal_problem() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 1, 5, 4, dtype=torch.complex64, generator=generator)
    found = in_planes(TotalVariation(0.4, 0.2, steps=800))(x)

    def cost(z: torch.Tensor) -> float:
        jumps = [(torch.roll(z, -1, axis) - z).abs().sum() for axis in (0, -2, -1)]
        return float((z - x).abs().square().sum() / 2 + 0.4 * jumps[0] + 0.2 * (jumps[1] + jumps[2]))

    least = cost(found)
    assert least < cost(x)
    for _ in range(20):
        other = found + 0.02 * torch.randn(x.shape, dtype=x.dtype, generator=generator)
        assert cost(other) > least

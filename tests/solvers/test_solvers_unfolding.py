import numpy as np
import pytest
import torch

from recon_node.core.fft import centred_fft
from recon_node.solvers import unfolding
from recon_node.solvers.air import air_pull
from recon_node.solvers.exact import LineSystems
from recon_node.solvers.kt import KtConfig, kt_images
from recon_node.solvers.operator import SenseOperator
from recon_node.solvers.unfolding import unfolds

CPU = torch.device("cpu")


def complex_noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    parts = rng.standard_normal((2, *shape))
    return ((parts[0] + 1j * parts[1]) / np.sqrt(2)).astype(np.complex64)


class Phantom:
    """A bright disc whose brightness beats, and an outer ring of air, seen by eight coils."""

    def __init__(self, *, phases: int = 5, seed: int = 0, extra: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[-1:1:48j, -1:1:40j]
        angle = 2 * np.pi * np.arange(8)[:, None, None] / 8
        coils = np.exp(1j * (angle + x * np.cos(angle))) / (
            0.4 + (y - 1.2 * np.sin(angle)) ** 2 + (x - 1.2 * np.cos(angle)) ** 2
        )
        self.maps = (coils / np.linalg.norm(coils, axis=0))[None].astype(np.complex64)
        self.body = x**2 + y**2 < 0.5**2
        self.outside = (x**2 + (y - 0.85) ** 2 < 0.1**2) & ~self.body
        beat = 100 * (1 + 0.2 * np.cos(2 * np.pi * np.arange(phases) / phases))
        texture = 1 + 0.2 * np.sin(9 * x) * np.cos(7 * y)
        images = beat[:, None, None] * texture * self.body + 100 * extra * self.outside
        self.truth = images.astype(np.complex64)
        full = centred_fft(self.maps[0] * self.truth[:, None])
        self.full = (full + complex_noise(rng, *full.shape)).astype(np.complex64)

    def mask(self, step: int = 3, acs: int = 8) -> np.ndarray:
        mask = np.zeros(self.truth.shape, bool)
        mask[:, ::step] = True
        mask[:, 24 - acs // 2 : 24 + acs // 2] = True
        return mask

    def images(self, config: KtConfig, mask: np.ndarray | None = None) -> np.ndarray:
        sampled = self.mask() if mask is None else mask
        return kt_images(self.full * sampled[:, None], sampled, self.maps, config, CPU)

    def error(self, images: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.abs(images - self.truth) ** 2)))


def test_it_reaches_what_gradient_steps_reach_after_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    phantom = Phantom()
    config = KtConfig(
        static_iterations=1500, unfolding_iterations=400, static_refinements=0, unfolding_refinements=0, air=0
    )
    exact = phantom.images(config)
    monkeypatch.setattr(unfolding, "LARGEST_BYTES", 0)
    steps = phantom.images(config)
    assert np.linalg.norm(exact - steps) < 0.02 * np.linalg.norm(steps - phantom.truth)


def test_inverses_that_fit_no_memory_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    phantom = Phantom()
    systems = LineSystems.of(SenseOperator(phantom.maps, phantom.mask(), CPU))
    assert unfolds(systems)
    assert not unfolds(None)
    monkeypatch.setattr(unfolding, "LARGEST_BYTES", systems.bytes - 1)
    assert not unfolds(systems)


@pytest.mark.parametrize("memory", [unfolding.LARGEST_BYTES, 0], ids=["exact", "steps"])
def test_knowing_where_air_is_helps_the_body(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfolding, "LARGEST_BYTES", memory)
    phantom = Phantom()
    mask = phantom.mask()
    without, pulled = (
        phantom.images(KtConfig(air=air, static_refinements=0, unfolding_refinements=0), mask)
        for air in (0.0, 0.2)
    )
    inside = phantom.body

    def error(images: np.ndarray) -> float:
        return float(np.abs(images - phantom.truth)[:, inside].mean())

    assert error(pulled) < 0.95 * error(without)
    assert np.abs(pulled)[:, ~inside].mean() < 0.8 * np.abs(without)[:, ~inside].mean()


def test_a_part_of_a_scan_is_told_where_air_is_by_the_whole_with_one_set_of_inverses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phantom = Phantom()
    config, mask = KtConfig(), phantom.mask()
    seen = phantom.images(config)
    mask[:, [3, 39]] = False
    made = []
    inverses = LineSystems.inverses
    monkeypatch.setattr(LineSystems, "inverses", lambda *given: made.append(1) or inverses(*given))
    alone = phantom.images(config, mask)
    assert len(made) == 4
    told = kt_images(phantom.full * mask[:, None], mask, phantom.maps, config, CPU, seen=seen)
    assert len(made) == 5
    assert np.linalg.norm(told - alone) < 0.3 * np.linalg.norm(alone - phantom.truth)
    assert phantom.error(told) < 1.02 * phantom.error(alone)


def test_within_the_training_of_a_network_in_half_precision_nothing_is_halved() -> None:
    phantom = Phantom()
    whole = phantom.images(KtConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(phantom.images(KtConfig()), whole)


@pytest.mark.parametrize("extra", [0.05, 0.5], ids=["faint", "bright"])
def test_signal_beside_the_body_stays(extra: float) -> None:
    phantom = Phantom(extra=extra)
    full = np.ones_like(phantom.mask())
    images = phantom.images(KtConfig(), full)
    core = np.abs(images)[:, phantom.outside].mean()
    assert core > 0.75 * 100 * extra


def test_air_is_where_nothing_is_bright_and_nothing_near_is() -> None:
    images = torch.zeros(3, 1, 20, 16, dtype=torch.complex64)
    images[:, :, 5:10, 4:9] = 3 + 4j
    pull = air_pull(images, 0.2)
    assert (pull[5:10, 4:9] == 0).all()
    assert (pull[4:11, 3:10] < 1e-3).all()
    torch.testing.assert_close(pull[14:18, 12:15], torch.full((4, 3), 0.2))
    torch.testing.assert_close(air_pull(1e-5 * images, 0.2), pull)
    at_the_edge = air_pull(images.roll((-5, -4), (2, 3)), 0.2)
    torch.testing.assert_close(at_the_edge, pull.roll((-5, -4), (0, 1)))


def test_what_lights_up_in_one_of_many_frames_is_no_air() -> None:
    images = torch.zeros(100, 1, 20, 16, dtype=torch.complex64)
    images[:, :, 2:6, 4:9] = 10
    images[40, :, 14:17, 4:9] = 5
    assert (air_pull(images, 0.2)[14:17, 4:9] < 1e-6).all()


def test_an_image_of_nothing_is_air_and_no_error() -> None:
    pull = air_pull(torch.zeros(5, 2, 8, 8, dtype=torch.complex64), 0.1)
    torch.testing.assert_close(pull, torch.full((8, 8), 0.1))
    phantom = Phantom()
    phantom.full[:] = 0
    assert not phantom.images(KtConfig()).any()

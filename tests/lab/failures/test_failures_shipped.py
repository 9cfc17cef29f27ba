"""What the shipped limits say of a heart that things happen to."""

from __future__ import annotations

import numpy as np
import pytest

from recon_node.lab.failures import KINDS
from recon_node.lab.failures.raw import raw_of, trial_of
from recon_node.methods.registry import make_methods
from recon_node.prompts import embed
from recon_node.settings import ReconSettings
from recon_node.simulate import draw_example
from recon_node.trust import judge_reconstruction


@pytest.fixture(scope="module")
def methods():
    return make_methods(ReconSettings(method="cardiomm", device="cpu"))


@pytest.fixture(scope="module")
def full():
    rng = np.random.default_rng(5)
    return draw_example(rng, matrix=(64, 64), phases=6, coils=8, modality="cine", view="short-axis")


def verdict(full, methods, name=None, strength=0.0):
    raw = raw_of(full, ("random", 8), [2], acs=16)
    if name is not None:
        KINDS[name].apply(raw, strength)
    trial = trial_of(raw)
    text = embed(trial.prompts, methods.encoder)

    def reconstruct(part):
        return methods.chosen.reconstruct(part, trial.maps, text)

    return judge_reconstruction(
        trial.kspace,
        trial.maps,
        reconstruct(trial.kspace),
        prompts=trial.prompts,
        reconstruct=reconstruct,
        reference=lambda part: methods.fallback.reconstruct(part, trial.maps, None),
        standards=methods.standards,
    )


def test_a_clean_scan_passes_with_a_bound(full, methods):
    found = verdict(full, methods)
    reasons = [reason for reason in found.reasons if "orientation" not in reason]
    assert not reasons
    assert 0.3 < found.expected.ssim_at_least < found.expected.ssim < 1
    assert found.expected.psnr_at_least < found.expected.psnr


@pytest.mark.parametrize(
    ("name", "strength", "said"),
    [
        ("dead-coil", 1, "one coil's signal is off by"),
        ("coils-swapped", 1, "one coil's signal is off by"),
        ("spikes", 0.2, "a spike"),
    ],
)
def test_a_scan_that_something_happened_to_does_not(full, methods, name, strength, said):
    found = verdict(full, methods, name, strength)
    assert found.verdict != "pass"
    assert any(said in reason for reason in found.reasons)

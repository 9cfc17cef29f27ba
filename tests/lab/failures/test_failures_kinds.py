from __future__ import annotations

import numpy as np
import pytest

from recon_node.core.errors import ConfigError
from recon_node.lab.failures import KINDS, chosen_kinds
from recon_node.lab.failures.networks import inventing
from recon_node.lab.failures.raw import raw_of, trial_of
from recon_node.methods.sense import Sense
from recon_node.simulate import draw_example

PHYSICAL = [name for name in KINDS if not name.endswith("-network") and name != "wrong-words"]


@pytest.fixture(scope="module")
def full():
    rng = np.random.default_rng(11)
    return draw_example(rng, matrix=(48, 48), phases=6, coils=6, modality="cine", view="short-axis")


def raw(full):
    return raw_of(full, ("random", 4), [1], acs=16)


def error(trial):
    images = np.abs(Sense(device="cpu").reconstruct(trial.kspace, trial.maps, None).data)
    truth = np.abs(trial.truth)
    images = images * np.vdot(images, truth) / np.vdot(images, images)
    return float(np.linalg.norm(images - truth) / np.linalg.norm(truth))


def test_there_are_kinds_enough_each_with_three_strengths_and_a_sentence():
    assert len(KINDS) >= 14
    for kind in KINDS.values():
        assert len(kind.strengths) == 3
        assert kind.says.endswith(".")


@pytest.mark.parametrize("name", PHYSICAL)
def test_what_happens_to_a_scan_changes_what_the_node_sees(full, name):
    clean, wrong = trial_of(raw(full)), raw(full)
    KINDS[name].apply(wrong, KINDS[name].strengths[2])
    seen = trial_of(wrong)
    same = seen.kspace.data.shape == clean.kspace.data.shape
    unchanged = same and np.array_equal(seen.kspace.data, clean.kspace.data)
    assert not (unchanged and np.array_equal(seen.kspace.calibration, clean.kspace.calibration))
    assert seen.truth.shape[0] == seen.kspace.data.shape[0]


@pytest.mark.parametrize(
    "name",
    [
        "coils-swapped",
        "dead-coil",
        "wrong-calibration",
        "spikes",
        "gain-jump",
        "wrong-triggers",
        "low-signal",
    ],
)
def test_strong_faults_spoil_the_image(full, name):
    wrong = raw(full)
    KINDS[name].apply(wrong, KINDS[name].strengths[2])
    assert error(trial_of(wrong)) > 1.5 * error(trial_of(raw(full)))


def test_a_scan_that_nothing_happens_to_is_the_drawn_one(full):
    trial = trial_of(raw(full))
    assert np.array_equal(trial.kspace.data, full.kspace * trial.kspace.mask[:, None])
    assert np.array_equal(trial.truth, full.images)


def test_words_are_wrong_in_the_prompts_and_nowhere_else(full):
    clean, wrong = trial_of(raw(full)), raw(full)
    KINDS["wrong-words"].apply(wrong, 3)
    seen = trial_of(wrong)
    assert np.array_equal(seen.kspace.data, clean.kspace.data)
    assert "T2 mapping" in seen.prompts.metadata
    assert seen.prompts.undersampling == "Undersampling: 4x uniform."


def test_what_is_invented_is_hidden_from_the_samples_it_was_made_with(full):
    trial = trial_of(raw(full))
    sense = Sense(device="cpu")

    def plain(part):
        return sense.reconstruct(part, trial.maps, None)

    made = inventing(plain, trial.maps, brightness=0.5, place=3)(trial.kspace)
    usual = plain(trial.kspace)
    detail = made.data - usual.data
    assert np.abs(detail).max() == pytest.approx(0.5 * np.quantile(np.abs(usual.data), 0.98), rel=1e-3)
    samples = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(trial.maps.data[0] * detail[:, None], axes=(-2, -1)), norm="ortho"),
        axes=(-2, -1),
    )
    noticed = np.linalg.norm(samples * trial.kspace.mask[:, None])
    assert noticed < 0.2 * np.linalg.norm(detail)


def test_kinds_are_chosen_by_name_and_those_about_networks_need_one():
    assert [kind.name for kind in chosen_kinds(["spikes"], learned=False)] == ["spikes"]
    assert not any(kind.network for kind in chosen_kinds([], learned=False))
    assert len(chosen_kinds([], learned=True)) == len(KINDS)
    with pytest.raises(ConfigError, match="found beauty, expected some of coils-swapped"):
        chosen_kinds(["beauty"], learned=True)


@pytest.mark.parametrize("name", ["phase-order", "phase-counter"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_phases_in_another_order_are_no_cine_that_merely_begins_later(full, name, level):
    clean, wrong = raw(full), raw(full)
    KINDS[name].apply(wrong, KINDS[name].strengths[level])
    phases = range(len(clean.samples))
    came = [next(n for n in phases if np.array_equal(wrong.samples[p], clean.samples[n])) for p in phases]
    assert sorted(came) == list(phases)
    assert len({(n - p) % len(phases) for p, n in enumerate(came)}) > 1
    away = sum(n != p for p, n in enumerate(came))
    assert away == max(2, round(KINDS[name].strengths[level] * len(phases)))


def test_motion_between_heartbeats_is_around_the_place_of_the_truth(full):
    wrong = raw(full)
    KINDS["motion-within"].apply(wrong, 3)
    clean = raw(full)
    lines = clean.samples.shape[2]
    ky = (np.arange(lines) - lines // 2)[None, None, :, None]
    turn = np.angle(np.sum(wrong.samples * clean.samples.conj(), axis=(0, 1, 3), keepdims=True))
    moved = -turn.ravel()[ky.ravel() != 0] * lines / (2 * np.pi * ky.ravel()[ky.ravel() != 0])
    near = np.abs(ky.ravel()[ky.ravel() != 0]) < lines / 4  # farther out the angle wraps
    assert moved[near].min() == pytest.approx(-1.5, abs=0.05)
    assert moved[near].max() == pytest.approx(1.5, abs=0.05)

"""Measured k-space: what is held back, how it is scored, and what the network makes of the shared scans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recon_node.cli import run
from recon_node.coils import combine
from recon_node.core.errors import DataError
from recon_node.core.fft import centred_ifft
from recon_node.lab.evaluation.measured import BANDS, compare, read_measured, score, trials
from recon_node.methods.series import series
from recon_node.pipeline.stages import calibrate
from recon_node.settings import ReconSettings
from recon_node.simulate import draw_example

SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def heart():
    return draw_example(np.random.default_rng(3), matrix=(64, 64), phases=2, coils=6, modality="cine")


@pytest.fixture
def stored(heart, tmp_path):
    path = tmp_path / "heart.npy"
    np.save(path, heart.kspace)
    return path


def test_the_truth_predicts_what_was_held_back_and_an_empty_image_nothing(heart, stored) -> None:
    [kspace] = read_measured(stored, frames=True)
    for trial in trials("heart", kspace):
        assert not (trial.scored & trial.given.mask).any()
        assert not trial.given.data[np.broadcast_to(trial.scored[:, None], trial.given.data.shape)].any()
        maps = calibrate(trial.given)
        whole = combine(centred_ifft(kspace.data), maps)  # of every sample: as good as an image can be
        truth = score(trial, maps, series(trial.given, whole, "truth", {}), "truth")
        empty = score(trial, maps, series(trial.given, 0 * heart.images, "empty", {}), "empty")
        assert empty.error == pytest.approx(1)
        assert [value for value in empty.bands if value is not None] == pytest.approx([1] * 4)
        assert truth.error < 0.3
        assert truth.bands[0] is None  # all given: the calibration block
        assert truth.bands[1] < 0.1


def test_undersampled_data_is_scored_on_samples_of_its_own(heart, tmp_path) -> None:
    data = heart.kspace[0].copy()
    keep = np.random.default_rng(0).random(64) < 0.4
    keep[24:40] = True
    data[:, ~keep] = 0
    np.save(tmp_path / "some.npy", data)
    [kspace] = read_measured(tmp_path / "some.npy")
    [trial] = trials("some", kspace)
    assert "held back" in trial.condition
    assert 0.1 < trial.scored.sum() / kspace.mask.sum() < 0.3
    np.testing.assert_array_equal(trial.scored | trial.given.mask, kspace.mask)
    assert not trial.scored[:, 24:40].any()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.zeros((4, 4))}, "found arrays of shape (4, 4); expected one of k-space"),
        ({"a": np.ones((2, 8, 8), complex), "b": np.ones((2, 8, 8), complex)}, "expected one of k-space"),
    ],
)
def test_an_array_that_is_no_kspace_is_one_clear_line(tmp_path, arrays, said) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError) as caught:
        read_measured(tmp_path / "x.npz")
    assert said in str(caught.value)
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(DataError, match=r"text\.npy: no array that numpy reads"):
        read_measured(tmp_path / "text.npy")


def test_the_command_reports_every_method_that_can_run(stored, capsys) -> None:
    words = f"evaluate measured {stored} --slices 1 --methods sense,kt --patterns random --accelerations 4"
    assert run([*words.split(), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in report["scores"]] == ["sense"]  # a slice of one frame: no kt
    assert report["bands"] == list(BANDS)
    assert run([*words.split(), "--frames"]) == 0
    assert "kt" in capsys.readouterr().out


def test_options_of_the_comparison_before_the_study_are_refused(stored, capsys) -> None:
    assert run(["evaluate", "--scans", "2", "measured", str(stored)]) == 2
    assert "--scans before measured" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.exists(), reason="measured k-space not here")
def test_on_measured_data_the_network_is_not_above_l1_wavelet_and_no_band_above_nothing() -> None:
    files = [SHARED / "real_ge.npz", SHARED / "cartesian_ksp.npy"]
    settings = ReconSettings(device="cpu")
    found = compare(files, ("l1-wavelet", "cardiomm"), settings, conditions=[("random", 8.0)], slices=1)
    by = {(one.name, one.method): one for one in found}
    for name in {one.name for one in found}:
        network, wavelet = by[name, "cardiomm"], by[name, "l1-wavelet"]
        assert network.error <= wavelet.error
        assert max(network.bands) < 1

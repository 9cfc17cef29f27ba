from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from recon_node.cli import run
from recon_node.core.errors import ConfigError, WeightsError
from recon_node.lab.evaluation.heldout import Study, cases
from recon_node.lab.evaluation.limits import Outcome, Scanned, apart, derive, others, outcomes
from recon_node.lab.failures.fit import clean_record, with_bounds
from recon_node.methods.registry import Methods, find_method, make_methods
from recon_node.methods.sense import Sense
from recon_node.methods.zero_filled import ZeroFilled
from recon_node.model.weights import find_weights
from recon_node.settings import ReconSettings
from recon_node.trust import Measures, load_limits


def _scans(count: int, condition: str, gain_db: float, ratio: float, seed: int = 0) -> list[Scanned]:
    """Reconstructions of one quality, their ratio a tenth about its mean."""
    rng = np.random.default_rng(seed)
    return [
        Scanned(
            group=f"cine {condition.split()[1]}",
            condition=condition,
            gain_db=gain_db,
            measures=Measures(finite=True, heldout_ratio=ratio * (1 + 0.1 * rng.uniform(-1, 1))),
        )
        for _ in range(count)
    ]


def test_limits_are_those_of_the_good_reconstructions() -> None:
    good, bad = _scans(40, "random 8x", 3.0, 0.5), _scans(20, "uniform 8x", -2.0, 1.5)
    limits = derive(good + bad, weights_sha256="ab")
    assert limits.weights_sha256 == "ab"
    assert limits.weak_patterns == {"uniform 8x"}
    assert 0.5 < limits.of("cine 8x")["heldout_ratio"].warn < 0.6
    assert limits.of("cine 8x")["fit_ratio"].warn == 4.0  # not measured: the default stays


def test_other_good_and_bad_reconstructions_are_told_apart() -> None:
    limits = derive(_scans(99, "random 8x", 3.0, 0.5), weights_sha256="ab")
    fresh = _scans(30, "random 8x", 3.0, 0.5, seed=1) + _scans(10, "random 8x", -3.0, 2.0, seed=2)
    good, bad = outcomes(fresh, limits)
    assert (good.good, bad.good) == (True, False)
    assert good.passed >= 25
    assert good.withheld == 0
    assert bad == Outcome(good=False, passed=0, warned=0, withheld=10)


def test_real_hearts_bound_the_error_of_other_real_hearts() -> None:
    def measured(count: int, seed: int) -> list[Scanned]:
        rng = np.random.default_rng(seed)
        found = []
        for number, ratio in enumerate(rng.uniform(0.3, 0.9, count)):
            psnr = 40 - 20 * np.log10(ratio / 0.3) + rng.normal(0, 0.5)
            quality = {"psnr": psnr, "ssim": 1 - 10 ** (-psnr / 20)}
            (one,) = _scans(1, "random 8x", 1.0, ratio, seed=number)
            found.append(dataclasses.replace(one, heart=f"heart {number}", **quality))
        return found

    made = measured(60, seed=1)
    limits = with_bounds(derive(made, weights_sha256="ab"), [clean_record(one) for one in made])
    assert limits.errors is not None
    held = []
    for one in measured(100, seed=2):
        expected = limits.errors.expect(one.measures, ("cine 8x random", "cine 8x"))
        held.append(one.psnr >= expected.psnr_at_least and one.ssim >= expected.ssim_at_least)
        assert abs(one.psnr - expected.psnr) < 6
    assert 0.85 <= np.mean(held) < 1


def test_a_condition_seen_once_or_twice_is_not_called_weak() -> None:
    found = _scans(30, "random 8x", 3.0, 0.5) + _scans(2, "uniform 4x", -1.0, 1.0)
    assert derive(found, weights_sha256="ab").weak_patterns == frozenset()


def test_too_few_good_reconstructions_are_no_calibration() -> None:
    with pytest.raises(ConfigError, match="0 of 50 reconstructions were as good"):
        derive(_scans(50, "random 8x", -1.0, 1.0), weights_sha256="ab")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The shipped weights under another name, without limits."""
    shipped = find_weights("default")
    for suffix in (".safetensors", ".json"):
        shutil.copy(shipped.with_suffix(suffix), (tmp_path / "mine").with_suffix(suffix))
    return tmp_path / "mine.safetensors"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods that take no time: parallel imaging stands for the network, zero filling stands in for it."""
    made = Methods(
        record=find_method("cardiomm"), chosen=Sense(iterations=8, device="cpu"), fallback=ZeroFilled()
    )
    monkeypatch.setattr("recon_node.methods.registry.make_methods", lambda settings, limits: made)


SMALL = [
    "--scans",
    "10",
    "--patterns",
    "random,uniform",
    "--accelerations",
    "4",
    "--matrix",
    "48",
    "--phases",
    "3",
]


@pytest.mark.usefixtures("quick")
def test_the_command_leaves_a_table_that_the_node_reads(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["weights", "calibrate", str(copied), *SMALL]) == 0
    told = capsys.readouterr().out
    assert f"{copied.with_suffix('.limits.json')}: limits of cine 4x" in told
    assert "below the fallback on average: nowhere" in told
    assert "no bound of the error" in told
    methods = make_methods(ReconSettings(weights=str(copied)))
    assert methods.limits.weights_sha256 == methods.weights.sha256
    assert methods.limits.of("cine 4x")["heldout_ratio"].warn <= 1.1


@pytest.mark.usefixtures("quick")
def test_the_report_counts_other_hearts_than_the_limits_were_made_of(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.json"
    assert run(["weights", "calibrate", str(copied), *SMALL, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == str(out)
    assert sum(one["passed"] + one["warned"] + one["withheld"] for one in told["outcomes"]) == 5 * 2
    assert load_limits(out).groups.keys() == {"cine 4x"}


def test_every_scan_is_another_heart_and_none_is_counted_again_in_the_report() -> None:
    study = Study(
        methods=(), patterns=("random", "uniform"), accelerations=(4,), scans=4, phases=2, matrix=32
    )
    ones = [one for some in (study, *others([study])) for one in apart(some)]
    hearts = {case.truth.tobytes() for one in ones for case in cases(one)}
    assert len(hearts) == len(ones) == 4 * 2 + 2 * 2
    assert len({one.coils for one in ones}) > 1
    assert {one.breathing_mm is None for one in ones} == {True, False}


def test_limits_of_other_weights_are_refused(copied: Path) -> None:
    table = json.loads(find_weights("default").with_suffix(".limits.json").read_text())
    path = copied.with_suffix(".limits.json")
    path.write_text(json.dumps(table | {"weights_sha256": "f00"}))
    with pytest.raises(WeightsError, match="weights calibrate"):
        make_methods(ReconSettings(weights=str(copied)))
    path.write_text(json.dumps(table | {"weights_sha256": None}))
    assert make_methods(ReconSettings(weights=str(copied))).limits == dataclasses.replace(
        load_limits(path), weights_sha256=None
    )


@pytest.mark.usefixtures("quick")
def test_what_goes_wrong_is_one_line(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate = ["weights", "calibrate", str(copied), *SMALL]
    for more, code, words in (
        (["--scans", "2"], 2, "4 scans are too few"),
        (["--out", str(tmp_path / "no" / "x.json")], 1, "cannot be written"),
        (["--patterns", "spiral"], 2, "spiral"),
    ):
        assert run([*calibrate, *more]) == code
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1

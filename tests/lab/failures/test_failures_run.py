from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from recon_node.cli.evaluate import command
from recon_node.core.errors import DataError
from recon_node.lab.evaluation.measured import read_measured, trials
from recon_node.lab.failures import FailureStudy, chosen_kinds, run
from recon_node.lab.failures.fit import LEAST_WARN, folds, judged, judged_apart, make_limits, residual
from recon_node.lab.failures.report import write_reports
from recon_node.lab.failures.run import CASES, read, tasks
from recon_node.lab.failures.score import auroc, is_bad, medians, summarise
from recon_node.methods.registry import make_methods
from recon_node.pipeline.stages import calibrate
from recon_node.settings import ReconSettings
from recon_node.simulate.cine import Cine
from recon_node.trust import Limit, load_limits, measure, save_limits

MEASURED = Path(__file__).parents[4] / "shared" / "data"
STUDY = FailureStudy(
    kinds=chosen_kinds(["spikes", "coils-swapped"], learned=False),
    levels=(3,),
    conditions=(("random", 4),),
    scans=1,
    clean=1,
    size=48,
    phases=4,
    acs=16,
    beside=2,
)


@pytest.fixture(scope="module")
def methods():
    return make_methods(ReconSettings(method="sense", device="cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, methods):
    out = tmp_path_factory.mktemp("failures")
    run(STUDY, methods, out)
    return out


def test_every_case_is_a_line_and_a_run_goes_on_where_it_stopped(folder, methods, tmp_path):
    path = folder / CASES
    lines = path.read_text().splitlines()
    assert len(lines) == STUDY.total == 4
    (tmp_path / CASES).write_text("\n".join(lines[:2]) + "\n" + lines[2][:40])
    records = run(STUDY, methods, tmp_path)
    again = [json.loads(line) for line in (tmp_path / CASES).read_text().splitlines()]
    assert [one["key"] for one in again] == [json.loads(line)["key"] for line in lines]
    for one, first in zip(records, map(json.loads, lines), strict=True):
        assert one["truth"] == pytest.approx(first["truth"])


def test_a_study_of_other_hearts_or_methods_takes_nothing_for_its_own(folder, methods, tmp_path):
    shutil.copy(folder / CASES, tmp_path / CASES)
    assert len(run(STUDY, methods, tmp_path, minutes=0)) == STUDY.total
    for change in ({"seed": 1}, {"size": 64}, {"phases": 5}, {"acs": 12}):
        assert run(dataclasses.replace(STUDY, **change), methods, tmp_path, minutes=0) == []
    other = make_methods(ReconSettings(method="zero-filled", device="cpu"))
    assert run(STUDY, other, tmp_path, minutes=0) == []


def test_without_hearts_for_faults_real_ones_are_left_alone_too():
    cine = Cine(images=np.ones((4, 48, 48), np.float32), pixel_mm=(2.0, 2.0))
    real = dataclasses.replace(STUDY, cines=(cine,), clean=0, conditions=(("random", 4), ("radial", 8)))
    assert dataclasses.replace(real, scans=0).total == 2
    assert dataclasses.replace(real, scans=1).total == 3 + 2 * 2  # a drawn and a real heart have both faults


def test_a_run_whose_time_is_over_begins_nothing_new(folder, methods, tmp_path):
    lines = (folder / CASES).read_text().splitlines()
    (tmp_path / CASES).write_text("\n".join(lines[:3]) + "\n")
    assert [one["key"] for one in run(STUDY, methods, tmp_path, minutes=0)] == [
        json.loads(line)["key"] for line in lines[:3]
    ]


def test_a_case_holds_truth_measures_verdict_and_costs(folder):
    clean, other, swapped, spikes = read(folder / CASES)
    kinds = [one["kind"] for one in (clean, other, swapped, spikes)]
    assert kinds == ["clean", "clean", "coils-swapped", "spikes"]
    assert spikes["measures"]["spike"] > 10 * clean["measures"]["spike"]
    assert swapped["measures"]["coil_gain"] > 10 * clean["measures"]["coil_gain"]
    assert swapped["truth"]["ssim"] < clean["truth"]["ssim"] - 0.05
    assert clean["seconds"]["reconstruction"] > 0
    assert set(clean["beside"]) == {"lipschitz", "replicas"}
    assert clean["beside"]["replicas"]["value"] > 0


def test_a_file_that_holds_no_cases_is_one_clear_error(tmp_path):
    (tmp_path / CASES).write_text("{}\n{}\n")
    with pytest.raises(DataError, match="line 1 is no case"):
        read(tmp_path / CASES)


def test_the_command_writes_its_reports(folder):
    options = "--method sense --device cpu --kinds spikes,coils-swapped --strengths 3 --conditions random:4"
    sizes = f"--scans 1 --clean 1 --size 48 --phases 4 --beside 2 --out {folder}"
    result = CliRunner().invoke(
        command, ["trust", *options.split(), *sizes.split(), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "report.json").read_text())
    assert json.loads(result.stdout) == report
    assert {row["kind"] for row in report["rows"]} == {"clean", "spikes", "coils-swapped"}
    assert "spikes" in (folder / "report.md").read_text()
    assert "Which failures" in (folder / "report.html").read_text()


def test_faults_happen_to_other_real_hearts_each_time_under_conditions_in_turn():
    cines = tuple(
        Cine(images=np.ones((4, 48, 48), np.float32), pixel_mm=(2.0, 2.0), name=f"slice {n}")
        for n in range(11)
    )
    conditions = (("uniform", 8), ("random", 12), ("radial", 16))
    for scans in (0, 1, 3, 11, 40):
        study = dataclasses.replace(STUDY, cines=cines, conditions=conditions, scans=scans)
        real = [task for task in tasks(study) if task.source == "real" and task.kind == "spikes"]
        hearts = {(task.cine.name, task.condition) for task in real}
        assert len(hearts) == min(scans, 33)
        assert len({name for name, _ in hearts}) == min(scans, 11)
        assert len({condition for _, condition in hearts}) == min(scans, 3)


@pytest.mark.skipif(not MEASURED.exists(), reason="measured k-space not here")
def test_measured_kspace_of_heads_stays_well_within_the_nearest_limits(methods):
    slices = read_measured(MEASURED / "real_ge.npz")[:4:3]
    given = [trial.given for one in slices for trial in trials("head", one, [("random", 4.0)])]
    for kspace in (*given, *read_measured(MEASURED / "cartesian_ksp.npy")):
        maps = calibrate(kspace)
        found = measure(kspace, maps, methods.chosen.reconstruct(kspace, maps, None))
        for name in ("map_residual", "own_residual", "coil_gain"):
            assert getattr(found, name) < 0.7 * LEAST_WARN[name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seed", "3", "trust"], "--seed before trust"),
        (["trust", "--strengths", "4"], "expected turn, or some of 1,2,3"),
        (["trust", "--conditions", "random"], "expected PATTERN:ACCELERATION"),
        (["trust", "--method", "sense", "--own-limits"], "the method has none"),
    ],
)
def test_wrong_usage_is_told_in_a_line(words, said):
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    assert said in result.output


def invented(count=60, seed=0):
    """Cases whose errors follow their measures, a fifth of them bad."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        wrong = number % 5 == 0
        nmse = 0.01 * math.exp(rng.normal(0, 0.2)) * (8 if wrong else 1)
        ssim = 1 - 0.08 * math.sqrt(nmse / 0.01)
        yield {
            "key": f"{number}",
            "source": "drawn",
            "heart": f"drawn {number}",
            "condition": "random 8x",
            "kind": "broken" if wrong else "clean",
            "level": 1,
            "truth": {"psnr": -10 * math.log10(nmse / 10), "ssim": ssim, "nmse": nmse},
            "measures": {
                "finite": True,
                "predicted_nmse": nmse * math.exp(rng.normal(0, 0.1)),
                "spike": 3 * math.exp(rng.normal(0, 0.1)),
            },
            "verdict": "pass",
            "score": 1.0,
            "doubts": [],
            "seconds": {"reconstruction": 1.0, "trust": 0.3},
        }


def test_auroc_is_the_chance_that_a_bad_case_is_doubted_more():
    assert auroc([2, 3], [1, 0]) == 1
    assert auroc([0, 1], [2, 3]) == 0
    assert auroc([1, 1], [1]) == 0.5
    assert auroc([], [1]) is None


def test_an_image_is_bad_beyond_either_bound_around_the_median_of_its_stratum():
    cases = list(invented())
    usual = medians(cases)
    middle = usual["drawn", "random 8x"]
    fine = {**cases[1], "truth": {"psnr": 30, "ssim": middle["ssim"] - 0.04, "nmse": 1.9 * middle["nmse"]}}
    assert not is_bad(fine, usual)
    assert is_bad({**fine, "truth": {**fine["truth"], "ssim": middle["ssim"] - 0.06}}, usual)
    assert is_bad({**fine, "truth": {**fine["truth"], "nmse": 2.1 * middle["nmse"]}}, usual)


def test_hearts_are_judged_by_limits_of_other_hearts():
    cases = list(invented(200))
    parts = folds(cases)
    assert sorted(heart for part in parts for heart in part) == sorted({r["heart"] for r in cases})
    summary = summarise(judged_apart(cases), lambda record: record["doubt"])
    assert summary.auroc > 0.99
    assert summary.clean_warned["drawn"] < 0.1
    assert summary.passed_bad == 0
    assert summary.cost["hold-out and residuals"] == pytest.approx(0.3)


def test_a_run_is_judged_by_limits_that_another_one_made(tmp_path):
    cases = list(invented(60, seed=1))
    narrow = make_limits(invented(100, seed=2))
    far = dict.fromkeys(narrow.default, Limit(typical=3, warn=1e6, fallback=1e7))
    wide = dataclasses.replace(narrow, default=far, groups={})
    warned = []
    for limits in (narrow, wide):
        report = write_reports(cases, tmp_path, limits=limits)
        assert report["judged_by"] == "the method's own limits"
        assert report["coverage"][0]["count"] > 0
        warned.append(report["cases"] - report["passed"])
    assert warned[0] >= 12  # the bad fifth
    assert warned[1] == 0
    assert write_reports(cases, tmp_path)["judged_by"] == "limits made of other hearts"


def test_limits_of_real_scans_are_no_wider_for_what_a_drawn_one_does():
    drawn = list(invented(60, seed=1))
    drawn[1]["measures"]["spike"] = 300.0
    real = [
        {**one, "source": "real", "heart": f"real {place}"} for place, one in enumerate(invented(60, seed=2))
    ]
    assert make_limits(drawn).default["spike"].warn > 300
    assert make_limits([*drawn, *real]).default["spike"].warn < 30
    assert make_limits([*drawn, *real[:15]]).default["spike"].warn > 300  # too few to say how far they go


def test_bounds_hold_as_often_as_they_promise_on_new_hearts():
    held = []
    for seed in range(12):
        limits = make_limits(invented(200, seed))
        for record in invented(200, 1000 + seed):
            found = judged(record, limits)["expected"]
            if found is not None:
                held.append(residual(record, limits.errors) <= limits.errors.quantiles[""])
                assert record["truth"]["psnr"] >= found["psnr_at_least"] or not held[-1]
    assert np.mean(held) == pytest.approx(0.9, abs=0.03)


def test_the_model_can_be_read_and_kept(tmp_path):
    limits = make_limits(invented(100), weights_sha256="ab")
    line = limits.errors.lines["psnr"]
    assert line.slopes["predicted_nmse"] == pytest.approx(1, abs=0.25)
    assert line.slopes.get("spike", 0) < 0.2
    save_limits(limits, tmp_path / "limits.json")
    assert load_limits(tmp_path / "limits.json") == limits


def test_too_few_clean_scans_make_no_limits():
    with pytest.raises(DataError, match="expected at least 19"):
        make_limits(list(invented(12)))

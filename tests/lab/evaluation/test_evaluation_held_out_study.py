from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import study
from benchmarks.study_report import gains
from benchmarks.study_rivals import Rival, bart_wavelet, measure, of_node, tuned
from benchmarks.study_scans import TUNING, Scan, code_hash, scans
from benchmarks.study_store import Store
from recon_node.lab.evaluation import Metrics, series_metrics
from recon_node.lab.evaluation.studies import Result

SCAN = Scan(7, "uniform", 4, phases=2, matrix=32, coils=3)


def blurred(calls: list[float]) -> Rival:
    """The truth with an error that is least at strength 0.3."""

    def run(case, settings):
        calls.append(settings["strength"])
        return case.truth * (1 + abs(settings["strength"] - 0.3) + 0.01)

    return Rival("blurred", run, {"name": "blurred"}, {"strength": 1.0}, {"strength": (0.1, 0.3, 1.0)})


def strengths(file: Path, *values: float) -> list[float]:
    """Measure with these settings; those that had to be reconstructed for it."""
    calls: list[float] = []
    with Store(file) as store:
        for value in values:
            measure(store, SCAN, blurred(calls), {"strength": value})
    return calls


def test_nothing_is_measured_twice_even_after_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert strengths(file, 0.1, 1.0, 0.1) == [0.1, 1.0]
    file.write_bytes(file.read_bytes()[:-5])
    assert strengths(file, 0.1, 1.0) == [1.0]
    kept = [json.loads(line)["settings"]["strength"] for line in file.read_text().splitlines()]
    assert kept == [0.1, 1.0]


def test_two_studies_cannot_write_the_same_file(tmp_path: Path) -> None:
    with Store(tmp_path / "results.jsonl"), pytest.raises(SystemExit, match="another study"):
        Store(tmp_path / "results.jsonl")


def test_another_scan_or_other_code_is_measured_anew(tmp_path: Path) -> None:
    calls: list[float] = []
    one = blurred(calls)
    with Store(tmp_path / "results.jsonl") as store:
        measure(store, SCAN, one, one.start)
        measure(store, Scan(8, "uniform", 4, phases=2, matrix=32, coils=3), one, one.start)
        measure(store, SCAN, Rival("blurred", one.run, {"name": "blurred", "code": "newer"}), one.start)
    assert len(calls) == 3


def test_the_hash_of_code_follows_what_a_module_imports() -> None:
    assert code_hash("recon_node.methods.kt") == code_hash(
        "recon_node.methods.kt", "recon_node.solvers.total_variation"
    )
    assert code_hash("recon_node.methods.kt") != code_hash("recon_node.methods.l1_wavelet")


def test_settings_are_chosen_by_the_mean_over_the_tuning_scans(tmp_path: Path) -> None:
    with Store(tmp_path / "results.jsonl") as store:
        assert tuned(store, [SCAN], blurred([])) == {"strength": 0.3}


def test_scans_of_the_test_are_never_those_of_the_tuning_and_stay_the_same_when_more_are_asked_for() -> None:
    conditions = [("uniform", 4.0), ("radial", 8.0)]
    some, more = (list(scans(n, conditions=conditions)) for n in (2, 5))
    apart = list(scans(5, first=TUNING, conditions=conditions))
    assert some == more[: len(some)]
    assert not {s.seed for s in more} & {s.seed for s in apart}
    assert len({s.seed for s in more}) == len(more)


def test_breathing_moves_the_body_and_can_be_left_out() -> None:
    moving, still = (
        Scan(7, "uniform", 4, phases=4, matrix=48, coils=3, still=still).case.truth for still in (False, True)
    )
    edge = [np.abs(np.diff(np.abs(images), axis=0))[:, :12].mean() for images in (moving, still)]
    assert edge[0] > edge[1]


def _result(scan: int, method: str, psnr: float, condition: str = "uniform 8x") -> Result:
    return Result(
        scan=str(scan), condition=condition, method=method, metrics=Metrics(psnr=psnr, ssim=0.9, nmse=0.01)
    )


@pytest.mark.parametrize(("gain", "verdict"), [(3.1, "reached"), (2.9, "MISSED"), (-1.0, "MISSED")])
def test_a_target_is_reached_by_the_mean_gain_alone(gain: float, verdict: str) -> None:
    results = [_result(n, "BART L1-wavelet", 30 + n) for n in range(3)]
    results += [_result(n, "CardioMM", 30 + n + gain) for n in range(3)]
    assert [(g.condition, g.verdict) for g in gains(results)] == [
        ("all 8x", verdict),
        ("uniform 8x", verdict),
    ]


@pytest.mark.real
@pytest.mark.parametrize("pattern", ["uniform", "radial"])
def test_the_wavelet_method_of_bart_sees_the_same_problem_as_ours(pattern: str) -> None:
    if shutil.which("bart") is None:
        pytest.skip("bart is not installed")
    case = Scan(7, pattern, 2, phases=3, matrix=64, coils=6).case
    images = bart_wavelet().run(case, {"regularisation": 0.0005, "iterations": 50})
    ours = of_node("l1-wavelet").run(case, {})
    found = series_metrics(images, case.truth, normalise=False).psnr
    assert found > series_metrics(ours, case.truth, normalise=False).psnr - 3
    assert found > 40


def test_a_study_writes_its_tables_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = "--phases 3 --matrix 48 --coils 3 --patterns uniform --accelerations 4,8 --tuning 1"
    methods = "--methods zero-filled,sense,cardiomm"
    monkeypatch.setattr(
        sys, "argv", ["study", *size.split(), *methods.split(), "--scans", "2", "--out", str(tmp_path)]
    )
    study.main()
    lines = (tmp_path / "results.jsonl").read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["scans"], summary["frames"], len(summary["means"])) == (4, 12, 6)
    assert "| CardioMM over |" in (tmp_path / "summary.md").read_text()
    study.main()
    assert (tmp_path / "results.jsonl").read_text() == lines

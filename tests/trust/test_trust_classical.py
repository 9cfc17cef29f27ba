"""Images of methods that were not trained are judged like any others."""

from __future__ import annotations

import pytest

from recon_node.core.types import Verdict
from recon_node.lab.evaluation.heldout import Study, cases
from recon_node.lab.evaluation.metrics import series_metrics
from recon_node.pipeline.row import Pipeline
from recon_node.settings import Settings


def judged(method: str, pattern: str, acceleration: float) -> tuple[Verdict, float]:
    study = Study(
        methods=(),
        patterns=(pattern,),
        accelerations=(acceleration,),
        scans=1,
        phases=6,
        matrix=96,
        seed=12,
    )
    (case,) = cases(study)
    found = Pipeline(Settings().replace("recon", method=method, device="cpu")).run(case.kspace)
    return found.verdict, series_metrics(found.images.data, case.truth, normalise=False).psnr


@pytest.mark.parametrize(
    ("pattern", "acceleration"),
    [
        ("uniform", 2),
        ("uniform", 8),
        ("uniform", 24),
        ("random", 1.5),
        ("random", 4),
        ("radial", 8),
        ("radial", 24),
    ],
)
def test_a_zero_filled_image_of_an_undersampled_scan_never_passes(pattern: str, acceleration: float) -> None:
    verdict, _ = judged("zero-filled", pattern, acceleration)
    assert verdict.verdict == "warn"
    assert any("zero filling leaves the aliasing" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("method", ["zero-filled", "sense", "kt"])
def test_a_fully_sampled_scan_passes_by_any_method(method: str) -> None:
    verdict, psnr = judged(method, "uniform", 1)
    assert (verdict.verdict, verdict.reasons) == ("pass", ())
    assert psnr > 40


def test_parallel_imaging_that_predicts_no_better_than_nothing_does_not_pass() -> None:
    good, bad = judged("sense", "uniform", 2), judged("sense", "uniform", 24)
    assert good[0].verdict == "pass"
    assert bad[0].verdict == "warn"
    assert any("almost as if nothing were known" in reason for reason in bad[0].reasons)
    assert good[1] - bad[1] > 10

"""A network on scanners it never saw: what is new to it, what it is told, and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import ttest_ind, ttest_rel

from recon_node.cli.evaluate import command
from recon_node.core.errors import ConfigError, DataError
from recon_node.lab.evaluation.paired import between, holm, paired
from recon_node.lab.zero_shot import ZeroShotStudy, run, scanners, write_reports
from recon_node.lab.zero_shot.cases import drawn_cases, patient_of, told
from recon_node.lab.zero_shot.report import trained_on
from recon_node.model import CardioMM, CardioMMConfig, UNetConfig, save_weights
from recon_node.prompts import load_encoder
from recon_node.settings import ReconSettings

TINY = UNetConfig(
    stem=4,
    levels=(4, 4, 4),
    prompts=(2, 2, 2),
    bank_sizes=(4, 4, 4),
    encoder_blocks=(1, 0, 0),
    decoder_blocks=(0, 0, 0),
    skip_blocks=(0, 0, 0),
    bottleneck_blocks=0,
)
CARD = {
    "training": {
        "data": {"hold_out_vendors": ["GE"], "hold_out_fields": [5.0], "accelerations": [4]},
        "run": {"init": None},
    },
    "hearts": {
        "sunnybrook_SCD2_slp0031.6": "0" * 12,
        "sunnybrook_SCD2_slp0044.9": "1" * 12,
        "b_Se01": "2" * 12,
    },
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random weights that reads both texts, and a card that says what it did not see."""
    config = CardioMMConfig(cascades=1, unet=TINY, text_features=384, residual=True)
    encoder = load_encoder("minilm")
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(2)
    net = CardioMM(config)
    for one in net.parameters():  # a new network's correction is zero, whatever the texts
        torch.nn.init.normal_(one, std=0.3)
    save_weights(file, net, encoder=encoder.name, encoder_sha256=encoder.sha256, card=CARD)
    return file


def test_differences_agree_with_the_tests_of_scipy() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 1, 12), rng.normal(0, 2, 9)
    one, two = paired(a, a - b[0]), between(a, b)
    assert (one.mean, one.low, one.high, one.wins) == pytest.approx((b[0], b[0], b[0], 12 * (b[0] > 0)))
    noisy = paired(a[:9], b)
    interval = ttest_rel(a[:9], b).confidence_interval()
    assert (noisy.low, noisy.high) == pytest.approx(tuple(interval))
    interval = ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (two.low, two.high) == pytest.approx(tuple(interval))
    assert paired([1, 2], [1, 2]).p == 1
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    for wrong in (lambda: paired([1], [2]), lambda: between([1], [1, 2])):
        with pytest.raises(DataError, match="at least two cases"):
            wrong()


def test_what_training_left_out_is_new_and_the_rest_is_not() -> None:
    cases = drawn_cases(scanners(), 1, CARD["training"]["data"])
    new = {case.group for case in cases if case.unseen}
    assert new == {"GE 1.5 T", "GE 3 T", "UIH 5 T"}
    assert "Siemens 0.55 T" in {case.group for case in cases} - new
    assert [one.name for one in scanners(["ge"], [3.0])] == ["GE 3 T"]
    with pytest.raises(ConfigError, match="no scanner of vendors"):
        scanners(["GE"], [5.0])


def test_wrong_words_are_of_another_scanner_and_missing_ones_unknown() -> None:
    words = {"vendor": "GE", "field": "1.5T", "scanner": "Artist", "view": "short-axis", "modality": "cine"}
    for seed in range(5):
        wrong = told(words, "wrong", np.random.default_rng(seed))
        assert wrong["vendor"] != "GE"
        assert wrong["field"] != "1.5T"
        assert (wrong["view"], wrong["modality"]) == ("short-axis", "cine")
    assert told(words, "right", np.random.default_rng(0)) == words
    assert set(told(words, "missing", np.random.default_rng(0)).values()) == {"unknown"}


def test_the_report_says_what_training_saw() -> None:
    left_out, hearts = trained_on(CARD)
    assert "left out drawn scans of GE, 5 T" in left_out
    assert "sunnybrook_SCD2 (2), b (1)" in hearts
    seen = {"training": {"data": {"accelerations": [4]}, "run": {"init": "older"}}}
    every, none, init = trained_on(seen)
    assert "every vendor" in every
    assert none == "It was trained on no real heart."
    assert "began with weights older" in init
    assert "does not say" in trained_on({})[0]
    assert patient_of("sunnybrook_SCD4_slm0038.9") == "sunnybrook_SCD4"


def test_a_study_runs_goes_on_and_is_told(weights: Path, tmp_path: Path) -> None:
    size = "--scans 2 --vendors GE,Siemens --fields 3 --phases 4 --matrix 48 --coils 4 --acceleration 4"
    arguments = ["zero-shot", *size.split(), "--weights", str(weights), "--device", "cpu"]
    arguments += ["--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(command, [*arguments, "--minutes", "0"])
    assert isinstance(done.exception, DataError)
    assert "no case is done" in str(done.exception)
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "zero-shot.json").read_text())
    assert {one["group"]: one["unseen"] for one in report["groups"]} == {"GE 3 T": True, "Siemens 3 T": False}
    for one in report["groups"]:
        assert sum(one["verdicts"]["right"].values()) == 2
        assert "pass" not in one["verdicts"]["right"]  # no limits of its own
        assert set(one["means"]) == {"kt", "right", "wrong", "missing"}
    (source,) = report["metadata"]
    assert {row["what"] for row in source["differences"]} == {
        "wrong - right",
        "missing - right",
        "right - kt",
    }
    assert any(row["mean"] for row in source["differences"] if row["what"] == "wrong - right")
    assert [row["quality"] for row in report["drop"]] == ["heart_psnr", "whole_psnr"]
    lines = (tmp_path / "cases.jsonl").read_text()
    assert CliRunner().invoke(command, arguments).exit_code == 0
    assert (tmp_path / "cases.jsonl").read_text() == lines
    page = (tmp_path / "zero-shot.html").read_text()
    assert "GE 3 T (drawn, new)" in page
    assert "Siemens 3 T (drawn, seen in training)" in page


def test_a_method_without_texts_and_no_scans_are_one_clear_error(tmp_path: Path) -> None:
    study = ZeroShotStudy(cases=())
    with pytest.raises(ConfigError, match="method sense reads no text"):
        run(study, ReconSettings(method="sense", device="cpu"), tmp_path)
    with pytest.raises(DataError, match="no case is done"):
        write_reports([], tmp_path, card={})
    assert CliRunner().invoke(command, ["zero-shot", "--scans", "0"]).exit_code == 2

"""Methods on real hearts: the study, its table and the command."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from recon_node.cli.evaluate import command
from recon_node.cli.evaluate_hearts import beside
from recon_node.core.code import code_hash
from recon_node.core.errors import ConfigError, DataError
from recon_node.lab.cines import fingerprint, read_cines
from recon_node.lab.evaluation import hearts, hearts_report, hearts_run
from recon_node.lab.evaluation.metrics import Metrics, series_metrics
from recon_node.settings import ReconSettings


def save(folder: Path, name: str, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :72]
    radius = 9 + 3 * np.cos(2 * np.pi * np.arange(5) / 5)[:, None, None]
    body = 120.0 * (((y - 32) / 28) ** 2 + ((x - 36) / 32) ** 2 < 1)
    images = body + 500 * (np.hypot(y - 34, x - 33) < radius) + rng.uniform(0, 20, (5, 64, 72))
    np.savez(folder / f"{name}.npz", cine=images.astype(np.uint16), pixel_mm=[2.4, 2.2], field_t=1.5)


def test_the_command_prints_heart_and_whole_image_with_the_gain_over_kt(tmp_path: Path) -> None:
    save(tmp_path, "patient_A", 0)
    save(tmp_path, "patient_B", 1)
    (tmp_path / "bad.npz").write_bytes(b"no npz")
    options = ["--hearts", str(tmp_path), "--leave-out", "B", "--methods", "sense,kt", "--json"]
    made = CliRunner().invoke(
        command, [*options, "--patterns", "random", "--accelerations", "4", "--coils", "5"]
    )
    assert made.exit_code == 0, made.output
    assert "bad: the npz file cannot be read" in made.stderr
    said = json.loads(made.stdout)
    assert said["hearts"] == ["patient_A"]
    rows = {row["method"]: row for row in said["rows"]}
    assert set(rows) == {"sense", "kt"}
    assert rows["kt"]["condition"] == "random 4x"
    assert rows["kt"]["over_kt"] == 0
    assert rows["sense"]["over_kt"] == pytest.approx(rows["sense"]["heart_psnr"] - rows["kt"]["heart_psnr"])
    assert rows["kt"]["whole_psnr"] > rows["sense"]["whole_psnr"]


def test_a_study_gives_the_same_scan_to_all_methods_and_to_a_second_run(tmp_path: Path) -> None:
    save(tmp_path, "a")
    study = hearts.HeartStudy(cines=tuple(read_cines(tmp_path)), methods=("zero-filled",))
    first, again = (list(hearts.heart_cases(study)) for _ in range(2))
    assert [case.condition for case in first] == ["uniform 8x", "random 8x", "random 16x", "radial 16x"]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.kspace.data, other.kspace.data)


def test_hearts_that_the_weights_were_trained_on_are_left_out_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "known", 0)
    save(tmp_path, "new", 1)
    known, new = read_cines(tmp_path)

    loaded = SimpleNamespace(card={"hearts": {"another name": fingerprint(known)}})
    monkeypatch.setattr(hearts, "load_weights", lambda name: loaded)
    lines: list[str] = []
    assert hearts.unseen([known, new], ReconSettings(), tell=lines.append) == [new]
    assert lines == ["1 clips left out: weights default were trained on them"]
    with pytest.raises(DataError, match="trained on all"):
        hearts.unseen([known], ReconSettings(), tell=lines.append)


def test_the_gain_in_words_says_when_the_network_is_below() -> None:
    row = hearts_report.HeartRow(
        condition="random 8x",
        method="cardiomm",
        hearts=3,
        heart_psnr=29.0,
        heart_ssim=0.9,
        whole_psnr=30.0,
        whole_ssim=0.9,
        over_kt=-0.5,
    )
    (sentence,) = hearts_report.in_words([row])
    assert (
        sentence == "random 8x: cardiomm is 0.5 dB BELOW k-t sparse SENSE in the heart, mean over 3 hearts."
    )


def test_a_comparison_goes_on_where_it_stopped_and_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "a")
    out = tmp_path / "out"
    options = ["--hearts", str(tmp_path), "--patterns", "random", "--accelerations", "4", "--coils", "4"]
    options += ["--out", str(out)]
    first = CliRunner().invoke(command, [*options, "--methods", "sense"])
    assert first.exit_code == 0, first.output
    kept = (out / "hearts.jsonl").read_text()
    made: list[str] = []
    known = hearts_run.judged
    monkeypatch.setattr(hearts_run, "judged", lambda *of: made.append(of[2]) or known(*of))
    again = CliRunner().invoke(command, [*options, "--methods", "sense,kt"])
    assert again.exit_code == 0, again.output
    assert made == ["kt"]
    assert (out / "hearts.jsonl").read_text().startswith(kept)
    rows = (out / "hearts.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in rows[1:]] == [["a", "random 4x", "sense"], ["a", "random 4x", "kt"]]
    found = json.loads((out / "hearts.json").read_text())["rows"]
    shown = f"{found[1]['heart_psnr']:.1f} {found[1]['heart_ssim']:.3f} / {found[1]['whole_psnr']:.1f}"
    assert shown in (out / "hearts.md").read_text()


def test_results_of_other_settings_or_other_code_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "a")
    study = hearts.HeartStudy(
        cines=tuple(read_cines(tmp_path)), methods=("zero-filled",), conditions=(("random", 4),), coils=4
    )
    made: list[str] = []
    known = hearts_run.judged
    monkeypatch.setattr(hearts_run, "judged", lambda *of: made.append(of[2]) or known(*of))

    def times_made(recon: ReconSettings) -> int:
        made.clear()
        hearts_run.run_heart_study(study, recon, folder=tmp_path / "out")
        return len(made)

    recon = ReconSettings()
    assert times_made(recon) == 1
    assert times_made(recon) == 0
    assert times_made(dataclasses.replace(recon, precision="float32")) == 1
    monkeypatch.setattr(hearts_run, "code_hash", lambda parts: "0" * 64)
    assert times_made(recon) == 1


def test_the_hash_of_code_sees_every_module_below_a_folder() -> None:
    whole, part = code_hash(["lab/evaluation"]), code_hash(["lab/evaluation/hearts_run.py"])
    assert len({whole, part, code_hash(["lab/evaluation/bart.py"])}) == 3
    assert whole == code_hash(["lab/evaluation"])
    with pytest.raises(OSError, match="none"):
        code_hash(["none.py"])


def test_a_rival_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a")
    monkeypatch.setenv("PATH", str(tmp_path))
    options = ["--hearts", str(tmp_path), "--methods", "zero-filled", "--rivals", "bart"]
    made = CliRunner().invoke(command, options)
    assert isinstance(made.exception, ConfigError)
    assert str(made.exception).startswith("rival bart: there is no command `bart` on the PATH; install BART")


def test_rivals_without_real_hearts_are_refused() -> None:
    made = CliRunner().invoke(command, ["--rivals", "bart"])
    assert made.exit_code == 2
    assert "--rivals and --out go with --hearts" in made.stderr


@pytest.mark.real
@pytest.mark.parametrize("pattern", ["uniform", "random", "radial"])
def test_the_rival_of_bart_solves_the_problem_that_k_t_sparse_sense_solves(
    tmp_path: Path, pattern: str
) -> None:
    if shutil.which("bart") is None:
        pytest.skip("bart is not installed")
    save(tmp_path, "a")
    study = hearts.HeartStudy(cines=tuple(read_cines(tmp_path)), conditions=((pattern, 4),), coils=6, snr=40)
    (case,) = hearts.heart_cases(study)
    quality = {}
    for name in ("sense", "kt", "bart"):
        images = hearts_run.maker_of(name, ReconSettings()).make(case)
        quality[name] = series_metrics(images, case.truth, normalise=False).psnr
    assert quality["bart"] > quality["sense"] + 1
    assert abs(quality["bart"] - quality["kt"]) < 4


def test_a_table_has_the_plainest_method_first_and_the_network_with_its_gain_last() -> None:
    def result(method: str, psnr: float) -> hearts.HeartResult:
        metrics = Metrics(psnr=psnr, ssim=0.9, nmse=0.01)
        return hearts.HeartResult(
            heart="a", condition="random 8x", method=method, within=metrics, whole=metrics
        )

    order = beside(("sense", "kt", "cardiomm"), ("bart",))
    assert order == ("sense", "kt", "bart", "cardiomm")
    results = [result(name, psnr) for name, psnr in zip(order, (20, 30, 29, 31.24), strict=True)]
    tables = hearts_report.heart_tables(hearts_report.heart_table(results), {"kt": "k-t"}, kind="real")
    (part,) = tables.parts
    assert part.headings == ["sampling", "sense", "k-t", "bart", "cardiomm", "over k-t in the heart"]
    assert part.rows[0][0] == "random 8x"
    assert part.rows[0][4:] == ("31.2 0.900 / 31.2 0.900", "+1.2 dB")

"""Methods on real hearts: the study, its table and the command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from recon_node.cli.evaluate import command
from recon_node.core.errors import DataError
from recon_node.lab.cines import fingerprint, read_cines
from recon_node.lab.evaluation import hearts
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
    assert [case.condition for case in first] == ["uniform 8x", "random 16x", "radial 16x"]
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
    row = hearts.HeartRow(
        condition="random 8x",
        method="cardiomm",
        hearts=3,
        heart_psnr=29.0,
        heart_ssim=0.9,
        whole_psnr=30.0,
        whole_ssim=0.9,
        over_kt=-0.5,
    )
    (sentence,) = hearts.in_words([row])
    assert (
        sentence == "random 8x: cardiomm is 0.5 dB BELOW k-t sparse SENSE in the heart, mean over 3 hearts."
    )

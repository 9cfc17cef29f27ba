from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest

import recon_node.model.shipped
from recon_node.cli import run
from recon_node.lab.evaluation import series_metrics
from recon_node.model import load_weights
from recon_node.pipeline.scan import open_scan
from recon_node.simulate import simulate_scan
from recon_node.trust import Limits, save_limits

CONTRACT = {"input", "method", "weights", "prompts", "sampling", "lines", "trust", "instances", "seconds"}


@pytest.fixture(scope="module")
def replayed(heart: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("replay")
    assert run(["replay", str(heart[0]), "--out", str(out)]) == 0
    return out


def _series(out: Path) -> list[dict[str, object]]:
    return json.loads((out / "summary.json").read_text())["series"]


def _pixels(out: Path, slice_entry: dict[str, object]) -> np.ndarray:
    wanted = set(slice_entry["instances"])
    files = [pydicom.dcmread(p) for p in out.rglob("*.dcm")]
    mine = sorted((d for d in files if d.SOPInstanceUID in wanted), key=lambda d: int(d.InstanceNumber))
    return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in mine])


def test_replay_writes_one_series_a_slice_and_a_summary_of_the_contract(replayed: Path) -> None:
    series = _series(replayed)
    assert [entry["slice"] for entry in series] != []
    assert sorted(entry["slice"] for entry in series) == [0, 1]
    for entry in series:
        assert entry.keys() >= CONTRACT
        assert len(entry["instances"]) == 8
        assert entry["sampling"]["pattern"] == "random"
        assert entry["lines"]["found"] == pytest.approx(entry["lines"]["expected"], rel=0.1)
        assert entry["weights"]["name"] == "default"


def test_dicom_pixels_agree_with_the_truth_and_beat_sense(
    replayed: Path, heart: tuple[Path, Path], tmp_path: Path
) -> None:
    assert run(["replay", str(heart[0]), "--out", str(tmp_path), "--method", "sense"]) == 0
    with h5py.File(heart[1]) as file:
        truth = np.abs(file["images"][:])
    for entry, classical in zip(_series(replayed), _series(tmp_path), strict=True):
        reference = truth[entry["slice"]]
        learned = series_metrics(_pixels(replayed, entry), reference, normalise=False)
        sense = series_metrics(_pixels(tmp_path, classical), reference, normalise=False)
        assert learned.psnr > sense.psnr + 3


def test_a_second_replay_gives_the_same_instances_byte_for_byte(
    replayed: Path, heart: tuple[Path, Path], tmp_path: Path
) -> None:
    assert run(["replay", str(heart[0]), "--out", str(tmp_path)]) == 0
    first = {p.relative_to(replayed): p.read_bytes() for p in replayed.rglob("*.dcm")}
    second = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.dcm")}
    assert first == second


def test_resume_leaves_out_what_is_done(replayed: Path, heart: tuple[Path, Path]) -> None:
    before = {p: p.stat().st_mtime_ns for p in replayed.rglob("*.dcm")}
    assert run(["replay", str(heart[0]), "--out", str(replayed), "--resume"]) == 0
    assert {p: p.stat().st_mtime_ns for p in replayed.rglob("*.dcm")} == before
    assert len(_series(replayed)) == 2


def test_orientation_in_dicom_is_that_of_the_raw_data(replayed: Path, heart: tuple[Path, Path]) -> None:
    for kspace, entry in zip(open_scan(heart[0]), _series(replayed), strict=True):
        one = next(
            d
            for d in map(pydicom.dcmread, replayed.rglob("*.dcm"))
            if d.SOPInstanceUID == entry["instances"][0]
        )
        directions = [*kspace.geometry.read_dir, *kspace.geometry.phase_dir]
        np.testing.assert_allclose([float(v) for v in one.ImageOrientationPatient], directions, atol=1e-5)


def test_several_workers_give_the_same_summary(heart: tuple[Path, Path], tmp_path: Path) -> None:
    copies = []
    for name in ("a.h5", "b.h5"):
        copies.append(tmp_path / name)
        shutil.copy(heart[0], copies[-1])
    out = tmp_path / "out"
    inputs = [str(copy) for copy in copies]
    assert run(["replay", *inputs, "--out", str(out), "--workers", "2", "--method", "zero-filled"]) == 0
    series = _series(out)
    assert [Path(entry["input"]).name for entry in series] == ["a.h5", "a.h5", "b.h5", "b.h5"]


def test_the_network_is_never_passed_on_sampling_it_was_measured_weak_at(tmp_path: Path) -> None:
    raw = tmp_path / "uniform.h5"
    simulate_scan(raw, acceleration=4, pattern="uniform", coils=10, slices=1, phases=6, matrix=96, seed=3)
    shipped, folder = load_weights("default"), Path(recon_node.model.shipped.__path__[0])
    for suffix in ("safetensors", "json"):
        shutil.copy(folder / f"default.{suffix}", tmp_path / f"weak.{suffix}")
    limits = Limits(weak_patterns=frozenset({"uniform"}), weights_sha256=shipped.sha256)
    save_limits(limits, tmp_path / "weak.limits.json")
    weights = str(tmp_path / "weak.safetensors")
    assert run(["replay", str(raw), "--out", str(tmp_path / "net"), "--weights", weights]) == 0
    [learned] = _series(tmp_path / "net")
    assert learned["trust"]["verdict"] != "pass"
    assert any("below parallel imaging" in reason for reason in learned["trust"]["reasons"])
    assert run(["replay", str(raw), "--out", str(tmp_path / "classic"), "--method", "sense"]) == 0
    [classic] = _series(tmp_path / "classic")
    assert classic["trust"]["verdict"] == "pass"


def test_only_what_this_replay_made_is_delivered(
    heart: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_NODE__DELIVERY__SPOOL", str(tmp_path / "spool"))
    out = tmp_path / "out"
    assert run(["replay", str(heart[0]), "--out", str(out), "--method", "sense"]) == 0
    arguments = ["replay", str(heart[0]), "--out", str(out), "--method", "zero-filled"]
    assert run([*arguments, "--to", str(tmp_path / "sent")]) == 0
    wanted = {uid for entry in _series(out) for uid in entry["instances"]}
    assert {pydicom.dcmread(p).SOPInstanceUID for p in (tmp_path / "sent").rglob("*.dcm")} == wanted
    assert len(list(out.rglob("*.dcm"))) == 2 * len(wanted)
    for entry in _series(out):
        assert len(list((out / entry["folders"][0]).glob("*.dcm"))) == len(entry["instances"])


@pytest.mark.real
@pytest.mark.parametrize("method", ["cardiomm", "sense"])
@pytest.mark.parametrize("options", [["-a", "1"], ["-a", "2", "-w", "24", "-r", "2", "-C"]])
def test_a_foreign_shepp_logan_file_becomes_dicom_of_the_right_object(
    options: list[str], method: str, tmp_path: Path, component: object
) -> None:
    program = component("ismrmrd_generate_cartesian_shepp_logan")
    raw = tmp_path / "shepp.h5"
    subprocess.run([program, "-o", raw, "-m", "96", "-c", "8", "-n", "0.01", *options], check=True)
    with h5py.File(raw) as file:
        phantom = file["dataset/phantom"][:].squeeze()
        object_ = np.hypot(phantom["real"], phantom["imag"])
    out = tmp_path / "out"
    assert run(["replay", str(raw), "--out", str(out), "--method", method]) == 0
    assert _series(out)
    for entry in _series(out):
        image = _pixels(out, entry)[0]
        right = np.corrcoef(image.ravel(), object_.ravel())[0, 1]
        turned = [np.corrcoef(np.flip(image, axis).ravel(), object_.ravel())[0, 1] for axis in (0, 1, (0, 1))]
        assert right > 0.9
        assert right > max(turned)
    checker = component("dciodvfy")
    for path in out.rglob("*.dcm"):
        told = subprocess.run([checker, path], capture_output=True, text=True, check=False).stderr
        assert not [line for line in told.splitlines() if line.startswith("Error")]
    converter = component("dcm2niix")
    done = subprocess.run([converter, "-o", tmp_path, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(list(tmp_path.glob("*.nii"))) == len(_series(out))


def test_classical_methods_have_to_predict_held_out_lines_as_well(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    verdicts = {}
    for method in ("kt", "view-sharing"):
        assert run(["replay", str(heart[0]), "--out", str(tmp_path / method), "--method", method]) == 0
        series = _series(tmp_path / method)
        assert {entry["method"] for entry in series} == {method}
        verdicts[method] = [entry["trust"] for entry in series]
    assert [trust["verdict"] for trust in verdicts["kt"]] == ["pass", "pass"]
    doubted = [trust for trust in verdicts["view-sharing"] if trust["verdict"] == "warn"]
    assert any("held-out lines" in reason for trust in doubted for reason in trust["reasons"])

"""Options of the preparation, from the settings to the images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
import torch

from recon_node.cli import run
from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import ConfigError, DataError, DeviceError, SourceError
from recon_node.offline.send import send_scan
from recon_node.online.serve import serving
from recon_node.pipeline.row import Pipeline
from recon_node.pipeline.scan import open_scan
from recon_node.pipeline.stages import calibrate
from recon_node.settings import CoilSettings, PrepSettings, Settings, with_properties
from recon_node.simulate import simulate_scan


@pytest.fixture(scope="module")
def beats(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Raw data that took many heartbeats, and their truth."""
    folder = tmp_path_factory.mktemp("beats")
    raw, truth = folder / "heart.h5", folder / "truth.h5"
    simulate_scan(
        raw, acceleration=2, pattern="random", coils=6, slices=1, phases=8, matrix=96, seed=78, truth=truth
    )
    return raw, truth


def changed(source: Path, target: Path, change: Callable[[np.ndarray], None]) -> Path:
    """A copy of raw data with its acquisition headers changed in place."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        rows = file["dataset/data"][:]
        change(rows["head"])
        file["dataset/data"][:] = rows
    return target


def test_a_scan_without_phase_counters_is_gated_by_its_time_stamps(
    beats: tuple[Path, Path], tmp_path: Path
) -> None:
    def without_phase(head: np.ndarray) -> None:
        head["idx"]["phase"] = 0

    raw = changed(beats[0], tmp_path / "free_running.h5", without_phase)
    settings = PrepSettings(gating="retrospective", phases=8)
    gated = list(open_scan(raw, settings=settings))
    counted = list(open_scan(beats[0]))
    assert len(gated) == len(counted) == 1
    for one, other in zip(gated, counted, strict=True):
        assert one.data.shape == other.data.shape
        assert one.mask.sum() == pytest.approx(other.mask.sum(), rel=0.1)
        same = one.mask & other.mask
        assert same.sum() > 0.6 * other.mask.sum()
        assert any("gated retrospectively over" in note for note in one.notes)
    assert any("time stamps say retrospective gating" in note for note in next(open_scan(raw)).notes)


def test_virtual_coils_give_nearly_the_same_images(heart: tuple[Path, Path]) -> None:
    pipeline = Pipeline(Settings().replace("recon", method="sense", check_trust=False))
    whole = next(open_scan(heart[0]))
    fewer = next(open_scan(heart[0], settings=PrepSettings(compression="geometric", virtual_coils=5)))
    assert fewer.data.shape[1] == 5
    one, other = (np.abs(pipeline.run(kspace).images.data) for kspace in (whole, fewer))
    assert np.linalg.norm(one - other) < 0.1 * np.linalg.norm(one)


@pytest.mark.parametrize("method", ["homodyne", "pocs"])
def test_partial_fourier_is_filled_after_the_reconstruction_and_said(
    beats: tuple[Path, Path], tmp_path: Path, method: str
) -> None:
    def one_side_for_nothing(head: np.ndarray) -> None:
        head["flags"][head["idx"]["kspace_encode_step_1"] >= 62] |= np.uint64(Flag.IS_DUMMYSCAN_DATA)

    raw = changed(beats[0], tmp_path / "partial.h5", one_side_for_nothing)
    kspace = next(open_scan(raw))
    assert kspace.sampling.partial_fourier < 0.75
    settings = Settings().replace("recon", method="sense", check_trust=False)
    zero = Pipeline(settings).run(kspace)
    filled = Pipeline(settings.replace("recon", partial_fourier=method)).run(kspace)
    assert any(f"filled by {method}, not measured" in note for note in filled.kspace.notes)
    assert filled.images.made_by.settings["partial_fourier"] == method
    with h5py.File(beats[1]) as file:
        truth = np.abs(file["images"][0])

    def error(images: np.ndarray) -> float:
        magnitude = np.abs(images)
        scale = np.sum(magnitude * truth) / np.sum(magnitude**2)
        return float(np.linalg.norm(scale * magnitude - truth) / np.linalg.norm(truth))

    assert error(filled.images.data) < error(zero.images.data)


def test_the_options_work_from_the_command_line(beats: tuple[Path, Path], tmp_path: Path) -> None:
    options = ["--compression", "pca", "--virtual-coils", "5", "--gating", "retrospective", "--phases", "6"]
    options += ["--fill", "share", "--method", "zero-filled", "--partial-fourier", "pocs"]
    assert run(["replay", str(beats[0]), "--out", str(tmp_path), *options]) == 0
    series = json.loads((tmp_path / "summary.json").read_text())["series"]
    assert [entry["phases"] for entry in series] == [6]
    for entry in series:
        assert any("6 coils compressed to 5 (pca)" in note for note in entry["notes"])
        assert any("gated retrospectively" in note for note in entry["notes"])
    assert len([pydicom.dcmread(p) for p in tmp_path.rglob("*.dcm")]) == 6


def test_one_of_several_datasets_is_chosen_by_its_name(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = Path(shutil.copy(heart[0], tmp_path / "two.h5"))
    with h5py.File(raw, "r+") as file:
        file.move("dataset", "first")
        file.copy("first", "second")
    assert run(["inspect", str(raw)]) == 1
    assert "['first', 'second']; choose one (--group NAME)" in capsys.readouterr().err
    assert run(["inspect", str(raw), "--group", "second"]) == 0
    assert next(open_scan(raw, settings=PrepSettings(group="first"))).data.shape[0] == 8
    with pytest.raises(SourceError, match="no dataset 'third'"):
        next(open_scan(raw, settings=PrepSettings(group="third")))


def without_centre(head: np.ndarray) -> None:
    """Makes the calibration lines of the first slice dummies."""
    central = np.abs(head["idx"]["kspace_encode_step_1"].astype(int) - 48) < 12
    imaging = (head["flags"] & np.uint64(Flag.IS_NOISE_MEASUREMENT)) == 0
    head["flags"][imaging & central & (head["idx"]["slice"] == 0)] |= np.uint64(Flag.IS_DUMMYSCAN_DATA)


def test_a_slice_that_cannot_be_reconstructed_keeps_no_other_from_it(
    heart: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = changed(heart[0], tmp_path / "one_bad.h5", without_centre)
    assert run(["replay", str(raw), "--out", str(tmp_path / "out"), "--method", "sense"]) == 1
    assert "slice 0: found no fully sampled calibration" in capsys.readouterr().err
    series = json.loads((tmp_path / "out" / "summary.json").read_text())["series"]
    assert [entry["slice"] for entry in series] == [1]
    folders = {"out": str(tmp_path / "served"), "deferred": str(tmp_path / "deferred")}
    settings = Settings().replace("recon", method="sense").replace("server", port=0, **folders)
    with serving(settings) as running:
        sent = send_scan(raw, port=running.server.port)
    assert sent.images == 8
    assert not sent.ok
    assert "slice 0: found no fully sampled calibration" in sent.errors[0]


def test_a_slice_of_zeros_is_told_after_the_other_slices(heart: tuple[Path, Path], tmp_path: Path) -> None:
    raw = Path(shutil.copy(heart[0], tmp_path / "zeros.h5"))
    with h5py.File(raw, "r+") as file:
        rows = file["dataset/data"][:]
        first = (rows["head"]["idx"]["slice"] == 0) & (rows["head"]["flags"] & (1 << 18) == 0)
        for number in np.flatnonzero(first):
            rows["data"][number] = np.zeros_like(rows["data"][number])
        file["dataset/data"][:] = rows
    scan = open_scan(raw)
    assert next(scan).index.slice == 1
    with pytest.raises(DataError, match="slice 0: its lines hold no sample"):
        next(scan)


def test_the_server_takes_the_options_as_properties() -> None:
    asked = {"gating": "retrospective", "phases": "30", "compression": "pca", "virtual_coils": "8"}
    settings = with_properties(Settings(), {**asked, "partial_fourier": "homodyne", "maps": "2"})
    assert settings.prep == PrepSettings(
        gating="retrospective", phases=30, compression="pca", virtual_coils=8
    )
    assert (settings.recon.partial_fourier, settings.coils.maps) == ("homodyne", 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"phases": 0}, "phases: found 0, allowed a whole number, 1 to 512"),
        ({"phases": 100_000}, "found 100000, allowed a whole number, 1 to 512"),
        ({"rr_tolerance": -0.1}, "rr_tolerance: found -0.1"),
        ({"rr_tolerance": float("nan")}, "rr_tolerance: found nan"),
        ({"virtual_coils": 0}, "virtual_coils: found 0"),
        ({"gating": "retrospective", "dynamic": "repetition"}, "which makes phases"),
    ],
)
def test_a_setting_out_of_range_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrepSettings(**wrong)  # type: ignore[arg-type]


def test_the_automatic_threshold_knows_the_noise_of_the_averaged_calibration_lines(
    heart: tuple[Path, Path],
) -> None:
    kspace = next(open_scan(heart[0]))
    assert kspace.calibration_noise == pytest.approx(8**-0.5, rel=0.01)
    automatic = calibrate(kspace, CoilSettings(threshold="auto"))
    usual = calibrate(kspace)
    both = automatic.support & usual.support
    assert both.sum() > 0.8 * usual.support.sum()
    agreement = np.abs(np.sum(automatic.data[0].conj() * usual.data[0], axis=0))[both]
    assert np.median(agreement) > 0.995
    unknown = dataclasses.replace(kspace, calibration_noise=None)
    np.testing.assert_array_equal(calibrate(unknown, CoilSettings(threshold="auto")).data, usual.data)


def test_crop_and_soft_reach_the_maps(heart: tuple[Path, Path]) -> None:
    kspace = next(open_scan(heart[0]))
    narrow, wide = (calibrate(kspace, CoilSettings(crop=crop)) for crop in (0.99, 0.8))
    assert narrow.support.sum() < wide.support.sum()
    norm = np.linalg.norm(calibrate(kspace, CoilSettings(soft=True)).data[0], axis=0)
    assert np.any((norm > 0.05) & (norm < 0.95))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_maps_on_a_device_that_is_absent_are_refused(heart: tuple[Path, Path]) -> None:
    kspace = next(open_scan(heart[0]))
    with pytest.raises(DeviceError, match="no CUDA device"):
        calibrate(kspace, device="cuda")
    np.testing.assert_array_equal(calibrate(kspace, device="auto").data, calibrate(kspace).data)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_maps_on_the_gpu_equal_those_on_the_cpu(heart: tuple[Path, Path]) -> None:
    kspace = next(open_scan(heart[0]))
    host, device = calibrate(kspace), calibrate(kspace, device="cuda")
    both = host.support & device.support
    assert both.sum() > 0.99 * host.support.sum()
    assert np.abs(host.data[0] - device.data[0])[:, both].max() < 5e-3

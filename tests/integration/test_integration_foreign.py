"""A file that this project did not write, by the commands a person types, into a real PACS."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from integration_servers import Orthanc, need
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from recon_node.cli import run


@pytest.mark.real
def test_a_foreign_file_replayed_to_orthanc_is_there_pixel_by_pixel(
    start_orthanc: Callable[..., Orthanc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_NODE__DELIVERY__SPOOL", str(tmp_path / "spool"))
    raw, out, orthanc = tmp_path / "shepp.h5", tmp_path / "out", start_orthanc()
    options = ["-m", "64", "-c", "6", "-a", "2", "-w", "16", "-r", "2", "-n", "0.01", "-C"]
    subprocess.run([need("ismrmrd_generate_cartesian_shepp_logan"), "-o", raw, *options], check=True)
    assert run(["replay", str(raw), "--out", str(out), "--to", orthanc.address]) == 0
    series = json.loads((out / "summary.json").read_text())["series"]
    assert [entry["index"]["repetition"] for entry in series] == [0, 1, 2, 3]
    made = {dataset.SOPInstanceUID: dataset.pixel_array for dataset in map(dcmread, out.rglob("*.dcm"))}
    assert set(made) == {uid for entry in series for uid in entry["instances"]}
    kept = [dcmread(DicomBytesIO(orthanc.file(instance))) for instance in orthanc.instances()]
    assert {dataset.SOPInstanceUID for dataset in kept} == set(made)
    for dataset in kept:
        np.testing.assert_array_equal(dataset.pixel_array, made[dataset.SOPInstanceUID])


@pytest.mark.real
def test_repetitions_of_a_foreign_file_become_one_moving_series_on_request(tmp_path: Path) -> None:
    raw, out = tmp_path / "shepp.h5", tmp_path / "out"
    options = ["-m", "64", "-c", "4", "-r", "5", "-n", "0.01", "-C"]
    subprocess.run([need("ismrmrd_generate_cartesian_shepp_logan"), "-o", raw, *options], check=True)
    arguments = ["replay", str(raw), "--out", str(out), "--method", "sense", "--dynamic", "repetition"]
    assert run(arguments) == 0
    [entry] = json.loads((out / "summary.json").read_text())["series"]
    assert entry["phases"] == 5
    assert len(list(out.rglob("*.dcm"))) == 5

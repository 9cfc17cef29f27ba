from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from recon_node.cli import run
from recon_node.lab.demo.data import SliceResult, Truth, read_truth
from recon_node.lab.demo.page import volume_curves, write_demo_report
from recon_node.lab.demo.run import compare
from recon_node.methods.registry import title_of
from recon_node.pipeline.result import Slice
from recon_node.pipeline.row import Pipeline
from recon_node.pipeline.scan import open_scan
from recon_node.settings import Settings

KT = title_of("kt")


def test_the_demo_goes_all_the_way_and_shows_it(tmp_path: Path) -> None:
    assert run(["demo", "--out", str(tmp_path), "--seed", "5"]) == 0
    series = json.loads((tmp_path / "summary.json").read_text())["series"]
    stored = {p.stem for p in (tmp_path / "pacs").rglob("*.dcm")}
    assert {uid for entry in series for uid in entry["instances"]} == stored
    assert [entry["slice"] for entry in series] == sorted(entry["slice"] for entry in series)
    assert sum(entry["seconds"]["prep"] for entry in series) > 0
    for entry in series:
        learned = entry["metrics"].get("cardiomm")
        if learned is not None:
            assert learned["psnr"] > entry["metrics"]["sense"]["psnr"] + 3
        assert entry["metrics"]["kt"]["psnr"] > entry["metrics"]["zero-filled"]["psnr"]
    page = (tmp_path / "report.html").read_text()
    assert 'id="viewer"' in page
    assert re.search(r"CardioMM is \d+\.\d dB (above|BELOW) k-t sparse SENSE", page)
    assert re.search(r"in the heart \d+\.\d dB (above|BELOW) it", page)
    assert page.count("EF (%)") == 1
    assert "jection fraction" not in page
    for shown in ("CG-SENSE", "Ventricular function", "Coil maps", "Sampling", "Time by stage"):
        assert shown in page
    assert "clinical use" in page
    assert "http://" not in page


def test_volumes_are_measured_in_the_truth_as_in_every_other_image() -> None:
    y, x = np.indices((32, 32)) - 15.5
    beat = 8 + 2 * np.cos(2 * np.pi * np.arange(6) / 6)
    cavity = (np.hypot(y, x) < beat[:, None, None]).astype(np.float32)
    wall = (np.hypot(y, x) < 13).astype(np.float32) - cavity
    image = (100 * cavity + 30 * wall).astype(np.complex64)
    truth = Truth(
        images=image[None],
        lv_volume_ml=np.ones(6),
        lvef_percent=60.0,
        trigger_times_ms=np.arange(6.0),
        lv=cavity[None],
        myocardium=wall[None],
        pixel_mm=2.0,
        slice_spacing_mm=8.0,
    )
    curves = volume_curves([(0, {"Same": image, "Half as bright": image / 2})], truth)
    assert list(curves) == ["Truth", "Same", "Half as bright"]
    np.testing.assert_allclose(curves["Same"], curves["Truth"])
    np.testing.assert_allclose(curves["Half as bright"], curves["Truth"], rtol=1e-5)
    exact = cavity.sum(axis=(1, 2)) * 2.0 * 2.0 * 8.0 / 1000
    np.testing.assert_allclose(curves["Truth"], exact, rtol=1e-5)


@pytest.mark.parametrize(
    ("methods", "columns"),
    [
        (("view-sharing", "view-sharing"), ["Zero-filled", "CG-SENSE", KT, "View sharing"]),
        (("view-sharing", "sense"), ["Zero-filled", "CG-SENSE", KT, "View sharing / CG-SENSE"]),
        (("sense", "sense"), ["Zero-filled", KT, "CG-SENSE"]),
    ],
)
def test_a_page_shows_what_was_stored_also_where_a_fallback_stands_in(
    methods: tuple[str, ...], columns: list[str], heart: tuple[Path, Path], tmp_path: Path
) -> None:
    truth, slices = read_truth(heart[1]), []
    for method, kspace in zip(methods, open_scan(heart[0]), strict=True):
        settings = Settings().replace("recon", method=method)
        part = SliceResult(done=Slice(result=Pipeline(settings).run(kspace), seconds={}, arrived=0.0))
        compare(part, truth, settings)
        slices.append(part)
    write_demo_report(tmp_path / "report.html", slices, truth)
    page = (tmp_path / "report.html").read_text()
    table = page.partition("Image quality")[2].partition("</table>")[0]
    assert re.findall(r'class="key[^>]*>([^<]+)<', table) == columns

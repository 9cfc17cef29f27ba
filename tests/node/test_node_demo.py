from __future__ import annotations

import json
from pathlib import Path

from recon_node.cli import run


def test_the_demo_goes_all_the_way_and_shows_it(tmp_path: Path) -> None:
    assert run(["demo", "--out", str(tmp_path), "--seed", "5"]) == 0
    series = json.loads((tmp_path / "summary.json").read_text())["series"]
    stored = {p.stem for p in (tmp_path / "pacs").rglob("*.dcm")}
    assert {uid for entry in series for uid in entry["instances"]} == stored
    for entry in series:
        learned = entry["metrics"].get("cardiomm")
        if learned is not None:
            assert learned["psnr"] > entry["metrics"]["sense"]["psnr"] + 3
    page = (tmp_path / "report.html").read_text()
    assert "image/webp" in page
    assert "CG-SENSE" in page
    assert "clinical use" in page
    assert "http://" not in page.replace("http://www.w3.org", "")

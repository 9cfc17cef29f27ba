"""Pages about one's own scans."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recon_node.cli import run
from recon_node.core.types import Verdict
from recon_node.files.open import open_source
from recon_node.offline.pages import report_slice, write_index
from recon_node.pipeline.row import Pipeline, row
from recon_node.pipeline.write import SeriesWriter
from recon_node.report.overview import siblings_of
from recon_node.settings import Settings
from recon_node.simulate import simulate_scan


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    raw = folder / "<b>heart.h5"
    simulate_scan(raw, acceleration=4, pattern="random", coils=4, slices=2, phases=6, matrix=64, seed=3)
    (folder / "bad.h5").write_bytes(b"nothing")
    command = ["replay", str(raw), str(folder / "bad.h5"), "--out", str(folder / "out")]
    assert run([*command, "--method", "sense", "--report"]) == 1
    return folder / "out"


def test_every_slice_has_a_page_and_the_overview_leads_to_it(replayed: Path) -> None:
    index = (replayed / "report" / "index.html").read_text()
    pages = re.findall(r'<a href="([^"]+\.html)">&lt;b', index)
    assert len(pages) == 2
    for page in pages:
        text = (replayed / "report" / page).read_text()
        assert "not for clinical use" in text.lower()
        assert 'src="http' not in text
        for shown in (
            "Zero-filled",
            "CG-SENSE",
            "Coil maps",
            "Prompts",
            "Sampling",
            "g-factor of CG-SENSE",
            "expected error",
            "unexplained signal",
        ):
            assert shown in text
        (folder,) = re.findall(r'href="(\.\./[^"]+/)">DICOM files', text)
        assert len([*(replayed / "report" / folder).glob("*.dcm")]) == 6
        assert [one["page"] for one in siblings_of(replayed / "report" / page)] == sorted(
            pages, key=lambda name: slice_of(replayed / "report" / name)
        )
    assert "bad.h5" in index
    assert "1 inputs without images" in index


def slice_of(page: Path) -> str:
    (title,) = re.findall("<title>(.*)</title>", page.read_text())
    return title.rpartition(" ")[2]


@pytest.mark.parametrize("lost", ["*.html", "*.png"])
def test_a_page_that_a_stopped_run_did_not_come_to_is_made_when_it_goes_on(
    replayed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(replayed, out)
    page = next(path for path in sorted((out / "report").glob(lost)) if path.name != "index.html")
    before = page.read_bytes()
    images = {path: path.read_bytes() for path in out.rglob("*.dcm")}
    page.unlink()
    raw = replayed.parent / "<b>heart.h5"
    command = ["replay", str(raw), "--out", str(out), "--method", "sense", "--report", "--resume"]
    assert run(command) == 0
    assert "1 skipped" in capsys.readouterr().out
    assert page.exists()
    assert lost != "*.png" or page.read_bytes() == before
    assert {path: path.read_bytes() for path in out.rglob("*.dcm")} == images
    assert run(command) == 0
    assert "2 skipped" in capsys.readouterr().out


def test_names_from_files_are_text_and_patients_are_not_named(replayed: Path) -> None:
    index = (replayed / "report" / "index.html").read_text()
    assert "<b>heart" not in index
    assert "&lt;b&gt;heart.h5" in index
    everything = index + "".join(p.read_text() for p in (replayed / "report").glob("*.html"))
    assert "Phantom" not in everything


def test_an_overview_made_again_leaves_the_pages_alone(replayed: Path) -> None:
    pages = [*(replayed / "report").glob("*.html")]
    before = {page: page.stat().st_mtime_ns for page in pages if page.name != "index.html"}
    write_index(replayed)
    assert {page: page.stat().st_mtime_ns for page in before} == before


def test_a_watched_folder_has_an_overview_after_every_file(tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    command = [
        sys.executable,
        "-m",
        "recon_node",
        "replay",
        str(inbox),
        "--out",
        str(out),
        "--watch",
        "--report",
    ]
    with subprocess.Popen([*command, "--method", "sense"], stderr=subprocess.PIPE) as watching:
        try:
            for number in (1, 2):
                scan = tmp_path / f"heart-{number}.h5"
                sizes = {"coils": 4, "slices": 1, "phases": 4, "matrix": 64}
                simulate_scan(scan, acceleration=4, pattern="random", seed=number, **sizes)
                shutil.copy(scan, inbox)
                index, end = out / "report" / "index.html", time.monotonic() + 180
                while not (index.is_file() and f"heart-{number}.h5, slice 1" in index.read_text()):
                    assert watching.poll() is None
                    assert time.monotonic() < end
                    time.sleep(0.2)
        finally:
            os.kill(watching.pid, signal.SIGINT)
        assert watching.wait(30) == 130


def test_undersampled_slices_are_shown_beside_the_full_data_with_their_errors(tmp_path: Path) -> None:
    full, out = tmp_path / "full.h5", tmp_path / "out"
    simulate_scan(full, acceleration=1, pattern="uniform", coils=4, slices=1, phases=4, matrix=64, seed=4)
    command = [
        "replay",
        str(full),
        "--out",
        str(out),
        "--undersample",
        "4x:random",
        "--method",
        "kt",
        "--report",
    ]
    assert run(command) == 0
    (page,) = (one for one in (out / "report").glob("*.html") if one.name != "index.html")
    text = page.read_text()
    assert "reconstructed from all lines" in text
    (entry,) = json.loads((out / "summary.json").read_text())["series"]
    for found in entry["metrics"].values():
        assert f"{found['psnr']:.2f} dB, SSIM {found['ssim']:.3f}" in text
    assert f"PSNR {entry['metrics']['kt']['psnr']:.1f} dB" in (out / "report" / "index.html").read_text()


def test_a_withheld_image_stands_beside_what_replaced_it(replayed: Path, tmp_path: Path) -> None:
    settings = Settings().replace("recon", method="sense")
    writer = SeriesWriter.from_settings(settings, tmp_path)
    with open_source(replayed.parent / "<b>heart.h5") as source:
        done = next(row(source, Pipeline(settings), writer=writer))
    made = done.result.images
    withheld = replace(made, data=2 * made.data, made_by=replace(made.made_by, method="cardiomm"))
    verdict = Verdict(verdict="fallback", score=0.0, reasons=("held-out lines are missed",))
    done = replace(done, result=replace(done.result, withheld=withheld, verdict=verdict))
    report_slice(done, tmp_path, settings.recon)
    (page,) = (tmp_path / "report").glob("*.html")
    panels = re.findall(r'<b class="key c\d">([^<]+)</b>', page.read_text())
    assert panels == ["Zero-filled", "CardioMM, withheld", "CG-SENSE"]
    assert "Trust: network withheld" in page.read_text()


def test_slices_that_share_a_series_have_pages_of_their_own(replayed: Path, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('[dicom]\nstack = true\nfolders = "all/{protocol}"\n')
    command = ["replay", str(replayed.parent / "<b>heart.h5"), "--out", str(tmp_path / "out"), "--report"]
    assert run([*command, "--method", "zero-filled", "--config", str(tmp_path / "node.toml")]) == 0
    report = tmp_path / "out" / "report"
    index = (report / "index.html").read_text()
    pages = sorted(one.name for one in report.glob("*.html") if one.name != "index.html")
    assert len(pages) == 2
    assert sorted(re.findall(r'<a href="([^"]+\.html)">&lt;b', index)) == [
        p for p in pages if p != "index.html"
    ]

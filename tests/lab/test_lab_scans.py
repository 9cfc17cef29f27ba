"""Pages about one's own scans."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from recon_node.cli import run
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
    pages = re.findall(r'href="([^"]+\.html)"', index)
    assert len(pages) == 2
    for page in pages:
        text = (replayed / "report" / page).read_text()
        assert "not for clinical use" in text.lower()
        assert 'src="http' not in text
    assert "bad.h5" in index
    assert "1 inputs without images" in index


def test_names_from_files_are_text_and_patients_are_not_named(replayed: Path) -> None:
    index = (replayed / "report" / "index.html").read_text()
    assert "<b>heart" not in index
    assert "&lt;b&gt;heart.h5" in index
    everything = index + "".join(p.read_text() for p in (replayed / "report").glob("*.html"))
    assert "Phantom" not in everything


@pytest.mark.real
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_phone_shows_the_overview_without_a_sideways_scroll(replayed: Path, tmp_path: Path) -> None:
    page = replayed / "report" / "index.html"
    probe = page.read_text().replace(
        "</body>", "<script>document.title=document.documentElement.scrollWidth</script></body>"
    )
    (replayed / "report" / "probe.html").write_text(probe)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,800"]
    command += [f"--user-data-dir={tmp_path}", "--dump-dom", (replayed / "report" / "probe.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    (width,) = re.findall(r"<title>(\d+)</title>", shown)
    assert int(width) <= 500

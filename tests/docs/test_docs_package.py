"""What travels in the wheel, what it may depend on, and what is given away by name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from pages import ROOT, on_path

from recon_node.cli import run


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # of an earlier build, with files that are gone
    options = "--no-deps --no-build-isolation --disable-pip-version-check --quiet --wheel-dir"
    command = [sys.executable, "-m", "pip", "wheel", *options.split(), str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("recon_node-*.whl")))


def test_the_wheel_holds_all_that_the_package_reads(wheel: zipfile.ZipFile) -> None:
    there = set(wheel.namelist())
    for pattern in (
        "**/*.py",
        "**/*.html",
        "**/*.css",
        "**/*.js",
        "**/*.toml",
        "**/*.safetensors",
        "**/*.npz",
    ):
        for path in (ROOT / "recon_node").glob(pattern):
            assert path.relative_to(ROOT).as_posix() in there
    for path in (ROOT / "gadget_configs").glob("*.xml"):
        assert f"recon_node/chains/{path.name}" in there
        assert wheel.read(f"recon_node/chains/{path.name}") == path.read_bytes()
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/", "build/")) for name in there)


def test_the_chains_are_written_where_gadgetron_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gadget", "chains", str(tmp_path)]) == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in (ROOT / "gadget_configs").glob("*.xml")}
    changed = tmp_path / "recon_node_acquisitions.xml"
    changed.write_text("<mine/>")
    assert run(["gadget", "chains", str(tmp_path)]) == 1
    assert "is there and differs" in capsys.readouterr().err
    assert changed.read_text() == "<mine/>"
    assert run(["gadget", "chains", str(tmp_path), "--force"]) == 0
    assert changed.read_text() != "<mine/>"


def test_a_recipe_has_a_name_and_others_are_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--config", "heart", "--set", "run.nothing=1"]) == 2
    assert "nothing" in capsys.readouterr().err
    assert run(["train", "--config", "hearts-of-mine"]) == 2
    assert "no recipe of that name (ablation, heart" in capsys.readouterr().err


def test_every_dependency_has_a_licence_that_may_be_shipped() -> None:
    environment = os.environ | {"PATH": on_path()}
    told = subprocess.run(
        [ROOT / "scripts" / "licences"], check=False, capture_output=True, text=True, env=environment
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "torch" in told.stdout


def test_the_steps_of_the_dockerfile_can_be_run(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "scripts" / "dockerfile-steps"),
        str(tmp_path / "image"),
        "--dry-run",
    ]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "RUN pip install" in told
    assert told.endswith("every step done\n")


@pytest.mark.parametrize("name", ["check", "licences", "release", "site"])
def test_a_script_is_a_script(name: str) -> None:
    subprocess.run(["sh", "-n", str(ROOT / "scripts" / name)], check=True)
    assert os.access(ROOT / "scripts" / name, os.X_OK)


def test_the_page_of_a_package_index_has_no_link_that_leads_nowhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.py"))
    shutil.copytree(ROOT / "gadget_configs", tmp_path / "gadget_configs")
    for name in (
        *(path.name for path in ROOT.glob("*.md")),
        "pyproject.toml",
        "LICENSE",
        "NOTICE",
        "CITATION.cff",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    home = "https://example.org/site/recon-node"
    subprocess.run([ROOT / "scripts" / "at-home", tmp_path, home, "1.2"], check=True)
    links = re.findall(r"\]\(([^)]+)\)", (tmp_path / "README.md").read_text())
    assert links
    assert all(link.startswith(("http", "#")) for link in links)
    assert f"{home}/raw/v1.2/docs/demo.png" in links
    assert tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]["urls"]["Homepage"] == home

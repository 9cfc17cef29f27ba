"""The documentation's example package, installed and served."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from recon_node.cli import run
from recon_node.core.errors import ConfigError
from recon_node.core.plugins import forget
from recon_node.dicom.provenance import read_provenance
from recon_node.methods.registry import find_method
from recon_node.methods.table import method_names
from recon_node.offline.send import send_scan
from recon_node.online.module import make_scan_handler
from recon_node.online.serve import serving, with_properties
from recon_node.settings import Settings

NAME = "sense-denoised"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """The example package, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("example")
    source = shutil.copytree(pytestconfig.rootpath / "examples" / "recon_node_example", folder / "source")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
    ]
    command = [*pip, "--disable-pip-version-check", "--target", str(folder / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(autouse=True)
def example(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(site)
    forget()
    yield
    forget()
    sys.modules.pop("recon_node_example", None)


def check_dicom(folder: Path, count: int) -> None:
    """The instances carry the example's own name, package, version and hash, and no pass."""
    files = [*folder.glob("*/*/*.dcm")]
    assert len(files) == count
    for file in files:
        ds = pydicom.dcmread(file)
        facts = read_provenance(ds)
        assert facts["method"] == NAME
        assert (facts["method_package"], facts["method_version"]) == ("recon-node-example", "1.0")
        assert re.fullmatch("[0-9a-f]{64}", facts["weights_sha256"])
        assert facts["verdict"] == "warn"
        assert any("no trust limits of its own" in reason for reason in facts["reasons"])
        assert not facts["validated"]
        assert ds.SeriesDescription.startswith(f"{NAME} [WARN]")
        assert ds.SeriesDescription.endswith("NOT FOR CLINICAL USE")
        (equipment,) = ds.ContributingEquipmentSequence
        assert equipment.ManufacturerModelName == NAME
        assert "recon-node-example 1.0" in equipment.SoftwareVersions


def test_a_scan_that_arrives_at_the_server_is_reconstructed_by_the_installed_package(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    folders = {"out": str(tmp_path / "dicom"), "deferred": str(tmp_path / "deferred")}
    settings = Settings().replace("recon", method=NAME, device="cpu").replace("server", port=0, **folders)
    with serving(settings) as running:
        sent = send_scan(heart[0], port=running.server.port)
    assert sent.ok, sent.errors
    assert sent.images == 16
    check_dicom(tmp_path / "dicom", 16)


def test_a_client_may_choose_it_by_name(heart: tuple[Path, Path], tmp_path: Path) -> None:
    folders = {"out": str(tmp_path / "dicom"), "deferred": str(tmp_path / "deferred")}
    settings = Settings().replace("recon", method="sense").replace("server", port=0, **folders)
    with serving(settings) as running:
        sent = send_scan(heart[0], port=running.server.port, properties={"method": NAME})
    assert sent.ok, sent.errors
    check_dicom(tmp_path / "dicom", 16)


def test_replay_in_a_process_of_its_own_finds_it(
    heart: tuple[Path, Path], tmp_path: Path, site: Path, pytestconfig: pytest.Config
) -> None:
    command = [sys.executable, "-m", "recon_node", "replay", str(heart[0]), "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{pytestconfig.rootpath}{os.pathsep}{site}"}
    done = subprocess.run(
        [*command, "--method", NAME],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    check_dicom(tmp_path, 16)
    (entry, _) = json.loads((tmp_path / "summary.json").read_text())["series"]
    assert entry["method"] == NAME
    assert entry["weights"]["name"] == "example"


def test_the_gadget_takes_it_as_a_property(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECON_NODE__SERVER__OUT", str(tmp_path))
    assert callable(make_scan_handler({"method": NAME}))
    assert with_properties(Settings(), {"method": NAME}).recon.method == NAME


@pytest.mark.parametrize("name", ["method", "fallback"])
def test_a_peer_may_not_have_a_module_imported(name: str) -> None:
    with pytest.raises(ConfigError, match="module"):
        with_properties(Settings(), {name: "recon_node_example:SenseDenoised"})


def test_openrecons_choice_list_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["openrecon", "label"]) == 0
    parameters = {p["id"]: p for p in json.loads(capsys.readouterr().out)["parameters"]}
    assert [value["id"] for value in parameters["method"]["values"]] == list(method_names())
    assert NAME in method_names()


def test_evaluate_compares_it_with_the_built_in_methods(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--methods", f"zero-filled,{NAME}", "--scans", "1", "--phases", "4", "--matrix", "48"]
    sizes = ["--coils", "6", "--patterns", "random", "--accelerations", "4", "--json"]
    assert run(["evaluate", *arguments, *sizes, "--report", str(tmp_path / "page.html")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["method"] for row in rows} == {"zero-filled", NAME}
    page = (tmp_path / "page.html").read_text()
    for row in rows:
        assert f">{row['psnr']:.2f}<" in page


def test_it_is_as_short_as_the_documentation_promises(pytestconfig: pytest.Config) -> None:
    file = pytestconfig.rootpath / "examples" / "recon_node_example" / "recon_node_example.py"
    assert len([line for line in file.read_text().splitlines() if line.strip()]) <= 35
    assert file.read_text() in (pytestconfig.rootpath / "docs" / "plugins.md").read_text()


def test_the_documentations_other_code_runs(pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "docs" / "plugins.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/plugins.md", "exec"), names)
    names["TestSenseDenoised"]().test_images_lie_on_the_grid_of_the_k_space()
    assert names["Boxed"].recognises(Path("x"), b"BOXED")
    assert names["Shelf"]("shelf://x", level=3).name == "shelf://x"


def test_its_record_is_cautious_where_it_says_nothing() -> None:
    record = find_method(NAME)
    assert (record.learned, record.built_in) == (True, False)
    loaded = record.load(Settings().recon)
    assert (loaded.validated, loaded.trained_on, loaded.encoder) == (False, None, None)


def test_without_the_package_its_name_is_one_clear_error(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(site)])
    forget()
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=r"method: found 'sense-denoised', .*cardiomm.*module:Class"):
        Settings().replace("recon", method=NAME)
    assert run(["replay", "x.h5", "--out", "x", "--method", NAME]) == 2

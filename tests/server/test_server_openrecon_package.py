"""What a scanner installs."""

from __future__ import annotations

import base64
import json
import re
import zipfile
from pathlib import Path

import pytest

from recon_node.cli import run
from recon_node.core.errors import ConfigError
from recon_node.online.openrecon import openrecon_label, parameters_from_settings, validate_label
from recon_node.settings import Settings


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)


@pytest.mark.usefixtures("no_docker")
def test_without_docker_everything_up_to_the_build_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["openrecon", "package", "--out", str(tmp_path)]) == 0
    assert "docker build --platform linux/amd64" in capsys.readouterr().out
    recipe = (tmp_path / "Dockerfile").read_text()
    assert "USER root" in recipe
    assert "linux/amd64" in recipe
    encoded = re.search(r'LABEL "[^"]+"="([^"]+)"', recipe)
    assert encoded is not None
    label = json.loads(base64.b64decode(encoded[1]))
    assert label == json.loads((tmp_path / "label.json").read_text())
    (page,) = tmp_path.glob("OpenRecon_*_V*.pdf")
    assert page.read_bytes().startswith(b"%PDF")
    assert not list(tmp_path.glob("*.zip"))


@pytest.mark.usefixtures("no_docker")
def test_an_image_saved_elsewhere_becomes_the_zip(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"layers")
    wheel = tmp_path / "recon_node-0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    out = tmp_path / "out"
    command = ["openrecon", "package", "--out", str(out), "--image", str(tmp_path / "image.tar")]
    assert run([*command, "--wheel", str(wheel)]) == 0
    (archive,) = out.glob("*.zip")
    with zipfile.ZipFile(archive) as packed:
        names = sorted(packed.namelist())
        assert [Path(name).suffix for name in names] == [".pdf", ".tar"]
        assert {Path(name).stem for name in names} == {archive.stem}
        assert packed.read(names[1]) == b"layers"
        assert all(one.compress_type == zipfile.ZIP_DEFLATED for one in packed.infolist())
    assert f"/package/{wheel.name}" in (out / "Dockerfile").read_text()
    assert run([*command[:-1], str(tmp_path / "absent")]) == 1


def test_the_default_label_asks_for_at_most_twelve_things_and_follows_the_published_rules() -> None:
    label = openrecon_label(parameters_from_settings(Settings()), version="1.2.3")
    assert len(label["parameters"]) <= 12
    for parameter in label["parameters"]:
        assert re.fullmatch("[A-Za-z0-9]+", parameter["id"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "two_words", "type": "boolean", "default": True}, "letters and digits"),
        ({"id": "n", "type": "int", "default": 1, "minimum": 0}, "lacks a bound"),
        ({"id": "n", "type": "double", "default": 1.0, "minimum": 0.05, "maximum": 2.0}, "steps of 0.1"),
        ({"id": "config", "type": "choice", "default": "a", "values": [{"id": "a"}]}, "more than once"),
    ],
)
def test_a_label_that_no_scanner_takes_is_refused(change: dict[str, object], words: str) -> None:
    label = openrecon_label([], version="1.2.3")
    label["parameters"].append({"label": {"en": "x"}, **change})
    with pytest.raises(ConfigError, match=words):
        validate_label(label)

"""The container files: well-formed, in agreement with the repository, and their commands exist."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from node_scanner import acquisitions, opening, talk

import recon_node
from recon_node.cli import cli, run
from recon_node.mrd.messages import close_bytes
from recon_node.online.gadget import TARGETS
from recon_node.online.openrecon import LABEL_NAME, validate_label
from recon_node.online.serve import configured, names
from recon_node.settings import load_settings

ROOT = Path(recon_node.__file__).parents[1]
FOLDER = ROOT / "docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions(name: str) -> list[tuple[str, str]]:
    """Keyword and the rest of each instruction of a Dockerfile."""
    text = re.sub(r"^#.*\n", "", (FOLDER / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


def environment(name: str) -> dict[str, str]:
    pairs = " ".join(rest for keyword, rest in instructions(name) if keyword == "ENV")
    return dict(pair.split("=", 1) for pair in shlex.split(pairs))


@pytest.mark.parametrize("name", ["Dockerfile", "openrecon.Dockerfile"])
def test_a_dockerfile_copies_what_is_there_and_runs_a_command_that_exists(name: str) -> None:
    found = instructions(name)
    assert found[0][0] == "FROM"
    for sources in (rest.split()[:-1] for keyword, rest in found if keyword == "COPY"):
        assert all((ROOT / source).exists() for source in sources)
    (command,) = (json.loads(rest) for keyword, rest in found if keyword == "CMD")
    inner = cli.get_command(click.Context(cli), command[0])
    assert inner is not None
    assert inner.make_context(command[0], command[1:]).params["server__host"] == "0.0.0.0"
    load_settings(environment=environment(name))


@pytest.mark.parametrize("name", ["Dockerfile", "openrecon.Dockerfile"])
def test_hadolint_has_nothing_to_say_about_a_dockerfile(name: str) -> None:
    lint = Path(sys.executable).with_name("hadolint")
    told = subprocess.run([str(lint), str(FOLDER / name)], check=False, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, "")


def test_compose_holds_gadgetrons_place_the_node_orthanc_and_what_watches_them() -> None:
    assert {"gadgetron", "gadget", "node", "orthanc", "prometheus", "grafana"} == set(SERVICES)
    assert SERVICES["prometheus"]["profiles"] == SERVICES["grafana"]["profiles"] == ["monitoring"]
    assert SERVICES["gadgetron"]["profiles"] == SERVICES["gadget"]["profiles"] == ["gadgetron"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_mounts_what_is_there_and_is_published_on_loopback_only(name: str) -> None:
    service = SERVICES[name]
    assert "image" in service
    if "build" in service:
        context = FOLDER / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (FOLDER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    assert set(service.get("depends_on", [])) <= set(SERVICES)


def test_the_nodes_settings_are_valid_and_lead_to_orthanc() -> None:
    settings = load_settings(FOLDER / "node.toml", environment={})
    assert [configured(settings, name, {}).server.mode for name in names(settings)] == [
        "direct",
        "retrieve",
        "deferred",
    ]
    (destination,) = settings.delivery.to
    title, host = re.fullmatch(
        r"dicom://(\w+)@(\w+):4242", settings.delivery.destinations[destination]["address"]
    ).groups()
    assert SERVICES[host]["environment"]["ORTHANC__DICOM_AET"] == title
    for service in ("node", "gadget"):
        inside = SERVICES[service]["environment"]["RECON_NODE_CONFIG"]
        assert f"./node.toml:{inside}:ro" in SERVICES[service]["volumes"]


def test_the_chain_finds_the_module_that_compose_starts() -> None:
    chain = (ROOT / "gadget_configs" / "recon_node_connect.xml").read_text()
    port, target, *_ = SERVICES["gadget"]["command"]
    assert f'<connect address="gadget" port="{port}"/>' in chain
    assert target in TARGETS
    assert importlib.util.find_spec(SERVICES["gadget"]["entrypoint"][2]) is not None


def test_the_openrecon_image_carries_the_label_of_the_settings() -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    made = subprocess.run(
        [str(FOLDER / "openrecon.sh"), str(FOLDER / "node.toml")],
        env=os.environ | {"DRY_RUN": "1", "PATH": path},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    name, value = re.search(r'^LABEL "([^"]+)"="([^"]+)"$', made, re.MULTILINE).groups()
    assert name == LABEL_NAME
    tree = json.loads(base64.b64decode(value))
    validate_label(tree)
    parameters = {parameter["id"]: parameter for parameter in tree["parameters"]}
    assert [choice["id"] for choice in parameters["config"]["values"]] == ["default", "later", "fetch"]
    assert parameters["mode"]["default"] == "direct"
    assert tree["reconstruction"]["port"] == 9002


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package, built from a copy: somebody else may build in the tree."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree)
    for name in ("recon_node", "gadget_configs"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    options = "--no-deps --no-build-isolation --disable-pip-version-check --quiet --wheel-dir"
    command = [sys.executable, "-m", "pip", "wheel", *options.split(), str(out), str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("recon_node-*.whl"))


def test_an_openrecon_package_installs_in_a_clean_folder_and_answers_a_scanner(
    wheel: Path, heart: tuple[Path, Path], tmp_path: Path
) -> None:
    package, image = tmp_path / "package", tmp_path / "image"
    assert run(["openrecon", "package", "--out", str(package), "--wheel", str(wheel)]) == 0
    encoded = re.search(
        rf'^LABEL "{LABEL_NAME}"="([^"]+)"$', (package / "Dockerfile").read_text(), re.MULTILINE
    )
    assert encoded is not None
    validate_label(json.loads(base64.b64decode(encoded[1])))
    steps = [
        sys.executable,
        str(ROOT / "scripts" / "dockerfile-steps"),
        str(image),
        "--package",
        str(package),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        [*steps, "--offline", "--port", "0", "--hold"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as image_at_work:
        assert image_at_work.stdout is not None
        told = []
        for line in image_at_work.stdout:
            told.append(line)
            if (well := re.match(r"healthy at port (\d+)", line)) is not None:
                break
        assert well is not None, "".join(told)
        images, texts, _ = talk(
            int(well[1]), [opening(heart[0], method="sense"), *acquisitions(heart[0]), close_bytes()]
        )
        image_at_work.communicate(timeout=60)
    assert image_at_work.returncode == 0
    assert len(images) == 16
    assert not [text for text in texts if text.startswith("ERR")]
    (installed,) = (image / "venv" / "lib").glob("python*/site-packages/recon_node/__init__.py")
    assert installed.read_bytes() == Path(recon_node.__file__).read_bytes()
    assert not (image / "package").exists()
    assert list((image / "tmp" / "images").rglob("*.dcm"))


def test_docker_itself_accepts_the_files_where_it_is_installed() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False).returncode:
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "-f", str(FOLDER / "compose.yaml"), "--profile", "gadgetron"]
    subprocess.run([*command, "config", "-q"], check=True, capture_output=True)

"""What is shipped for the people who operate a node agrees with the node, and with its own schemas."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click import Context

import recon_node
from recon_node.cli import cli
from recon_node.offline.send import send_scan
from recon_node.online.serve import serving
from recon_node.settings import Settings, load_settings

ROOT = Path(recon_node.__file__).parents[1]
MONITORING = ROOT / "docker" / "monitoring"
ALERTS = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
BOARD = json.loads((MONITORING / "dashboards" / "recon-node.json").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
UNIT = ROOT / "systemd" / "recon-node.service"


@pytest.fixture(scope="module")
def shown(heart: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The metrics of a node after two scans."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "share").mkdir()
    settings = Settings().replace("recon", method="sense")
    folders = {"out": str(folder / "dicom"), "deferred": str(folder / "deferred")}
    settings = settings.replace("server", port=0, health_port=0, **folders)
    settings = settings.replace("delivery", spool=str(folder / "spool"), to=(str(folder / "share"),))
    with serving(settings) as running:
        assert send_scan(heart[0], port=running.server.port, properties={"mode": "deferred"}).ok
        assert send_scan(heart[0], port=running.server.port).ok
        return running.node.metrics.text().decode()


@pytest.mark.parametrize("expression", [rule["expr"] for rule in RULES])
def test_an_alert_asks_for_metrics_and_labels_that_a_node_has(expression: str, shown: str) -> None:
    _agrees(expression, shown)


@pytest.mark.parametrize("panel", BOARD["panels"], ids=lambda panel: panel["title"])
def test_a_panel_asks_for_metrics_and_labels_that_a_node_has(panel: dict, shown: str) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        _agrees(target["expr"], shown)


def _agrees(expression: str, shown: str) -> None:
    names = set(re.findall(r"\brecon_node_\w+", expression))
    assert names or expression.startswith("up{")
    for name in names:
        assert re.search(rf"^{name}(\{{| )", shown, re.MULTILINE), name
    for name, labels in re.findall(r"(recon_node_\w+)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)[!=~]+", labels):
            assert re.search(rf"^{name}\{{[^}}]*\b{label}=", shown, re.MULTILINE), (name, label)


def test_every_alert_is_explained_in_the_pages() -> None:
    page = (ROOT / "docs" / "operation.md").read_text()
    for rule in RULES:
        assert rule["annotations"]["summary"]
        assert re.search(rf"^\|.*\b{rule['alert']}\b", page, re.MULTILINE), rule["alert"]


def test_compose_files_are_what_their_schema_says() -> None:
    files = [str(path) for path in (ROOT / "docker").glob("compose*.yaml")]
    assert len(files) == 2
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files]
    told = subprocess.run(command, check=False, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout


def test_prometheus_asks_the_node_where_compose_has_its_status_page() -> None:
    scrape = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())["scrape_configs"][0]
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    environment = compose["services"]["node"]["environment"]
    port = environment["RECON_NODE__SERVER__STATUS_PORT"]
    assert scrape["static_configs"] == [{"targets": [f"node:{port}"]}]
    assert compose["configs"]["token"]["content"] == environment["RECON_NODE__SERVER__STATUS_TOKEN"]
    (token,) = compose["services"]["prometheus"]["configs"]
    assert token["target"] == scrape["authorization"]["credentials_file"]
    given = {key: str(value) for key, value in environment.items() if key != "RECON_NODE_CONFIG"}
    given["RECON_NODE__SERVER__STATUS_TOKEN"] = re.sub(
        r"\$\{\w+:-(.*)\}", r"\1", given["RECON_NODE__SERVER__STATUS_TOKEN"]
    )
    assert load_settings(ROOT / "docker" / "node.toml", given).server.status_port == port


# ---------------------------------------------------------------- systemd


def test_the_unit_starts_a_command_that_exists_with_settings_that_are_allowed() -> None:
    text = UNIT.read_text()
    for line in re.findall(r"^Exec\w+=(/opt/recon-node/bin/recon-node .*)$", text, re.MULTILINE):
        words = line.split()[1:]
        command = cli.get_command(Context(cli), words[0])
        assert command is not None
        if words[0] == "serve":
            assert command.make_context(words[0], words[1:]).params["config"] is not None
    settings = load_settings(ROOT / "systemd" / "node.toml", {})
    state = re.search(r"^StateDirectory=(.*)$", text, re.MULTILINE)
    assert state is not None
    for folder in (settings.server.out, settings.server.deferred, settings.delivery.spool):
        assert Path(folder).is_relative_to(Path("/var/lib") / state[1])
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > settings.server.drain_s


@pytest.mark.real
def test_systemd_understands_the_unit_and_finds_it_hardened(
    component: Callable[[str], str], tmp_path: Path
) -> None:
    analyze = component("systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/recon-node/bin/recon-node", sys.executable))
    told = subprocess.run([analyze, "verify", str(unit)], check=False, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert unit.name not in told.stderr
    command = [analyze, "security", "--offline=yes", "--threshold=25", str(unit)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0

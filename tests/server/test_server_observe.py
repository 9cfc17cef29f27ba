"""Logs without patient data, counters, the health port, and the OpenRecon label."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import re
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Literal

import pytest

from recon_node.core.errors import ConfigError
from recon_node.methods.table import CLASSICAL
from recon_node.mrd.header import parse_header
from recon_node.mrd.request import parameters_from_json
from recon_node.offline.send import send_scan
from recon_node.online.health import HealthServer, Page, health_pages
from recon_node.online.log import PatientFilter, hashed, setup_logging
from recon_node.online.metrics import Metrics
from recon_node.online.openrecon import (
    LABEL_NAME,
    Parameter,
    dockerfile_line,
    openrecon_label,
    parameter,
    parameters_from_settings,
    validate_label,
)
from recon_node.online.properties import PROPERTIES
from recon_node.schema import Checked, checked, setting, settings_of
from recon_node.settings import Settings

UID = "1.2.826.0.1.3680043.8.498.12345"


@pytest.fixture
def logged() -> Iterator[tuple[io.StringIO, PatientFilter]]:
    """What a log file would hold, and its filter; logging is put back afterwards."""
    root, own = logging.getLogger(), logging.getLogger("recon_node")
    before = ([*root.handlers], root.level, own.level)
    stream = io.StringIO()
    yield stream, setup_logging("debug", style="json", stream=stream)
    root.handlers[:], root.level, own.level = before


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_protected_values_and_uids_never_reach_the_log(logged, helpers) -> None:
    stream, patients = logged
    headers = parse_header(helpers.header_xml())
    log = logging.getLogger("recon_node.test")
    forget = patients.protect(headers)
    log.info("patient %s has id %s in %s", "SECRET^PATIENT", "secret-id", UID, extra={"scan": f"x {UID}"})
    log.warning("name parts: Patient, secret")
    try:
        {}["Secret^Patient"]
    except KeyError:
        log.exception("it broke")
    text = stream.getvalue()
    assert "secret" not in text.lower()
    assert "patient, " not in text.lower()
    assert UID not in text
    assert hashed(UID) in text
    assert "KeyError at test_server_observe.py:" in text
    forget()
    log.info("secret-id is an ordinary word again")
    assert "secret-id" in lines(stream)[-1]["message"]


def test_a_value_is_protected_as_long_as_one_of_two_scans_needs_it(logged, helpers) -> None:
    _, patients = logged
    first, second = (patients.protect(parse_header(helpers.header_xml())) for _ in range(2))
    first()
    assert "SECRET" not in patients.clean("SECRET-ID")
    second()
    assert patients.clean("SECRET-ID") == "SECRET-ID"


def test_only_known_fields_are_logged(logged) -> None:
    stream, _ = logged
    logging.getLogger("recon_node").info("done", extra={"scan": "abc", "patient_name": "Secret"})
    (line,) = lines(stream)
    assert line["scan"] == "abc"
    assert "patient_name" not in line
    assert set(line) == {"time", "level", "logger", "message", "scan"}


def test_other_packages_are_heard_from_warning_on(logged) -> None:
    stream, _ = logged
    logging.getLogger("pynetdicom").debug("(0010,0010) PN [Secret^Patient]")
    logging.getLogger("pynetdicom").warning("association aborted")
    assert [line["message"] for line in lines(stream)] == ["association aborted"]


def test_a_text_line_is_one_line_of_pairs(logged) -> None:
    stream = io.StringIO()
    setup_logging("info", stream=stream)
    logging.getLogger("recon_node").info('two\nlines and a "quote"', extra={"seconds": 1.23456789})
    (line,) = stream.getvalue().splitlines()
    assert re.search(
        r'level=info logger=recon_node message="two lines and a \\"quote\\"" seconds=1.23457', line
    )


def test_an_unknown_level_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="log level is 'loud'"):
        setup_logging("loud")


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_health_port_tells_life_readiness_and_counters(serve, scan_file: Path, helpers) -> None:
    metrics = Metrics()
    server = serve(on_event=metrics.on_event)
    pages = health_pages(metrics, ready=lambda: None if server.accepting else "stopping")
    with HealthServer(pages, port=0) as health:
        assert get(health.port, "/healthz") == (200, "ok\n")
        assert get(health.port, "/readyz") == (200, "ready\n")
        assert send_scan(scan_file, port=server.port).ok
        assert helpers.eventually(lambda: server.active == 0)
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"\x63\x27")
            assert b"ERR" in sock.recv(1000)
        assert helpers.eventually(lambda: server.active == 0)
        status, text = get(health.port, "/metrics")
        server.stop()
        assert get(health.port, "/readyz") == (503, "stopping\n")
        assert get(health.port, "/etc/passwd")[0] == 404
    assert status == 200
    assert 'recon_node_scans_total{outcome="ok"} 1.0' in text
    assert 'recon_node_scans_total{outcome="error"} 1.0' in text
    assert "recon_node_readouts_total 32.0" in text
    assert "recon_node_images_total 2.0" in text
    assert "recon_node_scans_running 0.0" in text


def test_refusals_are_counted_by_kind(serve, scan_file: Path) -> None:
    metrics = Metrics()
    send_scan(scan_file, port=serve(allowed_peers=("192.0.2.1",), on_event=metrics.on_event).port)
    assert 'recon_node_connections_refused_total{reason="not allowed"} 1.0' in metrics.text().decode()


def test_an_event_hook_that_fails_ends_no_scan(serve, scan_file: Path) -> None:
    def hook(name, event) -> None:
        raise RuntimeError("broken observer")

    assert send_scan(scan_file, port=serve(on_event=hook).port).ok


def test_a_health_port_in_use_is_a_configuration_error() -> None:
    with (
        HealthServer(health_pages(Metrics(), ready=lambda: None), port=0) as health,
        pytest.raises(ConfigError, match="cannot listen"),
    ):
        HealthServer(health_pages(Metrics(), ready=lambda: None), port=health.port)


def label_of_the_node() -> dict:
    return openrecon_label(parameters_from_settings(Settings()), version="0.1.0")


def test_the_label_offers_the_settings_with_their_choices_and_defaults() -> None:
    parameters = {p["id"]: p for p in label_of_the_node()["parameters"]}
    assert [*parameters] == ["config", "method", "fallback", "policy", "mode", "frames"]
    assert parameters["method"]["type"] == "choice"
    assert parameters["method"]["default"] == Settings().recon.method
    assert [v["id"] for v in parameters["fallback"]["values"]] == [*CLASSICAL]
    assert "zero-filled" in [v["id"] for v in parameters["method"]["values"]]
    assert [v["id"] for v in parameters["policy"]["values"]] == ["warn", "fallback", "both", "hold"]


def test_the_dockerfile_line_decodes_to_the_label() -> None:
    tree = label_of_the_node()
    name, value = re.fullmatch(r'LABEL "([^"]+)"="([A-Za-z0-9+/=]+)"', dockerfile_line(tree)).groups()
    assert name == LABEL_NAME
    assert json.loads(base64.b64decode(value)) == tree


def test_what_the_label_offers_is_what_the_server_reads_back() -> None:
    tree = label_of_the_node()
    sent = json.dumps({"parameters": {p["id"]: p["default"] for p in tree["parameters"]}})
    config = parameters_from_json(sent)
    assert config.name == "default"
    assert set(config.properties) == {"method", "fallback", "policy", "mode", "frames"}
    assert set(config.properties) <= set(PROPERTIES)


def number(**changes) -> Parameter:
    return Parameter(**{"name": "n", "kind": "int", "label": "N", "default": 3, **changes})


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ([number(name=f"n{i}") for i in range(14)], "15 parameters, the scanner takes 14"),
        ([number(), number()], "n more than once"),
        ([number(name="a b")], "parameter id is 'a b'"),
        ([number(default="3")], "which is no int"),
        ([number(default=True)], "which is no int"),
        ([number(minimum=4, maximum=9)], "outside 4 to 9"),
        ([number(kind="choice", default="x", choices=("y",))], "expected one of"),
        ([number(kind="date")], "type 'date'"),
    ],
)
def test_a_label_that_no_scanner_takes_is_refused(parameters: list[Parameter], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        openrecon_label(parameters, version="0.1.0")


def test_a_label_without_a_part_or_with_an_odd_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="lacks parameters"):
        validate_label({"general": {}, "reconstruction": {}})
    with pytest.raises(ConfigError, match=r"expected x\.y\.z"):
        openrecon_label([], version="latest")


@checked(section="some")
class SomeSettings(Checked):
    """Of every kind."""

    flag: bool = setting(True, openrecon=True)
    count: int = setting(2, ge=1, le=9, openrecon=True, peer="how_many")
    factor: float = setting(0.5, openrecon=True)
    kind: Literal["a", "b"] = setting("b", openrecon=True)
    many: tuple[int, ...] = ()


def test_every_kind_of_setting_gets_its_control() -> None:
    known = {s.key: s for s in settings_of(SomeSettings, "some")}
    controls = [parameter(known[key], known[key].default) for key in ("flag", "count", "factor", "kind")]
    assert [control.kind for control in controls] == ["boolean", "int", "double", "choice"]
    assert (controls[1].name, controls[1].minimum, controls[1].maximum) == ("how_many", 1, 9)
    with pytest.raises(ConfigError, match="no control"):
        parameter(known["many"], ())


def test_whoever_does_not_finish_a_request_makes_room_for_a_probe(helpers) -> None:
    pages = health_pages(Metrics(), ready=lambda: None)
    with HealthServer(pages, port=0) as health, contextlib.ExitStack() as stack:
        for _ in range(70):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", health.port), 20))
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        assert helpers.eventually(lambda: _answers(health.port))


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        return b"200" in sock.recv(100)
    return False


def test_no_page_is_made_for_those_who_are_gone() -> None:
    made: list[str] = []

    def page(query: str) -> Page:
        made.append(query)
        return HTTPStatus.OK, "text/plain", b"made\n"

    health = HealthServer({"/metrics": page, "/healthz": page}, port=0)
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", health.port), 20) as sock:
            sock.sendall(b"GET /metrics?gone HTTP/1.1\r\n\r\n")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with health:
        assert _answers(health.port)
    assert made == [""]

"""Every value is checked when settings are made, and told in one line."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pickle
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from recon_node.cli import run
from recon_node.core.errors import ConfigError
from recon_node.settings import CoilSettings, PrepSettings, Settings, every_setting, load_settings, sections
from recon_node.settings.weak import weaknesses

PACS = {"pacs": {"address": "dicom://PACS@host:104"}}

WRONG: list[tuple[str, str, Any, str]] = [
    ("prep", "phases", 0, "a whole number, 1 to 512"),
    ("prep", "phases", True, "a whole number, 1 to 512"),
    ("prep", "phases", 2.5, "a whole number"),
    ("prep", "virtual_coils", 0, "1 to 4096 or none"),
    ("prep", "rr_tolerance", -0.1, "0 to 10"),
    ("prep", "group", "", "a name"),
    ("coils", "kernel", 0, "2 to 64"),
    ("coils", "threshold", 1.0, "less than 1 or auto"),
    ("coils", "threshold", "large", "less than 1 or auto"),
    ("coils", "crop", 1, "less than 1"),
    ("coils", "maps", 0, "1 to 16"),
    ("recon", "method", "magic", "cardiomm, kt"),
    ("recon", "method", "zero-filed", "did you mean zero-filled?"),
    ("recon", "fallback", "cardiomm", "kt, l1-wavelet"),
    ("recon", "threads", 0, "1 to 1024"),
    ("recon", "chunk", 0, "1 to 65536"),
    ("recon", "check_trust", 1, "true or false"),
    ("recon", "weights", "", "a name"),
    ("recon", "device", "gpu", "one of auto, cpu, cuda"),
    ("prompts", "vendor", "Siemens, GE", "without a comma"),
    ("dicom", "images", ["magnitude", "colour"], "some of magnitude"),
    ("dicom", "images", [], "not empty"),
    ("dicom", "venc_cm_s", 0, "more than 0"),
    ("dicom", "uid_prefix", "abc", "ending in a dot"),
    ("dicom", "uid_prefix", "1.2.3", "ending in a dot"),
    ("dicom", "uid_prefix", "1.02.", "ending in a dot"),
    ("dicom", "uid_prefix", "1." + "2" * 60 + ".", "at most 54"),
    ("dicom", "series_number_offset", -99999999999, "-2000000000 to 2000000000"),
    ("dicom", "station", "a station of more than sixteen", "at most 16"),
    ("dicom", "institution", "back\\slash", "without a backslash"),
    ("delivery", "priority", 10, "0 to 9"),
    ("delivery", "parallel", 0, "1 to 64"),
    ("delivery", "grace_s", -1, "0 to"),
    ("delivery", "retention_h", float("nan"), "0 to"),
    ("delivery", "calling_ae_title", "seventeen letters", "1 to 16"),
    ("delivery", "calling_ae_title", "a\\b", "without a backslash"),
    ("delivery", "to", ["elsewhere"], "a name in delivery.destinations (none)"),
    ("delivery", "to", [1], "a list, each a name"),
    ("server", "max_connections", 0, "1 to 1000"),
    ("server", "timeout_s", -1, "more than 0"),
    ("server", "timeout_s", 0, "more than 0"),
    ("server", "drain_s", float("inf"), "0 to 86400"),
    ("server", "port", 65536, "0 to 65535"),
    ("server", "port", -1, "0 to 65535"),
    ("server", "host", "", "a name"),
    ("server", "out", "", "a path"),
    ("server", "out", "a\x00b", "printable"),
    ("server", "slices_ahead", 0, "1 to 1000"),
    ("server", "allowed_peers", ["somewhere"], "192.168.2.0/24"),
    ("server", "health_port", 9002, "another port than server.port"),
    ("server", "mode", "later", "one of direct"),
    ("log", "level", "loud", "one of debug"),
]


@pytest.mark.parametrize(("section", "key", "value", "allowed"), WRONG)
def test_a_value_that_is_not_allowed_is_told_with_its_key(
    section: str, key: str, value: Any, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings().replace(section, **{key: value})
    said = str(caught.value)
    assert said.startswith(f"[{section}] {key}: found ")
    assert ", allowed " in said
    assert allowed in said
    assert len(said) <= 300
    assert caught.value.exit_code == 2


def test_a_section_made_by_itself_is_checked_as_well() -> None:
    with pytest.raises(ConfigError, match=r"^\[prep\] phases: found 0, allowed"):
        PrepSettings(phases=0)
    with pytest.raises(ConfigError, match=r"^\[coils\] kernel: found 0, allowed"):
        dataclasses.replace(CoilSettings(), kernel=0)


def test_bounds_themselves_are_allowed(tmp_path: Path) -> None:
    delivering = Settings().replace("delivery", to=(str(tmp_path),))
    for setting in every_setting():
        for bound in ("ge", "le"):
            if bound in setting.bounds:
                made = delivering.replace(setting.section, **{setting.key: setting.bounds[bound]})
                assert getattr(getattr(made, setting.section), setting.key) == setting.bounds[bound]


def test_every_number_has_bounds_on_both_sides() -> None:
    for setting in every_setting():
        if setting.kind in (int, float):
            sides = set(setting.bounds)
            assert sides & {"ge", "gt"}, setting.key
            assert sides & {"le", "lt"}, setting.key


@pytest.mark.parametrize(
    ("delivery", "told"),
    [
        ({"to": ["pacz"]}, r"\[delivery\] to: found 'pacz', .*did you mean pacs\?"),
        ({"routes": {"r": {"to": "pacz"}}}, r"\[delivery.routes.r\] to: found 'pacz'"),
        ({"routes": {"r": {}}}, r"\[delivery.routes\] r: .*expected `to` or `priority`"),
        ({"routes": {"r": {"to": "pacs", "Modalty": "MR"}}}, "unknown key Modalty"),
        ({"listen": "http://host"}, r"\[delivery\] listen: .*expected dicom://AET@host:port"),
        ({"routes": {"r": 3}}, r"\[delivery.routes\] r: found 3, allowed a table"),
        ({"destinations": {"x": {"adress": "dicom://A@h:1"}}}, r"\[delivery.destinations\] x: .*no address"),
        ({"destinations": {"x": {"address": "dicom://A@h:1", "colour": 1}}}, "unknown option colour"),
        ({"destinations": {"x": {"address": "ftp://h"}}}, "unknown scheme 'ftp'"),
        ({"destinations": {"x": {"address": "dicom://A@h:99999"}}}, "out of range"),
        ({"destinations": {"x": {"address": "dicom://@h:1"}}}, "AE title"),
        ({"destinations": {"x": {"address": "dicoms://A@h:1", "ca": "/nowhere/ca.pem"}}}, "/nowhere/ca.pem"),
        ({"destinations": {"x": {"address": "dicom://A@h:1", "connect": -1}}}, "connect"),
    ],
)
def test_deliveries_that_cannot_work_are_refused_before_anything_listens(
    delivery: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Settings().replace("delivery", **{"destinations": PACS, **delivery})


def test_deliveries_that_can_work_are_allowed(tmp_path: Path) -> None:
    made = Settings().replace(
        "delivery",
        destinations=PACS,
        to=["pacs", str(tmp_path), "dicom://A@h:1"],
        routes={"r": {"to": "pacs", "Modality": "MR"}},
        listen="dicom://NODE@127.0.0.1:11113",
    )
    assert made.delivery.to == ("pacs", str(tmp_path), "dicom://A@h:1")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"methodd": "kt"}, "did you mean method?"),
        ({"phases": 0}, "phases: found 0"),
        ({"destination": "pacz"}, "found 'pacz'"),
        ({"mode": "later"}, "mode: found 'later'"),
    ],
)
def test_named_configurations_are_checked_as_settings(table: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings().replace("server", configurations={"fast": table})
    assert str(caught.value).startswith("[server.configurations] fast: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("tls_client_ca",), "tls_certificate"),
        (("tls_certificate",), "tls_key"),
        (("tls_key",), "tls_certificate"),
        (("tls_client_ca", "tls_key"), "tls_certificate"),
    ],
)
def test_half_of_a_protection_is_refused(given: tuple[str, ...], missing: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.write_text("")
    with pytest.raises(ConfigError, match=rf"\[server\] {missing}: found nothing, allowed a file"):
        Settings().replace("server", **dict.fromkeys(given, str(file)))
    with pytest.raises(ConfigError, match="a file that is there"):
        Settings().replace("server", tls_certificate=str(tmp_path / "none.pem"), tls_key=str(file))


def test_a_node_that_strangers_reach_is_told_of() -> None:
    assert not weaknesses(Settings())
    wide = Settings().replace("server", host="0.0.0.0")
    assert any("whoever reaches 0.0.0.0 may send" in weak for weak in weaknesses(wide))
    kept = wide.replace("server", allowed_peers="10.0.0.0/8")
    assert not any("may send" in weak for weak in weaknesses(kept))
    assert any("unencrypted" in weak for weak in weaknesses(kept))
    listening = Settings().replace("delivery", listen="dicom://NODE@0.0.0.0:11113")
    assert any("[delivery] listen" in weak for weak in weaknesses(listening))


@pytest.mark.parametrize(("days", "told"), [(3, "it expires in"), (30, None)])
def test_a_certificate_that_soon_expires_is_told_of(days: int, told: str | None, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    asked = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=node -days {days}"
    files = ["-keyout", "node.key", "-out", "node.pem"]
    subprocess.run([openssl, *asked.split(), *files], check=True, capture_output=True, cwd=tmp_path)
    certificate, key = (str(tmp_path / name) for name in ("node.pem", "node.key"))
    found = weaknesses(Settings().replace("server", tls_certificate=certificate, tls_key=key))
    assert [f"[server] tls_certificate: {told}" in weak for weak in found] == ([True] if told else [])
    swapped = Settings().replace("server", tls_certificate=key, tls_key=certificate)
    with pytest.raises(ConfigError, match="cannot be used"):
        weaknesses(swapped)


@pytest.mark.parametrize("method", ["recon_node.core.errors:Nothing", "no_such_module_here:Class"])
def test_doctor_ends_with_2_where_a_method_is_not_there(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'[recon]\nmethod = "{method}"\n[delivery]\nspool = "spool"\n')
    assert run(["doctor", "--config", str(file)]) == 2
    assert "FAIL weights" in capsys.readouterr().out


def test_doctor_tells_of_folders_and_ports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = tmp_path / "node.toml"
        port = taken.getsockname()[1]
        file.write_text(
            f'[recon]\nmethod = "sense"\n[delivery]\nspool = "spool"\nreserve_mb = 0\n'
            f'[server]\nport = {port}\nhealth_port = 0\nout = "file/images"\nrecord = "kept"\n'
        )
        assert run(["doctor", "--config", str(file)]) == 1
        said = capsys.readouterr().out
        assert "FAIL images: " in said
        assert f"ok   received scans: {tmp_path}/kept, " in said
        assert f"ok   port: 127.0.0.1:{port} is taken" in said
        assert "ok   health port: 127.0.0.1:0 is free" in said
    file.write_text('[recon]\nmethod = "sense"\n[delivery]\nspool = "spool"\n[server]\nhost = "192.0.2.1"\n')
    assert run(["doctor", "--config", str(file)]) == 2
    assert "FAIL port: cannot listen on 192.0.2.1:9002" in capsys.readouterr().out


def test_settings_survive_a_copy_to_another_process() -> None:
    made = Settings().replace("delivery", destinations=PACS).replace("prep", phases=30)
    assert pickle.loads(pickle.dumps(made)) == made


absurd = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from(
            [10**400, -(10**400), 2**63, float("nan"), float("inf"), "\ud800", "a\x00", "~nobody/x"]
        ),
        st.floats(),
        st.text(max_size=8),
        st.binary(max_size=3),
        st.dates(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from([(setting.section, setting.key) for setting in every_setting()]),
    absurd | st.datetimes() | st.just(dt.time()),
)
@tries(deadline=None, max_examples=600)
def test_no_absurd_value_ends_in_a_traceback(place: tuple[str, str], value: Any) -> None:
    section, key = place
    said = ""
    try:
        Settings().replace(section, **{key: value})
    except ConfigError as error:
        said = str(error)
    assert said == "" or section in said
    assert len(said) <= 300
    assert said == "" or said.isprintable()


@given(st.dictionaries(st.sampled_from([*sections(), "servr", "self", "", "a\nb"]), absurd, max_size=3))
@tries(deadline=None, max_examples=300)
def test_no_absurd_tree_ends_in_a_traceback(tree: dict[str, Any]) -> None:
    said = ""
    try:
        load_settings(None, {}, tree)
    except ConfigError as error:
        said = str(error)
    assert len(said) <= 300
    assert said == "" or said.isprintable()


@pytest.mark.parametrize("command", [["serve"], ["doctor"], ["spool", "list"], ["settings", "show"]])
@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("server", "max_connections", "0"), ("dicom", "uid_prefix", '"abc"'), ("delivery", "to", '["pacz"]')],
)
def test_every_command_ends_with_2_on_settings_that_cannot_be(
    command: list[str],
    section: str,
    key: str,
    value: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f"[{section}]\n{key} = {value}\n")
    assert run([*command, "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert f"[{section}] {key}: found " in said
    assert said.count("\n") == 1


def test_doctor_tells_the_dates_of_certificates_and_sends_a_heart_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], component: Callable[[str], str]
) -> None:
    openssl = component("openssl")
    for name, days in (("new", 400), ("old", -1)):
        asked = f"req -new -newkey rsa:2048 -nodes -subj /CN=node -keyout {name}.key -out {name}.csr"
        subprocess.run([openssl, *asked.split()], check=True, capture_output=True, cwd=tmp_path)
        asked = f"x509 -req -in {name}.csr -signkey {name}.key -days {days} -out {name}.pem"
        subprocess.run([openssl, *asked.split()], check=True, capture_output=True, cwd=tmp_path)
    file = tmp_path / "node.toml"
    file.write_text(
        '[recon]\nmethod = "sense"\n[server]\nport = 0\nstatus_port = 0\nout = "images"\n'
        'tls_certificate = "new.pem"\ntls_key = "new.key"\n[delivery]\nspool = "spool"\nreserve_mb = 0\n'
        "[delivery.destinations.pacs]\n"
        'address = "dicoms://PACS@127.0.0.1:1"\nca = "new.pem"\ncertificate = "old.pem"\nkey = "old.key"\n'
    )
    assert run(["doctor", "--config", str(file), "--self-test"]) == 2
    said = capsys.readouterr().out
    assert re.search(r"^ok   certificate of server: valid for (399|400) days$", said, re.MULTILINE)
    assert "FAIL certificate of destination pacs: certificate has expired" in said
    assert re.search(r"^ok   authority for destination pacs: valid", said, re.MULTILINE)
    assert re.search(r"^ok   status port: ", said, re.MULTILINE)
    assert re.search(r"^ok   extras: cluster, ", said, re.MULTILINE)
    assert "FAIL destination pacs: " in said
    assert "ok   self-test: 8 images of a drawn heart by sense (pass) came back and were delivered" in said
    assert not (tmp_path / "images").exists()


def test_a_self_test_that_does_not_come_through_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[recon]\nmethod = "sense"\n[delivery]\nspool = "spool"\n')
    monkeypatch.setattr("recon_node.pipeline.row.calibrate", lambda *args, **kwargs: 1 / 0)
    assert run(["doctor", "--config", str(file), "--self-test"]) == 1
    assert "FAIL self-test: a drawn heart was not reconstructed: " in capsys.readouterr().out

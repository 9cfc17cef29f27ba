"""Where settings come from, and that a setting is one field."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from recon_node.cli import run
from recon_node.cli.options import setting_option
from recon_node.cli.reference import commands, settings_page
from recon_node.core.errors import ConfigError
from recon_node.online.openrecon import parameter, parameters_from_settings
from recon_node.online.properties import PROPERTIES
from recon_node.schema import checked, make, setting, settings_of
from recon_node.settings import (
    PrepSettings,
    Settings,
    every_setting,
    load_settings,
    peer_settings,
    read_settings,
    sections,
    with_properties,
)
from recon_node.settings import load as loading
from recon_node.settings.show import effective, json_schema, shown


def _file(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "node.toml").write_text(text, encoding="utf-8")
    return folder / "node.toml"


def test_flags_beat_the_environment_the_file_and_defaults(tmp_path: Path) -> None:
    file = _file(tmp_path, "[prep]\nphases = 10\nrr_tolerance = 0.1\n[coils]\nkernel = 5\n")
    environment = {"RECON_NODE__PREP__PHASES": "11", "RECON_NODE__PREP__FILL": "share"}
    loaded = read_settings(file, environment, {"prep": {"phases": 12}})
    prep = loaded.settings.prep
    assert (prep.phases, prep.fill, prep.rr_tolerance, prep.gating) == (12, "share", 0.1, "prospective")
    origins = {(row["section"], row["key"]): row["origin"] for row in effective(loaded)}
    assert origins["prep", "phases"] == "flag"
    assert origins["prep", "fill"] == "environment"
    assert origins["coils", "kernel"] == str(file)
    assert origins["prep", "gating"] == "default"


def test_the_message_names_what_the_value_came_from(tmp_path: Path) -> None:
    file = _file(tmp_path, "[prep]\nphases = 0\n")
    with pytest.raises(ConfigError, match=rf"^{file} \[prep\] phases: found 0, allowed"):
        load_settings(file, {})
    with pytest.raises(ConfigError, match=r"^environment \[prep\] phases: found 'no', allowed"):
        load_settings(None, {"RECON_NODE__PREP__PHASES": "no"})
    with pytest.raises(ConfigError, match=r"^environment \[prep\] fases: .*did you mean phases\?"):
        load_settings(None, {"RECON_NODE__PREP__FASES": "1"})


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.2.3.4, 10.0.0.0/8", ("1.2.3.4", "10.0.0.0/8")), ("::1", ("::1",)), ("", ())],
)
def test_lists_in_the_environment_are_comma_separated(text: str, value: tuple[str, ...]) -> None:
    settings = load_settings(None, {"RECON_NODE__SERVER__ALLOWED_PEERS": text})
    assert settings.server.allowed_peers == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("0", False), ("False", False)])
def test_truth_in_the_environment_is_a_word_or_a_digit(text: str, value: bool) -> None:
    assert load_settings(None, {"RECON_NODE__COILS__SOFT": text}).coils.soft is value


def test_relative_files_and_folders_start_at_the_settings_file(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    file = _file(
        folder,
        """
        [server]
        out = "images"
        record = "/var/record"
        deferred = "~/deferred"
        tls_certificate = "node.pem"
        tls_key = "node.key"
        [recon]
        weights = "own.safetensors"
        encoder_folder = "clip"
        [delivery]
        spool = "spool"
        listen = "dicom://NODE@127.0.0.1:11112"
        [delivery.destinations.archive]
        address = "archive"
        [delivery.destinations.pacs]
        address = "https://pacs/studies"
        ca = "ca.pem"
        [server.configurations.later]
        weights = "../other/later.safetensors"
        [server.configurations.named]
        weights = "default"
        """,
    )
    for name in ("node.pem", "node.key", "ca.pem"):
        (folder / name).write_text("")
    settings = load_settings(file, {})
    server, named = settings.server, settings.delivery.destinations
    assert (server.out, server.record) == (str(folder / "images"), "/var/record")
    assert server.deferred == str(Path.home() / "deferred")
    assert (server.tls_certificate, server.tls_key) == (str(folder / "node.pem"), str(folder / "node.key"))
    assert settings.recon.weights == str(folder / "own.safetensors")
    assert settings.recon.encoder_folder == str(folder / "clip")
    assert settings.delivery.spool == str(folder / "spool")
    assert named["archive"]["address"] == str(folder / "archive")
    assert (named["pacs"]["address"], named["pacs"]["ca"]) == ("https://pacs/studies", str(folder / "ca.pem"))
    assert server.configurations["later"]["weights"] == str(folder / "../other/later.safetensors")
    assert server.configurations["named"]["weights"] == "default"
    assert load_settings(None, {}).server.out == "images"


def test_files_in_the_query_of_an_address_start_at_the_settings_file_too(tmp_path: Path) -> None:
    file = _file(tmp_path, '[delivery]\nlisten = "dicoms://N@127.0.0.1:11112?certificate=a.pem&key=/b.key"\n')
    with pytest.raises(ConfigError, match=rf"{tmp_path}/a.pem, /b.key"):
        load_settings(file, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "os:system"),
        ("fallback", "some.module:Class"),
        ("weights", "x.safetensors"),
        ("weights", "../x"),
        ("destination", "/tmp"),
        ("destination", "dicom://A@h:1"),
    ],
)
def test_a_peer_names_no_path_no_module_and_no_address(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match="a name, never a path or module"):
        with_properties(Settings(), {name: value})


def test_a_site_may_give_a_configuration_what_peers_may_not() -> None:
    settings = Settings().replace("server", configurations={"own": {"weights": "/x/own.safetensors"}})
    assert settings.server.configurations["own"]["weights"] == "/x/own.safetensors"


@checked(section="prep")
class Grown(PrepSettings):
    """A section with one more setting, as a later version would have it."""

    echoes: int = setting(
        2, ge=1, le=8, unit="echoes", peer="echoes", openrecon=True, was=("echos", "n_echo")
    )
    """Echoes that are combined."""
    style: Literal["sum", "fit"] = setting("sum", peer="style")
    """How they are."""


def test_a_new_setting_is_one_field() -> None:
    known = {s.key: s for s in settings_of(Grown, "prep")}
    echoes, style = known["echoes"], known["style"]
    assert (echoes.default, echoes.unit, echoes.peer, echoes.bounds) == (
        2,
        "echoes",
        "echoes",
        {"ge": 1, "le": 8},
    )
    assert (echoes.doc, echoes.allowed) == ("Echoes that are combined.", "a whole number, 1 to 8")
    assert known["phases"].doc == "Cardiac phases of retrospective gating."
    control = parameter(echoes, echoes.default)
    assert (control.name, control.kind, control.minimum, control.maximum) == ("echoes", "int", 1, 8)

    @click.command()
    @setting_option(echoes)
    @setting_option(style)
    def command(**given: Any) -> None:
        click.echo(json.dumps(given))

    told = CliRunner().invoke(command, ["--help"]).output
    assert "Echoes that are combined [2]." in told
    assert "[sum|fit]" in told
    given = json.loads(CliRunner().invoke(command, ["--echoes", "3"]).output)
    assert given == {"prep__echoes": 3, "prep__style": None}
    assert CliRunner().invoke(command, ["--echoes", "9"]).exit_code == 2
    with pytest.raises(ConfigError, match=r"\[prep\] echoes: found 0, allowed a whole number, 1 to 8"):
        make(Grown, {"echoes": 0})


def test_a_former_key_goes_on_working_and_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "sections", lambda: {"prep": Grown})
    notes: list[str] = []
    assert loading.renamed({"prep": {"n_echo": 3}}, "node.toml", notes) == {"prep": {"echoes": 3}}
    assert notes == ["node.toml [prep] n_echo is called echoes now"]
    with pytest.raises(ConfigError, match="only echoes, which is its name now"):
        loading.renamed({"prep": {"echos": 3, "echoes": 4}}, "node.toml", [])


def test_every_field_is_in_the_page_the_schema_and_what_is_shown() -> None:
    page, schema = settings_page(), json_schema()
    rows = {(row["section"], row["key"]): row for row in effective(read_settings(None, {}))}
    for one in every_setting():
        part = page.partition(f"\n## [{one.section}]\n")[2].partition("\n## ")[0]
        assert f"| `{one.key}` |" in part
        described = schema["$defs"][sections()[one.section].__name__]["properties"][one.key]
        assert described["description"] == " ".join(one.doc.split())
        assert described.get("peer") == one.peer
        assert one.doc, f"{one.section}.{one.key} says nothing"
        assert (one.section, one.key) in rows


def test_what_peers_may_set_is_in_the_chains_table_and_on_the_card() -> None:
    assert set(peer_settings()) <= set(PROPERTIES)
    assert len(peer_settings()) == sum(one.peer is not None for one in every_setting())
    card = {control.name for control in parameters_from_settings(Settings())}
    assert card == {one.peer for one in every_setting() if one.openrecon}
    for name, one in peer_settings().items():
        value = one.choices[-1] if one.choices else one.default
        if isinstance(value, str | int) and name != "destination":
            with_properties(Settings(), {name: str(value)})


def test_options_of_commands_take_their_words_from_the_fields() -> None:
    known = {f"{one.section}__{one.key}": one for one in every_setting()}
    found = set()
    for _, command in commands():
        for option in command.params:
            if option.name in known:
                found.add(option.name)
                one = known[option.name]
                if one.choices:
                    assert isinstance(option.type, click.Choice)
                    assert tuple(option.type.choices) == one.choices
                assert isinstance(option, click.Option)
                assert one.default in (None, ()) or f"[{one.default}]" in (option.help or "")
    assert {"recon__method", "prep__phases", "server__port", "delivery__priority"} <= found


def test_the_schema_refuses_what_the_settings_refuse() -> None:
    schema = json_schema()
    server = schema["$defs"]["ServerSettings"]["properties"]
    assert (server["max_connections"]["minimum"], server["max_connections"]["maximum"]) == (1, 1000)
    assert schema["additionalProperties"] is False
    assert str(Path.home()) not in json.dumps(schema)


def test_secrets_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(
        tmp_path,
        '[dicom]\npatient_name = "Somebody^Known"\n[delivery.destinations.pacs]\n'
        'address = "https://user:word@pacs/"\ntoken = "a-token"\n',
    )
    assert run(["settings", "show", "--config", str(file)]) == 0
    assert run(["settings", "show", "--config", str(file), "--json"]) == 0
    said = capsys.readouterr().out
    for secret in ("Somebody", "a-token", ":word@"):
        assert secret not in said
    assert "https://user:(hidden)@pacs/" in said
    name = next(one for one in every_setting() if one.key == "patient_name")
    assert shown(name, None) is None


def test_a_file_is_checked_and_the_schema_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = _file(tmp_path, '[server]\nhost = "0.0.0.0"\n')
    assert run(["settings", "check", str(good)]) == 0
    told = capsys.readouterr()
    assert "1 settings, all of them allowed" in told.out
    assert "whoever reaches 0.0.0.0" in told.err
    assert run(["settings", "check", str(good), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weak"]
    bad = _file(tmp_path / "bad", "[server]\nmax_connections = 0\n")
    assert run(["settings", "check", str(bad)]) == 2
    assert "[server] max_connections: found 0" in capsys.readouterr().err
    assert run(["settings", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_settings_are_read_without_torch_pydicom_or_a_network() -> None:
    code = (
        "import sys; from recon_node.settings import load_settings; load_settings(None, {}); "
        "print([m for m in ('torch', 'pydicom', 'pynetdicom', 'scipy', 'h5py') if m in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


def test_no_set_of_words_is_written_down_twice() -> None:
    seen: dict[frozenset[str], set[str]] = {}
    package = Path(loading.__file__).parents[1]
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal"):
                continue
            words = {part.value for part in ast.walk(node.slice) if isinstance(part, ast.Constant)}
            if len(words) > 2:
                seen.setdefault(frozenset(map(str, words)), set()).add(f"{file.name}:{node.lineno}")
    assert len(seen) > 10
    assert {words: places for words, places in seen.items() if len(places) > 1} == {}

from __future__ import annotations

from pathlib import Path

import pytest

from recon_node.core.errors import ConfigError
from recon_node.settings import load_settings


def test_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[server]\nport = 1\n[recon]\nmethod = "kt"\n')
    settings = load_settings(file, {"RECON_NODE__SERVER__PORT": "2"})
    assert settings.server.port == 2
    assert settings.recon.method == "kt"
    assert settings.server.host == "127.0.0.1"


def test_a_number_may_have_a_word_in_its_place_and_an_option_may_be_absent() -> None:
    settings = load_settings(
        None, {"RECON_NODE__COILS__THRESHOLD": "auto", "RECON_NODE__PREP__VIRTUAL_COILS": "8"}
    )
    assert settings.coils.threshold == "auto"
    assert settings.prep.virtual_coils == 8
    settings = settings.replace("coils", threshold="0.05").replace("prep", virtual_coils="none")
    assert settings.coils.threshold == 0.05
    assert settings.prep.virtual_coils is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[nothing]\n", "an unknown section"),
        ("[server]\ncolour = 1\n", "an unknown key"),
        ('[server]\nport = "high"\n', "allowed a whole number, 0 to 65535"),
        ('[recon]\nmethod = "magic"\n', "allowed cardiomm, kt"),
        ("[recon]\ncheck_trust = 3\n", "allowed true or false"),
        ('[coils]\nthreshold = "large"\n', "allowed a number, .* or auto"),
        ('[recon]\nfallback = "cardiomm"\n', "allowed kt"),
        ("recon = 3\n", "allowed a table"),
        ("= 3\n", "not TOML"),
        ("[server]\nport = " + "9" * 5000, "not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, word: str, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=word):
        load_settings(file, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "node.toml", {})


def test_an_odd_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="SECTION__KEY"):
        load_settings(None, {"RECON_NODE__PORT": "1"})

"""Each claim of the threat model is a test that exists, and each limit has the default it names."""

from __future__ import annotations

import re
from pathlib import Path

import recon_node
from recon_node.cli.reference import limits_table
from recon_node.settings import Settings

_ROOT = Path(recon_node.__file__).parents[1]
_PAGE = (_ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", _PAGE))
    there = {
        name
        for path in (_ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 20
    assert named - there == set()


def test_the_table_of_limits_is_made_from_the_settings() -> None:
    how = "make it with: python -m recon_node.cli.reference docs"
    assert limits_table(_PAGE) == _PAGE, how
    rows = re.findall(r"^\| [^|]+ \| (\d+)[^|]* \| `(\w+)\.(\w+)` \|$", _PAGE, re.MULTILINE)
    assert len(rows) >= 12
    for value, section, key in rows:
        assert float(getattr(getattr(Settings(), section), key)) == float(value), key


def test_every_setting_that_a_refusal_names_stands_in_the_table() -> None:
    words = {
        name
        for path in (_ROOT / "recon_node" / "mrd").rglob("*.py")
        for name in re.findall(r"\((server\.\w+|prep\.\w+)\)", path.read_text(encoding="utf-8"))
    }
    assert words >= {"server.max_channels", "server.scan_limit_gb"}
    assert {name for name in words if f"`{name}`" not in _PAGE} == set()

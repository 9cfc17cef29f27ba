"""Each claim of the threat model is a test that exists, and each limit has the default it names."""

from __future__ import annotations

import re
from pathlib import Path

import recon_node
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


def test_every_limit_of_the_page_has_the_default_it_names() -> None:
    settings = Settings()
    rows = re.findall(r"^\| [^|]+ \| (\d+)[^|]* \| `(server|prep)\.(\w+)` \|$", _PAGE, re.MULTILINE)
    assert len(rows) >= 7
    for value, section, key in rows:
        assert float(getattr(getattr(settings, section), key)) == float(value), key

"""The site made of the pages: built without a warning, and no link in it leads nowhere."""

from __future__ import annotations

import os
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from pages import ROOT, on_path


class Links(HTMLParser):
    """Where a page leads, and the places in it that others may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif name in ("id", "name") and value:
                self.places.add(value)


@pytest.fixture(scope="module")
def site() -> dict[Path, Links]:
    environment = os.environ | {"PATH": on_path()}
    told = subprocess.run(
        [ROOT / "scripts" / "site"], check=False, capture_output=True, text=True, env=environment
    )
    assert told.returncode == 0, told.stdout + told.stderr
    pages = (ROOT / "build" / "site").rglob("*.html")
    return {page: Links(page.read_text(encoding="utf-8")) for page in pages if page.name != "404.html"}


def test_no_link_of_the_site_leads_nowhere(site: dict[Path, Links]) -> None:
    broken = []
    checked = 0
    for page, links in site.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            file = file / "index.html" if file.is_dir() and (file / "index.html").exists() else file
            checked += 1
            if not file.exists():
                broken.append(f"{page.name}: {target}")
            elif parts.fragment and file in site and unquote(parts.fragment) not in site[file].places:
                broken.append(f"{page.name}: no such place: {target}")
    assert broken == []
    assert checked > 300


def test_every_page_is_in_the_sites_contents(site: dict[Path, Links]) -> None:
    named = str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in named
    assert len(site) >= 20

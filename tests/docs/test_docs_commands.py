"""Every command block of the pages, and the README's table of tasks, run top to bottom as pasted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import NOT_RUN, PAGES, ROOT, Session, blocks, commands, on_path, why_not

from recon_node.cli import run
from recon_node.delivery import StorageScp
from recon_node.files.open import open_source
from recon_node.mrd.messages import HeaderXml, close_bytes, message_bytes
from recon_node.simulate import simulate_scan

RUN = [page for page in PAGES if any(why_not(command.text) is None for command in commands(page))]


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What somebody who reads the pages has: files of his own by the names that they have there."""
    folder = tmp_path_factory.mktemp("material")
    size = {"coils": 4, "slices": 2, "phases": 6, "matrix": 64, "seed": 3}
    simulate_scan(folder / "heart.h5", acceleration=4, pattern="random", **size)
    simulate_scan(folder / "full.h5", acceleration=1, pattern="uniform", **size)
    with open_source(folder / "heart.h5") as source:
        parts = [bytes(message_bytes(HeaderXml(xml=source.headers[0].xml)))]
        parts += [bytes(message_bytes(block)) for block in source]
    (folder / "heart.mrd").write_bytes(b"".join([*parts, close_bytes()]))
    shutil.copy(folder / "heart.h5", folder / "scan.h5")
    shutil.copy(folder / "heart.mrd", folder / "scan.mrd")
    (folder / "inbox").mkdir()
    shutil.copy(folder / "heart.h5", folder / "inbox" / "heart.h5")
    (folder / "node.toml").write_text("[delivery]\nreserve_mb = 100\n")
    replay = ["replay", str(folder / "heart.h5"), "--out", str(folder / "images")]
    assert run([*replay, "--method", "sense"]) == 0
    for name in ("vendor", "images-new", "images-old"):
        shutil.copytree(folder / "images", folder / name)
    return folder


@pytest.fixture
def desk(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to follow a page in, with a PACS at the port that the pages name."""
    folder = tmp_path / "desk"
    shutil.copytree(material, folder)
    for name in ("recon_node", "gadget_configs", "systemd", "docker", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RECON_NODE__DELIVERY__SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("RECON_NODE__SERVER__DEFERRED", str(tmp_path / "deferred"))
    monkeypatch.setenv("PATH", on_path())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with StorageScp(tmp_path / "pacs", ae_title="ORTHANC", port=4242):
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_works_as_pasted(page: Path, desk: Path) -> None:
    session = Session()
    try:
        for command in commands(page):
            if why_not(command.text) is None:
                session.run(command)
    finally:
        session.stop()


def test_what_is_not_run_stands_in_a_page_and_little_else_is_left_out() -> None:
    every = [command.text for page in PAGES for command in commands(page)]
    assert [start for start in NOT_RUN if not any(text.startswith(start) for text in every)] == []
    assert sum(why_not(text) is None for text in every) >= 45


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_with_a_command_is_overlooked(page: Path) -> None:
    """Some lines of a block may be no commands (output, say): then none of them would be run."""
    known = {command.text for command in commands(page)}
    for _, block in blocks(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.startswith(("recon-node ", "python -m ", "pip ")):
                assert any(line.split("#")[0].rstrip(" \\")[:40] in text for text in known), line

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recon_node.core.errors import ConfigError, PacsMisconfigured, PacsRejected, PacsUnreachable
from recon_node.delivery import DeliveryWorker, Spool, open_destination

FOREIGN = """
import shutil
import sys
from pathlib import Path
from recon_node.core.errors import PacsMisconfigured, PacsRejected

class Shelf:
    def __init__(self, address, level="0"):
        self.name, self.level = address, level
        self.folder = Path(address.removeprefix("shelf://"))

    def send(self, files):
        if self.level == "full":
            raise OSError("no room on the shelf")
        if self.level == "away":
            sys.exit(3)
        if self.level == "locked":
            raise PacsMisconfigured("the shelf is locked")
        if self.level == "picky":
            raise PacsRejected("not that book", status=0xA900)
        self.folder.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, self.folder)

class Silent:
    def __init__(self, address):
        pass
"""


@pytest.fixture
def shelf(install: Callable[..., None], tmp_path: Path) -> str:
    install("shelves", FOREIGN, recon_node__destinations="shelf = shelves:Shelf\nsilent = shelves:Silent")
    return f"shelf://{tmp_path}/shelf"


def test_a_scheme_of_an_installed_package_delivers_from_the_spool(
    shelf: str, spool: Spool, tmp_path: Path, instances: Callable[..., list[Path]]
) -> None:
    files = instances(2)
    spool.put(files, [shelf])
    assert DeliveryWorker(spool, {shelf: open_destination(shelf)}).send_once(shelf) == 2
    assert len([*(tmp_path / "shelf").iterdir()]) == 2


def test_it_takes_its_options_from_the_settings(shelf: str, instances: Callable[..., list[Path]]) -> None:
    named = {"library": {"address": shelf, "level": "picky"}}
    opened = open_destination("library", named=named)
    assert opened.name == "library"
    (outcome,) = opened.deliver(instances(1))
    assert isinstance(outcome.error, PacsRejected)


@pytest.mark.parametrize(
    ("level", "error"), [("full", PacsUnreachable), ("away", PacsUnreachable), ("locked", PacsMisconfigured)]
)
def test_what_concerns_the_whole_destination_is_raised(
    shelf: str, instances: Callable[..., list[Path]], level: str, error: type[Exception]
) -> None:
    opened = open_destination("library", named={"library": {"address": shelf, "level": level}})
    with pytest.raises(error):
        [*opened.deliver(instances(1))]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("silent://x", "has no method send"),
        ("shelf://x?", "unknown scheme|cannot be opened"),
        ("books://x", "unknown scheme 'books', expected dicom://.*shelf://"),
    ],
)
def test_what_makes_no_destination_is_one_clear_error(shelf: str, address: str, word: str) -> None:
    named = {
        "one": {"address": address, "colour": "red"} if address.startswith("shelf") else {"address": address}
    }
    with pytest.raises(ConfigError, match=word) as caught:
        open_destination("one", named=named)
    assert len(str(caught.value)) <= 300


def test_a_destination_without_echo_says_so(shelf: str) -> None:
    with pytest.raises(ConfigError, match="no echo"):
        open_destination(shelf).echo()

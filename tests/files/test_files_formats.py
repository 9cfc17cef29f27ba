from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from written_files import acquisition, header_xml, write_h5

from recon_node.core.errors import ConfigError, SourceError
from recon_node.files.open import FORMATS, known_suffixes, open_source
from recon_node.offline.inputs import find_inputs

FOREIGN = """
from recon_node.files.hdf5 import Hdf5Source

class Boxed:
    suffixes = (".boxed",)

    @staticmethod
    def recognises(path, start):
        return start.startswith(b"BOXED")

    @staticmethod
    def open(path, group):
        return Hdf5Source(path.with_suffix(".h5"), group=group)

class Failing(Boxed):
    @staticmethod
    def open(path, group):
        raise KeyError("no lid")

class Exiting(Boxed):
    class open(Hdf5Source):
        def __init__(self, path, group):
            super().__init__(path.with_suffix(".h5"), group=group)
        def __iter__(self):
            raise SystemExit(3)

class Odd(Boxed):
    class open(Hdf5Source):
        def __init__(self, path, group):
            super().__init__(path.with_suffix(".h5"), group=group)
        def __iter__(self):
            yield 7

class Numbered(Boxed):
    suffixes = 5

nothing = object()
"""


@pytest.fixture
def boxed(tmp_path: Path) -> Path:
    """A file of a format that nobody here reads, and what is in it."""
    lines = [acquisition(np.random.default_rng(0), line=line) for line in range(4)]
    write_h5(tmp_path / "scan.h5", lines, xml=header_xml())
    box = tmp_path / "scan.boxed"
    box.write_bytes(b"BOXED" + bytes(100))
    return box


def test_a_format_of_an_installed_package_is_read_like_any_other(
    boxed: Path, install: Callable[..., None]
) -> None:
    with pytest.raises(SourceError, match="neither HDF5 nor an MRD stream"):
        open_source(boxed)
    install("boxes", FOREIGN, recon_node__sources="boxed = boxes:Boxed")
    with open_source(boxed) as source:
        assert sum(len(block) for block in source) == 4
    assert ".boxed" in known_suffixes()
    assert boxed in find_inputs([str(boxed.parent)])[0]


def test_files_of_the_built_in_formats_are_still_read_by_them(
    boxed: Path, install: Callable[..., None]
) -> None:
    install("boxes", FOREIGN, recon_node__sources="boxed = boxes:Boxed")
    with open_source(boxed.with_suffix(".h5")) as source:
        assert type(source).__name__ == "Hdf5Source"


@pytest.mark.parametrize(
    ("target", "error", "word"),
    [
        ("boxes:Missing", ConfigError, "cannot be imported"),
        ("absent_package:Boxed", ConfigError, "cannot be imported"),
        ("boxes:nothing", ConfigError, "expected recognises"),
        ("boxes:Numbered", ConfigError, "expected recognises"),
        ("boxes:Exiting", SourceError, "file format boxed failed: SystemExit: 3"),
        ("boxes:Odd", SourceError, "file format boxed gave a int"),
        ("boxes:Failing", SourceError, "file format boxed failed: KeyError"),
    ],
)
def test_a_broken_format_is_one_clear_error(
    boxed: Path, install: Callable[..., None], target: str, error: type[Exception], word: str
) -> None:
    install("boxes", FOREIGN, recon_node__sources=f"boxed = {target}")
    with pytest.raises(error, match=word) as caught, open_source(boxed) as source:
        list(source)
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)


def test_each_built_in_format_says_by_which_endings_a_folder_is_searched() -> None:
    assert all(one.suffixes and all(s == s.lower() for s in one.suffixes) for one in FORMATS)

"""Files are there whole or not at all, and one module of the package sees to it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

import recon_node
from recon_node.core import disk, durable
from recon_node.core.errors import DiskFull

_ROOT = Path(recon_node.__file__).parent
_SYNCS = re.compile(r"\bfsync\(|\bdisk_usage\(|\bmkstemp\(|\bNamedTemporaryFile\(")


def test_no_other_module_syncs_files_makes_temporary_ones_or_asks_for_disk_room() -> None:
    found = {
        path.relative_to(_ROOT).as_posix()
        for path in _ROOT.rglob("*.py")
        if _SYNCS.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"core/durable.py", "core/disk.py"}


def test_what_was_written_is_there_and_nothing_beside_it(tmp_path: Path) -> None:
    durable.write_bytes(tmp_path / "a", b"one")
    durable.write_text(tmp_path / "a", "zwei ö")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "zwei ö"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt()])
def test_an_error_while_writing_leaves_the_older_file(tmp_path: Path, failure: BaseException) -> None:
    def write() -> None:
        with durable.writing(tmp_path / "a") as file:
            file.write(b"half of the new")
            raise failure

    def write_by_name() -> None:
        with durable.writing_path(tmp_path / "a") as part:
            part.write_bytes(b"half of the new")
            raise failure

    durable.write_bytes(tmp_path / "a", b"old")
    for writer in (write, write_by_name):
        with pytest.raises(type(failure)):
            writer()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    durable.write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        durable.write_bytes(tmp_path / "a", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "study" / "series"

    def fail() -> None:
        with durable.writing_folder(target) as hidden:
            durable.write_new(hidden / "1", [b"one"])
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert [*tmp_path.rglob("*")] == [tmp_path / "study"]
    with durable.writing_folder(target) as hidden:
        durable.write_new(hidden / "1", [b"o", b"ne"])
        assert not target.exists()
    with durable.writing_folder(target) as hidden:
        durable.write_new(hidden / "2", [b"two"])
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"1": b"one", "2": b"two"}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_nobody_but_owner_and_group_may_read_and_the_umask_is_kept(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        durable.write_bytes(tmp_path / "file", b"x")
        with durable.writing_folder(tmp_path / "folder") as hidden:
            durable.write_new(hidden / "inside", [b"x"])
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"file": 0o640 & ~mask, "folder": 0o750 & ~mask, "inside": 0o640 & ~mask}


def test_long_names_are_no_longer_while_they_are_written(tmp_path: Path) -> None:
    name = "n" * 250
    durable.write_bytes(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def test_a_sweep_takes_what_a_killed_writer_left_and_nothing_that_is_being_written(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        writer = durable.writing(tmp_path / "killed")
        writer.__enter__()
        folder = durable.writing_folder(tmp_path / "killed folder")
        folder.__enter__()
        os._exit(9)
    os.waitpid(child, 0)
    assert len([*tmp_path.iterdir()]) == 2
    assert durable.sweep(tmp_path, ".*") == 0, "what is that young may be about to be locked"
    with durable.writing(tmp_path / "living") as file:
        file.write(b"x")
        assert durable.sweep(tmp_path, ".*", quiet_s=-60.0) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["living"]


def test_a_folder_that_is_not_there_yet_is_asked_for_by_the_nearest_above(tmp_path: Path) -> None:
    assert disk.free_bytes(tmp_path / "a" / "b") > 0
    disk.check_room(tmp_path / "a" / "b", "images", 0)
    with pytest.raises(DiskFull, match="reserve_mb"):
        disk.check_room(tmp_path, "images", 1 << 62)


def test_a_file_in_the_way_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(DiskFull, match="cannot be written to"):
        disk.check_room(tmp_path / "a" / "b", "images", 0)

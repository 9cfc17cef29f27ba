"""Files whole or not at all: write beside the target, fsync, rename, fsync the folder.

The one place of this package that does so. What is being written is hidden (``.NAME.TOKEN.part``), locked
by its writer, and gone after an error; after a kill `sweep` knows by the lock what is left over. Files and
folders are made for owner and group at most (less where the umask says so): they may hold patient data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

FILE_MODE = 0o640
PRIVATE_MODE = 0o600
FOLDER_MODE = 0o750
PART = ".part"
HIDDEN_FOLDER = ".writing-"
_KEPT_OF_NAME = 40
"""Characters of the target's name in that of its part, so that no name gets too long for the disk."""
_QUIET_S = 10.0
MAX_WRITE = 1 << 24
"""Bytes handed to the kernel at once where it took less than it was given."""


def sync_folder(folder: Path) -> None:
    """Make renames and links inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(file: BinaryIO) -> None:
    """Return when all that was written to `file` is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def write_all(handle: int, data: bytes, *, sync: bool = True) -> None:
    """Write `data` whole to a file descriptor; with `sync` it is on the disk when this returns."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view[:MAX_WRITE]) :]
    if sync:
        os.fsync(handle)


def write_new(
    path: Path | str, pieces: Sequence[bytes | memoryview], *, mode: int = FILE_MODE, sync: bool = True
) -> None:
    """Make a file of `pieces`; for folders that only get their name later (`writing_folder`).

    Raises
    ------
    FileExistsError
        There is one already.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        left = sum(map(len, pieces)) - os.writev(handle, pieces)
        if left:  # the kernel may take less, for example when the disk is nearly full
            write_all(handle, b"".join(pieces)[-left:], sync=False)
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def rename(part: Path, target: Path) -> None:
    """Give a file that is on the disk its name, durably."""
    part.replace(target)
    sync_folder(target.parent)


@contextlib.contextmanager
def writing(target: Path, *, mode: int = FILE_MODE, sync: bool = True) -> Iterator[BinaryIO]:
    """An open file that becomes `target` at the end of the block, or nothing at all after an error.

    Parameters
    ----------
    target : Path
        In a folder that exists.
    mode : int
        Permissions, less the umask.
    sync : bool
        Whether it has to survive a power cut (a kill it always does).
    """
    part = _part_of(target)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            _lock(handle)
            yield file
            file.flush()
            if sync:
                sync_file(file)
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(target.parent)


def write_bytes(target: Path, data: bytes, *, mode: int = FILE_MODE, sync: bool = True) -> None:
    """Put `data` at `target`, whole or not at all; see `writing`."""
    with writing(target, mode=mode, sync=sync) as file:
        file.write(data)


def write_text(target: Path, text: str, *, mode: int = FILE_MODE, sync: bool = True) -> None:
    """Put `text` (UTF-8) at `target`, whole or not at all; see `writing`."""
    write_bytes(target, text.encode(), mode=mode, sync=sync)


@contextlib.contextmanager
def writing_path(target: Path) -> Iterator[Path]:
    """A name to write to, for libraries that open files by themselves; otherwise as `writing`.

    Folders above `target` are made; what a kill left of an earlier try at `target` is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, f".{_kept(target)}.*{PART}")
    part = _part_of(target)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        rename(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(target: Path, *, sync: bool = True) -> Iterator[Path]:
    """A hidden folder beside `target` that becomes `target` at the end of the block, or nothing at all.

    Where `target` is there already, its files are replaced one by one and others stay.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    hidden = target.with_name(f"{HIDDEN_FOLDER}{secrets.token_hex(8)}")
    hidden.mkdir(mode=FOLDER_MODE)
    handle = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle)
        yield hidden
        if sync:
            os.fsync(handle)
        _move_folder(hidden, target)
        if sync:
            sync_folder(target)
            sync_folder(target.parent)
    finally:
        os.close(handle)
        shutil.rmtree(hidden, ignore_errors=True)


def sweep(folder: Path, pattern: str = f".*{PART}", *, quiet_s: float = _QUIET_S) -> int:
    """Remove what killed writers left in `folder`: parts and hidden folders that nobody has locked.

    Parameters
    ----------
    folder : Path
    pattern : str
        Of their names.
    quiet_s : float
        What changed in the last so many seconds stays: it may be about to be locked.

    Returns
    -------
    int
        How many.
    """
    return sum(_sweep_one(path, time.time() - quiet_s) for path in folder.glob(pattern))


def _sweep_one(path: Path, before: float) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False  # it got its name, or it is not ours
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_mtime > before:
            return False
        _remove(path)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _lock(handle: int) -> None:
    """Tell `sweep` that this is in use; some network shares have no locks, and are never swept."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)


def _kept(target: Path) -> str:
    return target.name[:_KEPT_OF_NAME]


def _part_of(target: Path) -> Path:
    return target.with_name(f".{_kept(target)}.{secrets.token_hex(4)}{PART}")


def _move_folder(hidden: Path, target: Path) -> None:
    try:
        hidden.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        for path in sorted(hidden.iterdir()):
            path.replace(target / path.name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

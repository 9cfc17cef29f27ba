"""Where the spool keeps its files: the state of every entry can be read with ``ls``.

    <spool>/incoming/                           being written; worthless after a crash
    <spool>/<state>/<destination>/<entry>.dcm   state: waiting, stored, delivered or dead
    <spool>/dead/<destination>/<entry>.txt      why it was given up
    <spool>/owners/<random>                     locked by each living process that holds leases
    <spool>/ballast                             room for the index to work in when the disk is full
    <spool>/index.sqlite3                       order, leases, attempts; rebuilt from the files if lost

An entry's name holds its priority, SOP Instance UID and the start of its SHA-256
(``5_1.2.3_0123456789abcdef.dcm``), so that a file cut off by a power failure is recognised even
without the index. One instance for several destinations is one file with several names (hard links).
A change of state is one rename, made durable before anything relies on it: the folders are the
truth, the index follows.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from recon_node.core.choices import InstanceState
from recon_node.core.durable import PRIVATE_MODE, sweep, sync_folder, write_all, write_text
from recon_node.core.errors import ConfigError

State = InstanceState
STATES: tuple[State, ...] = ("dead", "waiting", "stored", "delivered")
"""From least to most advanced: where a file is found twice, the later one counts."""
BALLAST_BYTES = 1 << 20
_FOLDER_MODE = 0o700
_NAME = re.compile(r"(\d)_(.{1,200})_([0-9a-f]{16})\.dcm")
_PLAIN = "".join(map(chr, range(32, 127))).replace("/", "").replace("%", "")
"""What may stand for itself in a file's name; the rest of a UID that is none is percent-encoded."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One instance for one destination."""

    destination: str
    uid: str


@dataclass(frozen=True, slots=True)
class Filed:
    """What a file's place and name tell."""

    key: Key
    state: State
    priority: int
    digest: str
    """First 16 hexadecimal digits of the SHA-256 of the file."""

    @property
    def filename(self) -> str:
        """Name inside the folder of its state and destination."""
        return f"{self.priority}_{quote(self.key.uid, safe=_PLAIN)}_{self.digest}.dcm"


def digest_of(data: bytes) -> str:
    """First 16 hexadecimal digits of SHA-256: tells a whole file from a torn one."""
    return hashlib.sha256(data).hexdigest()[:16]


def _check_own(*paths: Path) -> None:
    """What lies in a spool is its own: it is swept, moved and deleted."""
    for path in paths:
        if path.is_symlink():
            raise OSError(errno.ELOOP, f"{path.name} in it is a link, expected a folder or file of its own")


class Layout:
    """The folders of one spool.

    Raises
    ------
    OSError
        They cannot be made, or a link is among them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.owners = root / "owners"
        self._ballast = root / "ballast"
        for folder in (root, self.incoming, self.owners, *(root / s for s in STATES)):
            folder.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
        for folder in (self.incoming, self.owners, *(root / s for s in STATES)):
            _check_own(folder, *folder.iterdir())

    def folder(self, state: State, destination: str) -> Path:
        """Folder of a state and destination (not made here)."""
        return self.root / state / folder_name(destination)

    def path(self, filed: Filed) -> Path:
        """Where an entry's file lies."""
        return self.folder(filed.state, filed.key.destination) / filed.filename

    def receive(self, data: bytes) -> tuple[int, Path]:
        """Write `data` below incoming, durably; returns the open, locked descriptor and the path.

        The lock tells `sweep` of other processes that the file is in use; a crash drops it.
        """
        path = self.incoming / f"{secrets.token_hex(8)}.part"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            write_all(handle, data)
        except BaseException:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise
        return handle, path

    def file(self, part: Path, filed: Filed) -> None:
        """Give a received file its name as `filed`; not yet durable (`sync`)."""
        target = self.path(filed)
        self._ensure(target.parent)
        try:
            os.link(part, target)
        except FileExistsError:
            return

    def move(self, filed: Filed, state: State) -> Filed:
        """Change the state of one entry; not yet durable (`sync`)."""
        moved = Filed(filed.key, state, filed.priority, filed.digest)
        target = self.path(moved)
        self._ensure(target.parent)
        self.path(filed).rename(target)
        return moved

    def sync(self, places: Iterable[tuple[State, str]]) -> None:
        """Make links and renames in these folders durable."""
        for state, destination in dict.fromkeys(places):
            folder = self.folder(state, destination)
            if folder.is_dir():
                sync_folder(folder)

    def is_whole(self, filed: Filed) -> bool | None:
        """Whether the file is as it was put; None where it is not there."""
        try:
            return digest_of(self.path(filed).read_bytes()) == filed.digest
        except FileNotFoundError:
            return None
        except OSError:
            return False

    def check_writable(self) -> None:
        """Make and remove a file, as `receive` does.

        Raises
        ------
        OSError
            The spool cannot be written to.
        """
        probe = self.incoming / f"{secrets.token_hex(8)}.part"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE))
        probe.unlink()

    def hold_ballast(self) -> bool:
        """Occupy some disk space, to be given up when the index needs room on a full disk."""
        if self._ballast.exists():
            return True
        try:
            handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, PRIVATE_MODE)
            try:
                os.posix_fallocate(handle, 0, BALLAST_BYTES)
            finally:
                os.close(handle)
        except OSError:
            self._ballast.unlink(missing_ok=True)
            return False
        return True

    def drop_ballast(self) -> bool:
        """Give that space up; False where it was gone already."""
        try:
            self._ballast.unlink()
        except FileNotFoundError:
            return False
        return True

    def write_reason(self, filed: Filed, reason: str) -> None:
        """Keep the reason of a dead entry beside it."""
        target = self.path(filed).with_suffix(".txt")
        self._ensure(target.parent)
        write_text(target, reason + "\n", mode=PRIVATE_MODE)

    def read_reason(self, filed: Filed) -> str | None:
        """The reason kept beside a dead entry."""
        try:
            return self.path(filed).with_suffix(".txt").read_text(errors="replace").strip()
        except OSError:
            return None

    def drop_reason(self, filed: Filed) -> None:
        """Forget the reason of an entry that is dead no more."""
        self.path(filed).with_suffix(".txt").unlink(missing_ok=True)

    def scan(self) -> Iterator[Filed]:
        """Every entry there is, least advanced state first."""
        for state in STATES:
            for folder in sorted(p for p in (self.root / state).iterdir() if p.is_dir()):
                destination = unquote(folder.name)
                for entry in os.scandir(folder):
                    if match := _NAME.fullmatch(entry.name):
                        priority, uid, digest = match.groups()
                        filed = Filed(Key(destination, unquote(uid)), state, int(priority), digest)
                        if filed.filename == entry.name:
                            yield filed

    def sweep(self) -> int:
        """Remove what crashed writers left below incoming; returns how many."""
        return sweep(self.incoming, "*.part", quiet_s=0.0)

    @staticmethod
    def _ensure(folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(exist_ok=True, mode=_FOLDER_MODE)
            sync_folder(folder.parent)


def folder_name(destination: str) -> str:
    """A destination's name as one path component, reversibly.

    Raises
    ------
    ConfigError
        Empty, or longer than a file name may be.
    """
    name = quote(destination, safe=" @:+=,-_")
    name = name.replace(".", "%2E") if name.startswith(".") else name
    if not name or len(name) > 200:
        raise ConfigError(f"destination name {destination!r}: expected 1 to 200 characters")
    return name


class Owner:
    """A living holder of leases: a locked file, which the kernel unlocks however the process ends."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.owners / secrets.token_hex(8)
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    @property
    def name(self) -> str:
        """What the index knows it by."""
        return self._path.name

    def close(self) -> None:
        """Give up all leases."""
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


def living_owners(layout: Layout) -> set[str]:
    """Owners whose process lives; the files of dead ones are removed."""
    living = set()
    for path in layout.owners.iterdir():
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            living.add(path.name)
        finally:
            os.close(handle)
    return living

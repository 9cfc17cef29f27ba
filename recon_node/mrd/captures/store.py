"""Received scans on disk: what scanners handed over, kept before it is answered, in bounded space.

See `capture` for the files. Recording, deferred reconstruction, second tries and retrieval use this store.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from recon_node.core.disk import check_room, free_bytes
from recon_node.core.errors import ConfigError
from recon_node.mrd.captures.arriving import Arriving
from recon_node.mrd.captures.capture import DESCRIPTION, FORMER, STATES, Capture, State
from recon_node.mrd.captures.entitled import Identity, matches

_LOOK_AGAIN_S = 10.0
"""After which space that was counted is counted again: other processes may use the folder too."""
_SETTLED: tuple[State, ...] = ("done", "failed")


class Captures:
    """The received scans in `folder`.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    max_bytes : int
        Space for all of them; the oldest that are done, then those that failed, make room for new ones.
    most : int, optional
        How many are kept.
    max_age_s : float, optional
        How long they are kept once they are done or failed.
    reserve_bytes : int
        Space on the disk that they leave to others.
    keep_raw : bool
        Whether raw data stay when a scan is done.

    Raises
    ------
    ConfigError
        The folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        most: int | None = None,
        max_age_s: float | None = None,
        reserve_bytes: int = 0,
        keep_raw: bool = False,
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.keep_raw = keep_raw
        self.wake: Callable[[], None] = lambda: None
        """Told that a scan waits."""
        self._most = most
        self._max_age_s = max_age_s
        self._reserve = reserve_bytes
        self._lock = threading.Lock()
        self._owned: int | None = None
        self._done: dict[str, tuple[int, int]] = {}
        """Number and size of those that will not change any more, by name."""
        self._left, self._looked = 0, -_LOOK_AGAIN_S
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"received scans cannot be kept in {folder}: {error.strerror}") from error

    def check_room(self) -> None:
        """See that another scan can be kept.

        Raises
        ------
        DiskFull
            The folder cannot be written to, or its disk is nearly full.
        """
        check_room(self.folder, "received scans", self._reserve)

    # ---------------------------------------------------------------- one process works on what waits

    def own(self) -> bool:
        """Become the only process that works on these scans; False if another one does."""
        if self._owned is None:
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                return False
            self._owned = handle
        return True

    def idle(self) -> bool:
        """Whether no process works on these scans."""
        if self._owned is not None or not self.own():
            return False
        self.release()
        return True

    def release(self) -> None:
        """Let another process work on them."""
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None

    # ---------------------------------------------------------------- what is there

    def all(self) -> list[Capture]:
        """All of them, oldest first."""
        return self._sorted(self._folders())

    def open(self) -> list[Capture]:
        """Those that are not done, oldest first: found quickly among many that are."""
        found = self._sorted(folder for folder in self._folders() if folder.name not in self._done)
        for capture in found:
            if capture.state == "done":
                self._settled(capture)
        return [capture for capture in found if capture.state != "done"]

    def damaged(self) -> list[Path]:
        """Folders whose description cannot be read."""
        return [folder for folder in self._folders() if Capture.read(folder) is None]

    def counts(self) -> dict[str, int]:
        """Number of scans by state."""
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        names = {folder.name for folder in self._folders()}
        for capture in self.open():
            counts[capture.state] += 1
        counts["done"] = len(names & self._done.keys())
        return counts

    def fetchable(
        self, asking: Identity, *, scan_id: str | None = None, ticket: str | None = None
    ) -> list[Capture]:
        """Scans that whoever asks is entitled to fetch.

        Parameters
        ----------
        asking : Identity
            Of the header that asks, and of its sender.
        scan_id : str, optional
            Only this scan.
        ticket : str, optional
            What was handed over with the quick images.
        """
        return [
            capture
            for capture in self.all()
            if capture.kind in ("direct", "deferred")
            and capture.identity.same_patient(asking)
            and scan_id in (None, capture.scan_id)
            and (matches(ticket, capture.ticket) or (ticket is None and asking.proves(capture.identity)))
        ]

    def _folders(self) -> Iterator[Path]:
        names = (DESCRIPTION, FORMER)
        with os.scandir(self.folder) as entries:
            folders = [Path(entry.path) for entry in entries if entry.is_dir()]
        return (f for f in folders if f.name in self._done or any((f / name).exists() for name in names))

    @staticmethod
    def _sorted(folders: Iterator[Path]) -> list[Capture]:
        found = [capture for capture in map(Capture.read, folders) if capture is not None]
        return sorted(found, key=lambda capture: capture.number)

    # ---------------------------------------------------------------- changes

    def start(self, scan_id: str, *, needed: bool = False, peer: str = "") -> Arriving:
        """Begin to keep a scan; its folder's name comes from the node, never from the network.

        Parameters
        ----------
        scan_id : str
        needed : bool
            See `Arriving`.
        peer : str
            Address of its sender.
        """
        capture = Capture(
            folder=self.folder / scan_id,
            identity=Identity.of((), peer),
            number=time.time_ns(),
            kind="unknown",
            whole=False,
            keep=self.keep_raw,
        )
        return Arriving(self, capture, needed=needed)

    def make_room(self, size: int) -> bool:
        """Delete what is settled, oldest first, until `size` more bytes fit; False if they cannot."""
        with self._lock:
            now = time.monotonic()
            if self._left < size or now - self._looked > _LOOK_AGAIN_S:
                self._left, self._looked = self._freed(size), now
            fits = self._left >= size
            self._left -= size if fits else 0
            return fits

    def _freed(self, size: int) -> int:
        """Bytes that fit, after making room for `size` of them."""
        open_ = self.open()
        names = {folder.name for folder in self._folders()}
        self._done = {name: known for name, known in self._done.items() if name in names}
        used = sum(length for _, length in self._done.values()) + sum(map(_size, open_))
        left = min(self.max_bytes - used, free_bytes(self.folder) - self._reserve)
        surplus = 0 if self._most is None else len(names) - self._most
        failed = sorted((c.number, _size(c), c.scan_id) for c in open_ if c.state == "failed")
        for _, length, name in [*sorted((n, s, name) for name, (n, s) in self._done.items()), *failed]:
            if left >= size and surplus <= 0:
                break
            self._remove(name)
            left += length
            surplus -= 1
        return left

    def purge(
        self,
        *,
        states: Collection[str] = ("done",),
        older_than_s: float = 0.0,
        down_to_bytes: int | None = None,
    ) -> list[Capture]:
        """Delete scans and say which: oldest first, never one that arrives or waits.

        Parameters
        ----------
        states : collection of str
            Of ``done`` and ``failed``.
        older_than_s : float
            Since they came.
        down_to_bytes : int, optional
            Only until all that is left takes no more.
        """
        before = time.time() - older_than_s
        scans = self.all()
        used = sum(map(_size, scans))
        gone = []
        for capture in scans:
            if down_to_bytes is not None and used <= down_to_bytes:
                break
            if capture.state in states and capture.state in _SETTLED and capture.received <= before:
                used -= _size(capture)
                self._remove(capture.scan_id)
                gone.append(capture)
        return gone

    def expire(self) -> int:
        """Delete what is older than may be, and more than may be; how many."""
        gone = 0
        if self._max_age_s is not None:
            gone = len(self.purge(states=_SETTLED, older_than_s=self._max_age_s))
        with self._lock:
            self._freed(0)
        return gone

    def _settled(self, capture: Capture) -> None:
        self._done[capture.scan_id] = (capture.number, _size(capture))

    def _remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        self._done.pop(name, None)


def _size(capture: Capture) -> int:
    try:
        return capture.size
    except OSError:
        return 0  # it goes at this moment

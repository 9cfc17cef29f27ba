"""Keep what arrives: every stream byte for byte in an MRD file that replay reads back, in bounded space."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from recon_node.core.disk import free_bytes
from recon_node.core.durable import sync_file
from recon_node.core.errors import ConfigError

log = logging.getLogger(__name__)

SUFFIX = ".mrd"
PART_SUFFIX = ".mrd.part"
_ROOM_AT_A_TIME = 4 << 20


class RecordingFolder:
    """A folder of recorded streams that never holds more than `max_bytes`.

    The oldest recordings make room for new ones. A stream without an end (too large alone, or cut off) is
    marked by its suffix ``.mrd.part``, as is one whose connection is still open; only the latter never makes
    room. The files hold patient data: they are readable for their owner only.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    max_bytes : int
        Space for all recordings together.
    reserve_bytes : int
        Space on the disk that they leave to others.

    Raises
    ------
    ConfigError
        The folder cannot be made.
    """

    def __init__(self, folder: Path, *, max_bytes: int, reserve_bytes: int = 0) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._reserve = reserve_bytes
        self._open: set[Path] = set()
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"recordings cannot be kept in {folder}: {error.strerror}") from error

    def start(self, scan_id: str) -> Recording:
        """A recording for one scan; its name comes from the node, never from the network."""
        return Recording(self, scan_id)

    def make_room(self, size: int) -> bool:
        """Delete the oldest that are not open until `size` more bytes fit; False if they cannot."""
        with self._lock:
            files = sorted(
                (f.stat().st_mtime_ns, f, f.stat().st_size)
                for f in self.folder.glob(f"*{SUFFIX}*")
                if f not in self._open and f.is_file()
            )
            used = sum(length for _, _, length in files) + sum(
                f.stat().st_size for f in self._open if f.exists()
            )
            free = free_bytes(self.folder) - self._reserve
            left = min(self.max_bytes - used, free) - size
            for _, file, length in files:
                if left >= 0:
                    break
                file.unlink(missing_ok=True)
                left += length
            return left >= 0

    def begin(self, part: Path) -> BinaryIO:
        """Make a file for a stream."""
        with self._lock:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._open.add(part)
            return os.fdopen(handle, "wb")

    def end(self, part: Path, whole: Path | None) -> None:
        """A stream has ended: it gets its final name, or stays a part, unless it is empty."""
        with self._lock:
            self._open.discard(part)
            if whole is not None:
                part.rename(whole)
            elif not part.stat().st_size:
                part.unlink()


class Recording:
    """One stream being kept. Trouble with the disk ends the recording, never the scan."""

    def __init__(self, folder: RecordingFolder, scan_id: str) -> None:
        self._folder = folder
        self._part = folder.folder / f"{scan_id}{PART_SUFFIX}"
        self.path = folder.folder / f"{scan_id}{SUFFIX}"
        self.complete = False
        self._room = 0
        self._synced = True
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self._folder.begin(self._part)
        except OSError as error:
            self._give_up(str(error))
        return self

    def write(self, raw: bytes | memoryview) -> None:
        """Keep the bytes of whole messages."""
        if self._file is None:
            return
        try:
            if not self._has_room(len(raw)):
                self._give_up(f"the limit of {self._folder.max_bytes} bytes, or of the disk, is reached")
                return
            self._file.write(raw)
            self._synced = False
            self._file.flush()
        except OSError as error:
            self._give_up(str(error))

    def sync(self) -> None:
        """Return when all that came is on the disk; an answer leaves only then."""
        if self._file is None or self._synced:
            return
        try:
            sync_file(self._file)
        except OSError as error:
            self._give_up(str(error))
        self._synced = True

    def _has_room(self, size: int) -> bool:
        """Take `size` bytes of the room that was granted; the folder is only looked at where that ends."""
        if self._room < size:
            wanted = max(size, min(_ROOM_AT_A_TIME, self._folder.max_bytes // 64))
            self._room = wanted if self._folder.make_room(wanted) else 0
        self._room -= size
        return self._room >= 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(self.path if self.complete else None)

    def _give_up(self, reason: str) -> None:
        log.warning("recording stopped: %s", reason)
        self._end(None)

    def _end(self, whole: Path | None) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
            self._folder.end(self._part, whole)
        except OSError as error:
            log.warning("a recording is not complete: %s", error)
        self._file = None

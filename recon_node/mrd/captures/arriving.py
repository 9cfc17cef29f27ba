"""A scan on its way to the disk: every received byte is there before an answer leaves.

As long as its process lives, its file is locked; whoever finds a part without a lock knows that it was cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from recon_node.core.durable import PART, PRIVATE_MODE, sync_file
from recon_node.core.errors import DataError
from recon_node.core.scan import Readouts, Waveform
from recon_node.mrd.captures.capture import Capture
from recon_node.mrd.messages import Close, HeaderXml, MessageId, message_bytes

if TYPE_CHECKING:
    from recon_node.mrd.captures.store import Captures

log = logging.getLogger(__name__)

_ROOM_AT_A_TIME = 16 << 20
_DESCRIPTION_BYTES = 2000
_IMAGE = MessageId.IMAGE.to_bytes(2, "little")


class Arriving:
    """A scan that is being received. Leaving the block drops it where nothing was decided.

    Parameters
    ----------
    store : Captures
    capture : Capture
        Its folder is made with the first byte.
    needed : bool
        Trouble with the disk is raised. Otherwise it ends the capture, and never the scan.
    """

    def __init__(self, store: Captures, capture: Capture, *, needed: bool = False) -> None:
        self.capture = capture
        self.needed = needed
        self.trouble: str | None = None
        """Why it was given up."""
        self.later = False
        """Whether somebody else has to make its images, see `settle`."""
        self._store = store
        self._file: BinaryIO | None = None
        self._answers: BinaryIO | None = None
        self._room = 0
        self._synced = True
        self._over = False

    @property
    def open(self) -> bool:
        """Whether it still takes what comes, and nothing was decided."""
        return self.trouble is None and not self._over

    def require(self) -> None:
        """From here on the scan depends on it.

        Raises
        ------
        DataError
            It was given up already.
        """
        self.needed = True
        if self.trouble is not None:
            raise DataError(f"the scan cannot be kept: {self.trouble}")

    def following(self, xml: bytes, items: Iterable[Readouts | Waveform]) -> Iterator[Readouts | Waveform]:
        """The same items, each kept before it is handed on, behind the header.

        Raises
        ------
        DataError
            There is no room left, where it is needed.
        """
        self.write(message_bytes(HeaderXml(xml=xml)))
        for item in items:
            self.write(message_bytes(item))
            yield item
        self.write(message_bytes(Close()))
        self.ended()

    def write(self, raw: bytes | memoryview) -> None:
        """Keep the bytes of whole messages.

        Raises
        ------
        DataError
            There is no room left, where it is needed.
        """
        if not self.open:
            return
        try:
            self._take_room(len(raw))
            if self._file is None:
                self._begin()
            assert self._file is not None  # noqa: S101 - for the type checker
            view = memoryview(raw).cast("B")
            while view:
                view = view[self._file.write(view) :]
            self._synced = False
        except (OSError, DataError) as error:
            self._give_up(getattr(error, "strerror", None) or str(error))

    def ended(self) -> None:
        """The end of the scan has come."""
        if self.open and not self.capture.whole:
            self.describe(whole=True)

    def describe(self, **changes: Any) -> None:
        """Note what has become known of it (fields of `Capture`)."""
        self.capture = replace(self.capture, **changes)
        if self._file is None or not self.open:
            return
        try:
            self.capture.describe(sync=False)
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def sync(self) -> None:
        """Return when all that came is on the disk; an answer leaves only then."""
        if self._file is None or self._synced or not self.open:
            return
        try:
            sync_file(self._file)
        except OSError as error:
            self._give_up(error.strerror or str(error))
        self._synced = True

    def answered(self, data: bytes | memoryview) -> None:
        """Keep images that are answered, for whoever fetches them; other messages pass."""
        if self._file is None or not self.open or data[:2] != _IMAGE:
            return
        try:
            if self._answers is None:
                path = self.capture.images.with_name(f"{self.capture.images.name}{PART}")
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE)
                self._answers = os.fdopen(handle, "w+b")
            self._take_room(len(data))
            self._answers.write(data)
        except (OSError, DataError) as error:
            self._give_up(getattr(error, "strerror", None) or str(error))

    def keep(self) -> None:
        """It ends here: from now on it waits for its reconstruction, and survives a power cut.

        Raises
        ------
        DataError
            The disk refuses.
        """
        if not self.open or self._file is None:
            return
        self.sync()
        self.require()
        try:
            self.capture.describe()
            self.capture.wait()
        except OSError as error:
            raise DataError(f"the scan cannot be kept: {error.strerror}") from error
        self._end()
        self._store.wake()

    def settle(self, trouble: str | None, *, handed: bool) -> None:
        """The connection has ended: done, waiting, or failed. Raises nothing.

        Parameters
        ----------
        trouble : str, optional
            What the peer was told.
        handed : bool
            Whether the answers reached the peer.
        """
        if self._over or self._file is None:
            return
        try:
            self._settle(trouble, handed=handed)
        except (OSError, DataError) as error:
            log.warning("a capture is not complete: %s", getattr(error, "strerror", None) or error)
            self._end()

    def _settle(self, trouble: str | None, *, handed: bool) -> None:
        if self.capture.kind == "retrieve":
            self.drop()
        elif self.trouble is not None:
            self.capture.fail(f"not all of it was kept: {self.trouble}")
        elif self.later:
            if handed and self._answers is not None:
                self.capture.hand_over()
            self.keep()
        elif trouble is None or (self._answers is not None and self.capture.kind == "direct"):
            self.sync()
            self.capture.finish(self._kept_answers(), handed=handed)
        else:
            self.capture.fail(trouble)
        self._end()

    def drop(self) -> None:
        """Keep nothing of it."""
        if self._file is not None:
            shutil.rmtree(self.capture.folder, ignore_errors=True)
        self._end()

    def _kept_answers(self) -> Iterator[bytes]:
        if self._answers is None:
            return
        self._answers.flush()
        self._answers.seek(0)
        while piece := self._answers.read(1 << 20):
            yield piece

    def _begin(self) -> None:
        """Folder, description and a locked file; the name comes from the node, never from the network."""
        self._take_room(_DESCRIPTION_BYTES)
        self.capture.folder.mkdir(mode=0o700)
        handle = os.open(self.capture.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE)
        self._file = os.fdopen(handle, "wb", buffering=0)
        with contextlib.suppress(OSError):  # some network shares have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        self.capture.describe(sync=False)

    def _take_room(self, size: int) -> None:
        if self._room < size:
            self._room = self._granted(size)
        self._room -= size

    def _granted(self, size: int) -> int:
        for room in (max(size, min(_ROOM_AT_A_TIME, self._store.max_bytes // 64)), size):
            if self._store.make_room(room):
                return room
        raise DataError(f"the {self._store.max_bytes >> 20} MB of received scans, or the disk, are full")

    def _give_up(self, reason: str) -> None:
        self.trouble = reason
        if self.needed:
            raise DataError(f"the scan cannot be kept: {reason}")
        log.warning("a scan is not captured any more: %s", reason, extra={"scan": self.capture.scan_id})

    def _end(self) -> None:
        self._over = True
        for file in (self._file, self._answers):
            if file is not None:
                file.close()
        with contextlib.suppress(OSError):
            self.capture.images.with_name(f"{self.capture.images.name}{PART}").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._over:
            self.drop()

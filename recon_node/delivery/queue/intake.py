"""How instances get into the spool: checked, on the disk, filed and entered, or not taken at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from recon_node.core.errors import DicomError, SpoolCorrupt
from recon_node.core.names import printable
from recon_node.delivery.instance import check_file
from recon_node.delivery.outcome import SpoolFull
from recon_node.delivery.queue.entry import Entry
from recon_node.delivery.queue.index import Index
from recon_node.delivery.queue.layout import Filed, Key, Layout, digest_of
from recon_node.delivery.queue.ledger import Ledger

_TRIES = 3


class _Part(NamedTuple):
    """An instance received, not yet filed."""

    path: Path
    size: int
    filed: list[Filed]


class Intake:
    """Takes instances into one spool.

    Parameters
    ----------
    layout, ledger, index
        Of the spool.
    check_room : callable
        Raises `SpoolFull` where so many bytes more have no room.
    """

    def __init__(
        self, layout: Layout, ledger: Ledger, index: Index, check_room: Callable[[int], None]
    ) -> None:
        self._layout = layout
        self._ledger = ledger
        self._index = index
        self._check_room = check_room

    def put(self, items: Sequence[Path | bytes], destinations: list[str], priority: int) -> list[Entry]:
        """Take one batch; see `Spool.put`."""
        for attempt in range(_TRIES):
            with contextlib.ExitStack() as stack:
                parts = [self._receive(stack, item, destinations, priority) for item in items]
                try:
                    return self._file(parts)
                except FileNotFoundError as error:
                    # Another process swept incoming between the making and the locking of a file.
                    if attempt == _TRIES - 1:
                        raise SpoolCorrupt(f"files vanish from the spool {self._layout.root}") from error
        raise AssertionError

    def _receive(
        self, stack: contextlib.ExitStack, item: Path | bytes, destinations: list[str], priority: int
    ) -> _Part:
        data, what = _content(item)
        uid = check_file(data, what).uid
        self._check_room(len(data))
        try:
            handle, part = self._layout.receive(data)
        except OSError as error:
            raise unwritable(self._layout.root, error) from error
        stack.callback(part.unlink, missing_ok=True)
        stack.callback(os.close, handle)
        digest = digest_of(data)
        return _Part(part, len(data), [Filed(Key(d, uid), "waiting", priority, digest) for d in destinations])

    def _file(self, parts: list[_Part]) -> list[Entry]:
        made: list[Filed] = []
        replaced: list[Entry] = []
        try:
            with self._index.transaction() as db:
                wanted = [(part, filed) for part in parts for filed in part.filed]
                offered = {(f.key, f.digest): (p, f) for p, f in wanted}
                new = [(p, f) for p, f in offered.values() if self._ledger.is_wanted(db, f)]
                for part, filed in new:
                    self._layout.file(part.path, filed)
                    made.append(filed)
                self._layout.sync((f.state, f.key.destination) for f in made)
                for part, filed in new:
                    replaced += self._ledger.enter(db, filed, part.size)
                entries = [e for _, f in wanted if (e := self._ledger.find(db, f.key)) is not None]
        except BaseException as error:
            for filed in made:
                self._layout.path(filed).unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise unwritable(self._layout.root, error) from error
            raise
        if replaced:
            with self._index.transaction() as db:
                self._ledger.drop_replaced(db, replaced)
        return entries


def unwritable(root: Path, error: OSError) -> SpoolFull:
    """What a system call that failed means for a spool."""
    return SpoolFull(f"cannot write to the spool {root}: {error.strerror or error}")


def _content(item: Path | bytes) -> tuple[bytes, str]:
    """The bytes of a file, and what to call it."""
    if isinstance(item, bytes):
        return item, "the data"
    try:
        return item.read_bytes(), printable(item.name)
    except OSError as error:
        raise DicomError(f"{printable(item.name)} cannot be read: {error.strerror or error}") from error

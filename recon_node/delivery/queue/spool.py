"""A queue on disk that loses nothing: not by kill -9, power cut, full disk or a lost index.

An entry is one instance for one destination. It goes from waiting to stored (the destination
answered success), to delivered (storage commitment, or the grace time, has passed); or to dead, with
the reason, where only a person can help. See `layout` for the folders.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from recon_node.core import disk
from recon_node.core.errors import ConfigError, SpoolCorrupt
from recon_node.delivery.outcome import SpoolFull
from recon_node.delivery.queue.clock import Clock, SystemClock
from recon_node.delivery.queue.entry import Entry
from recon_node.delivery.queue.index import Index
from recon_node.delivery.queue.intake import Intake, unwritable
from recon_node.delivery.queue.layout import (
    STATES,
    Layout,
    Owner,
    State,
    folder_name,
    living_owners,
)
from recon_node.delivery.queue.ledger import Ledger

_BATCH = 32
"""Instances taken in one transaction."""
ROUTINE, URGENT = 5, 9
_TO_RETRY: tuple[State, ...] = ("dead", "waiting")


LOOKS = "looks:"
"""Ticket of stored entries whose destination was asked for them, with how often."""

T = TypeVar("T")


class Age(NamedTuple):
    """How long an entry has been in the spool; both in seconds."""

    queued_s: float
    in_state_s: float


class Spool:
    """The spool in `folder`; may be open in several processes at a time.

    Parameters
    ----------
    folder : Path
        Made if missing; must be on one file system with hard links.
    clock : Clock
        Time (tests put their own here).
    lease_s : float
        A claim not settled or renewed for so long is void. A claim whose process is gone is void at once.
    reserve_bytes : int
        Free disk space to leave to others: `put` refuses rather than go below it.
    free_bytes : callable
        Free bytes on the file system of a path.

    Raises
    ------
    ConfigError
        The folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        lease_s: float = 600.0,
        reserve_bytes: int = 0,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.lease_s = lease_s
        self._reserve = reserve_bytes
        self._free_bytes = free_bytes or disk.free_bytes
        try:
            self._layout = Layout(folder)
        except OSError as error:
            raise ConfigError(f"spool folder {folder}: {error.strerror or error}") from error
        self._owner: Owner | None = None
        self._ledger = Ledger(self._layout, self.clock)
        self._index = Index(folder / "index.sqlite3", self._ledger.reconcile)
        self._intake = Intake(self._layout, self._ledger, self._index, self.check_room)
        self._change(lambda _: self._layout.sweep())
        self._layout.hold_ballast()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._layout.root

    def close(self) -> None:
        """Give up leases and close the index."""
        if self._owner is not None:
            self._owner.close()
            self._owner = None
        self._index.close()

    # ---------------------------------------------------------------- in

    def put(
        self, items: Iterable[Path | bytes], destinations: Sequence[str], *, priority: int = ROUTINE
    ) -> list[Entry]:
        """Take DICOM files (or their bytes); when this returns they survive a power cut.

        An instance that is already there for a destination is not taken twice; a dead letter is taken anew.

        Parameters
        ----------
        items : iterable of Path or bytes
            DICOM files; they are copied.
        destinations : sequence of str
            Names the worker knows.
        priority : int
            0 to 9; higher goes first.

        Raises
        ------
        SpoolFull
            Of the last (at most 32) items none was taken; those before were.
        DicomError
            Not a DICOM file, cut off, or without a UID to be known by.
        DeliveryError
            The same SOP Instance UID with another content is already on its way.
        """
        if not destinations or not 0 <= priority <= 9:
            raise ConfigError(
                f"{len(destinations)} destinations, priority {priority}: expected at least one, and 0 to 9"
            )
        for destination in destinations:
            folder_name(destination)
        entries: list[Entry] = []
        queue = iter(items)
        while batch := list(itertools.islice(queue, _BATCH)):
            entries += self._intake.put(batch, list(dict.fromkeys(destinations)), priority)
        return entries

    def check_room(self, size: int) -> None:
        """Raise `SpoolFull` where `size` more bytes would not leave the reserve free.

        Delivered entries are cleaned away first, the oldest before the others.
        """
        missing = size + self._reserve - self._free_bytes(self.folder)
        if missing <= 0 and self._layout.hold_ballast():
            return
        for entry in self.entries(state="delivered"):
            self._remove([entry])
            missing -= entry.size
            enough = missing <= 0 and size + self._reserve <= self._free_bytes(self.folder)
            if enough and self._layout.hold_ballast():
                return
        raise SpoolFull(
            f"the spool's disk is nearly full: {self._free_bytes(self.folder) >> 20} MiB free, "
            f"{size + self._reserve >> 20} MiB needed; nothing was taken"
        )

    # ---------------------------------------------------------------- out

    def claim(self, destination: str, *, limit: int = 16) -> list[Entry]:
        """Lease up to `limit` waiting entries that are due, urgent ones first.

        Files are checked against their digest; a damaged one becomes dead.
        """

        def claim(db: sqlite3.Connection) -> list[Entry]:
            owner = self._lease_name()
            self._ledger.free(db, living_owners(self._layout))
            whole = self._ledger.take_whole(db, self._ledger.due(db, destination, limit))
            until = self.clock.steady() + self.lease_s
            for entry in whole:
                self._ledger.update(db, entry, owner=owner, lease_until=until, doubt=entry.in_doubt)
            return whole

        return self._change(claim)

    def renew(self, entries: Iterable[Entry]) -> None:
        """Extend the leases of entries still at work."""
        self._set(entries, lease_until=self.clock.steady() + self.lease_s)

    def release(self, entries: Iterable[Entry]) -> None:
        """Give claimed entries back, untried."""
        self._set(entries, owner=None)

    def postpone(
        self, entry: Entry, delay_s: float, reason: str, *, in_doubt: bool = False, counts: bool = True
    ) -> None:
        """Give an entry back after a failed attempt, not to be tried for `delay_s`.

        Parameters
        ----------
        in_doubt : bool
            The destination may have it all the same.
        counts : bool
            Whether the attempt says anything about this entry.
        """
        columns = {"owner": None, "due": self.clock.steady() + delay_s, "doubt": in_doubt}
        self._set([entry], attempts=entry.attempts + counts, reason=reason, **columns)

    def stored(self, entries: Sequence[Entry]) -> None:
        """The destination answered that it has them; to be confirmed by commitment or grace time."""
        self._change(lambda db: self._ledger.move(db, entries, "stored", ticket=None, doubt=False))

    def delivered(self, entries: Sequence[Entry]) -> None:
        """They are safe at the destination; from now on their files may be cleaned away."""
        self._change(lambda db: self._ledger.move(db, entries, "delivered", reason=None))

    def again(self, entry: Entry, delay_s: float, reason: str) -> None:
        """Back to waiting: the destination lost it."""
        columns = {"due": self.clock.steady() + delay_s, "attempts": entry.attempts + 1, "reason": reason}
        columns["doubt"] = False
        self._change(lambda db: self._ledger.move(db, [entry], "waiting", ticket=None, **columns))

    def dead_letter(self, entries: Sequence[Entry], reason: str) -> None:
        """Give up, keeping file and reason."""
        self._change(lambda db: self._ledger.dead_letter(db, entries, reason))

    def ask(self, entries: Iterable[Entry], ticket: str) -> None:
        """Note the transaction that asks for their storage commitment."""
        self._set(entries, ticket=ticket, due=self.clock.steady())

    def look_again(self, entries: Iterable[Entry], delay_s: float, looks: int) -> None:
        """Note that the destination was asked for stored entries `looks` times; again after `delay_s`."""
        self._set(entries, ticket=f"{LOOKS}{looks}", due=self.clock.steady() + delay_s)

    # ---------------------------------------------------------------- looking after it

    def entries(
        self, *, destination: str | None = None, state: State | None = None, ticket: str | None = None
    ) -> list[Entry]:
        """Entries in the order they came, all or those that match."""
        return self._change(
            lambda db: self._ledger.select(db, destination=destination, state=state, ticket=ticket)
        )

    def check_writable(self) -> None:
        """See that instances can be taken.

        Raises
        ------
        SpoolFull
            The folder cannot be written to.
        """
        try:
            self._layout.check_writable()
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def oldest(self, state: State) -> dict[str, Age]:
        """Destination to how long its oldest entry has been in the spool, and has been in `state`."""
        query = "SELECT destination, MIN(queued) q, MIN(changed) c FROM entries WHERE state=? GROUP BY 1"
        now, steady = self.clock.wall(), self.clock.steady()
        with self._index.transaction() as db:
            return {
                row["destination"]: Age(max(0.0, now - row["q"]), max(0.0, steady - row["c"]))
                for row in db.execute(query, (state,))
            }

    def last_reasons(self) -> dict[str, str]:
        """Destination to what came of its latest failed attempt, of those that still wait or are dead."""
        query = (
            "SELECT destination, reason, MAX(changed) FROM entries"
            " WHERE reason IS NOT NULL AND state IN ('waiting', 'dead') GROUP BY destination"
        )
        with self._index.transaction() as db:
            return {row["destination"]: row["reason"] for row in db.execute(query)}

    def counts(self) -> dict[str, dict[str, int]]:
        """Destination to state to number of entries."""
        table: dict[str, dict[str, int]] = {}
        with self._index.transaction() as db:
            for row in db.execute("SELECT destination, state, COUNT(*) AS n FROM entries GROUP BY 1, 2"):
                table.setdefault(row["destination"], dict.fromkeys(STATES, 0))[row["state"]] = row["n"]
        return table

    def retry(self, *, destination: str | None = None, uids: Sequence[str] | None = None) -> int:
        """Make dead letters wait again, and waiting entries due at once; how many."""
        chosen = [
            e
            for state in _TO_RETRY
            for e in self.entries(destination=destination, state=state)
            if (uids is None or e.uid in uids) and not e.leased
        ]
        with self._index.transaction() as db:
            dead = [e for e in chosen if e.state == "dead"]
            self._ledger.move(db, dead, "waiting", due=0.0, attempts=0)
            for entry in chosen:
                self._layout.drop_reason(entry.filed)
                if entry.state == "waiting":
                    self._ledger.update(db, entry, due=0.0)
        return len(chosen)

    def purge(
        self, *, state: State = "delivered", older_than_s: float = 0.0, destination: str | None = None
    ) -> int:
        """Delete entries and their files; how many.

        Only delivered ones unless `state` says otherwise. Age is by the wall clock, since the file
        came into its state.
        """
        limit = self.clock.wall() - older_than_s
        chosen = [
            e
            for e in self.entries(destination=destination, state=state)
            if not e.leased and (older_than_s <= 0 or _changed_at(e.path) <= limit)
        ]
        self._remove(chosen)
        return len(chosen)

    def reconcile(self) -> None:
        """Make the index agree with the folders (done on opening too)."""
        self._change(self._ledger.reconcile)

    def _lease_name(self) -> str:
        if self._owner is None:
            self._owner = Owner(self._layout)
        return self._owner.name

    def _remove(self, entries: Sequence[Entry]) -> None:
        self._change(lambda db: self._ledger.remove(db, entries))

    def _set(self, entries: Iterable[Entry], **columns: object) -> None:
        chosen = list(entries)

        def update(db: sqlite3.Connection) -> None:
            for entry in chosen:
                self._ledger.update(db, entry, **columns)

        self._change(update)

    def _change(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction; tried again after making room on a full disk, or a new index."""
        try:
            try:
                with self._index.transaction() as db:
                    return action(db)
            except SpoolFull:
                if not self._layout.drop_ballast():
                    raise
            except SpoolCorrupt:
                pass
            with self._index.transaction() as db:
                return action(db)
        except OSError as error:
            raise unwritable(self.folder, error) from error


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0

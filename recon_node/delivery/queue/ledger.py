"""Changes of the spool: a file's place and its row in the index, always together.

Every function here runs inside a transaction of the index, so that processes take turns. The folder
is changed first and made durable, then the row; after a crash in between `reconcile` makes the row
follow the folder.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from typing import Any

from recon_node.core.errors import DeliveryError
from recon_node.delivery.queue.clock import Clock
from recon_node.delivery.queue.entry import Entry, entry_from_row
from recon_node.delivery.queue.layout import Filed, Key, Layout, State

_DAMAGED = "the file in the spool is damaged: send the instance again"
_INSERT = """
INSERT INTO entries (destination, uid, state, priority, digest, size, queued, changed, boot, reason, doubt)
VALUES (?,?,?,?,?,?,?,?,?,?,?)
"""


class Ledger:
    """Folders and index of one spool, changed together."""

    def __init__(self, layout: Layout, clock: Clock) -> None:
        self.layout = layout
        self.clock = clock

    def find(self, db: sqlite3.Connection, key: Key) -> Entry | None:
        """The entry of one instance and destination."""
        query = "SELECT * FROM entries WHERE destination=? AND uid=?"
        row = db.execute(query, (key.destination, key.uid)).fetchone()
        return None if row is None else entry_from_row(row, self.layout)

    def select(self, db: sqlite3.Connection, **wanted: str | None) -> list[Entry]:
        """Entries whose columns have these values, in the order they came."""
        chosen = {k: v for k, v in wanted.items() if v is not None}
        where = " AND ".join(f"{k}=?" for k in chosen) or "1"
        query = f"SELECT * FROM entries WHERE {where} ORDER BY number"  # noqa: S608 - column names only
        return [entry_from_row(r, self.layout) for r in db.execute(query, tuple(chosen.values()))]

    def insert(
        self,
        db: sqlite3.Connection,
        filed: Filed,
        size: int,
        reason: str | None = None,
        *,
        doubt: bool = False,
    ) -> None:
        """A row for a file that is in its place."""
        key = filed.key
        dates = (self.clock.wall(), self.clock.steady(), self.clock.boot())
        values = (
            key.destination,
            key.uid,
            filed.state,
            filed.priority,
            filed.digest,
            size,
            *dates,
            reason,
            doubt,
        )
        db.execute(_INSERT, values)

    def update(self, db: sqlite3.Connection, entry: Entry, **columns: Any) -> None:
        """Change columns of one row; the file stays where it is."""
        names = ", ".join(f"{name}=?" for name in columns)
        query = f"UPDATE entries SET {names} WHERE destination=? AND uid=?"  # noqa: S608 - column names only
        db.execute(query, (*columns.values(), entry.destination, entry.uid))

    def is_wanted(self, db: sqlite3.Connection, filed: Filed) -> bool:
        """Whether an instance offered to the spool is new to it; a dead one is to be replaced.

        Raises
        ------
        DeliveryError
            Another content under the same SOP Instance UID is on its way.
        """
        known = self.find(db, filed.key)
        if known is None or known.state == "dead":
            return True
        if known.filed.digest != filed.digest:
            raise DeliveryError(
                f"instance {filed.key.uid} is already {known.state} for {filed.key.destination} with other "
                "content; give the new one another SOP Instance UID, or purge the old one"
            )
        return False

    def enter(self, db: sqlite3.Connection, filed: Filed, size: int) -> list[Entry]:
        """A row for a file just linked; returns the dead entry it takes the place of.

        The dead one's file must go once the change is committed: `reconcile` would do the same.
        """
        dead = self.find(db, filed.key)
        if dead is not None and dead.state != "dead":
            raise DeliveryError(f"instance {filed.key.uid} was given twice with different content")
        if dead is not None:
            db.execute("DELETE FROM entries WHERE destination=? AND uid=?", (dead.destination, dead.uid))
        self.insert(db, filed, size)
        return [] if dead is None else [dead]

    def drop_replaced(self, db: sqlite3.Connection, replaced: Sequence[Entry]) -> None:
        """Delete the files of dead entries that `enter` replaced."""
        for old in replaced:
            known = self.find(db, old.key)
            if known is None or known.filed != old.filed:
                old.path.unlink(missing_ok=True)
                self.layout.drop_reason(old.filed)

    def move(self, db: sqlite3.Connection, entries: Sequence[Entry], state: State, **columns: Any) -> None:
        """Change the state of entries, files first."""
        moved = []
        for entry in (e for e in entries if e.state != state):
            with contextlib.suppress(FileNotFoundError):
                target = self.layout.path(self.layout.move(entry.filed, state))
                os.utime(target)
                moved.append(entry)
        self.layout.sync((state, e.destination) for e in moved)
        self.layout.sync((e.state, e.destination) for e in moved)
        now, boot = self.clock.steady(), self.clock.boot()
        for entry in moved:
            self.update(db, entry, state=state, owner=None, changed=now, boot=boot, **columns)
        if len(moved) < sum(e.state != state for e in entries):
            self.reconcile(db)

    def free(self, db: sqlite3.Connection, living: set[str]) -> None:
        """End the leases of owners that live no more."""
        for row in db.execute("SELECT DISTINCT owner FROM entries WHERE owner IS NOT NULL").fetchall():
            if row["owner"] not in living:
                db.execute("UPDATE entries SET owner=NULL, doubt=1 WHERE owner=?", (row["owner"],))

    def due(self, db: sqlite3.Connection, destination: str, limit: int) -> list[Entry]:
        """Waiting entries without a lease whose time has come."""
        now = self.clock.steady()
        rows = db.execute(
            "SELECT * FROM entries WHERE destination=? AND state='waiting' AND due<=?"
            " AND (owner IS NULL OR lease_until<=?) ORDER BY priority DESC, number LIMIT ?",
            (destination, now, now, limit),
        )
        return [entry_from_row(r, self.layout) for r in rows]

    def take_whole(self, db: sqlite3.Connection, entries: Sequence[Entry]) -> list[Entry]:
        """The entries whose files are whole; damaged ones become dead letters, missing ones forgotten."""
        found = {e.key: self.layout.is_whole(e.filed) for e in entries}
        self.dead_letter(db, [e for e in entries if found[e.key] is False], _DAMAGED)
        if None in found.values():
            self.reconcile(db)
        return [e for e in entries if found[e.key]]

    def dead_letter(self, db: sqlite3.Connection, entries: Sequence[Entry], reason: str) -> None:
        """Make entries dead, the reason beside the file before the file is there."""
        for entry in entries:
            dead = Filed(entry.key, "dead", entry.filed.priority, entry.filed.digest)
            self.layout.write_reason(dead, reason)
        self.move(db, entries, "dead", reason=reason)

    def remove(self, db: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        """Delete files and rows."""
        for entry in entries:
            entry.path.unlink(missing_ok=True)
            self.layout.drop_reason(entry.filed)
            db.execute("DELETE FROM entries WHERE destination=? AND uid=?", (entry.destination, entry.uid))
        self.layout.sync((e.state, e.destination) for e in entries)

    def reconcile(self, db: sqlite3.Connection) -> None:
        """Make the rows agree with the folders; leases and waits of another boot are void."""
        boot = self.clock.boot()
        db.execute(
            "UPDATE entries SET doubt=doubt OR owner IS NOT NULL, owner=NULL, due=0, changed=?, boot=?"
            " WHERE boot<>?",
            (self.clock.steady(), boot, boot),
        )
        filed = self._filed()
        for entry in self.select(db):
            found = filed.pop(entry.key, None)
            if found is None:
                db.execute(
                    "DELETE FROM entries WHERE destination=? AND uid=?", (entry.destination, entry.uid)
                )
            elif found != entry.filed:
                names = {"state": found.state, "digest": found.digest, "priority": found.priority}
                self.update(db, entry, owner=None, **names)
        for one in filed.values():
            reason = self.layout.read_reason(one) if one.state == "dead" else None
            # Of a file that only the folders know, nobody knows whether it was sent.
            self.insert(db, one, self.layout.path(one).stat().st_size, reason, doubt=True)

    def _filed(self) -> dict[Key, Filed]:
        """What lies in the folders; of a file found in two states the less advanced name is dropped."""
        filed: dict[Key, Filed] = {}
        for one in self.layout.scan():
            if (less := filed.get(one.key)) is not None:
                self.layout.path(less).unlink(missing_ok=True)
                self.layout.drop_reason(less)
            filed[one.key] = one
        return filed

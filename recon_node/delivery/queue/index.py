"""The spool's index: sqlite3 with a rollback journal and full synchronisation, replaced if it is damaged.

Nothing of it is mapped into memory: what happens to a mapped file (cut off, made immutable, its disk gone)
ends the process by SIGBUS, where a read or a write ends in an error. That rules out WAL mode.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from recon_node.core.durable import PRIVATE_MODE
from recon_node.core.errors import SpoolCorrupt
from recon_node.delivery.outcome import SpoolFull

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    uid TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    queued REAL NOT NULL,      -- wall clock, for people
    changed REAL NOT NULL,     -- steady clock of `boot`: when it came into its state
    boot TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,        -- steady clock: not before
    owner TEXT,                -- who holds the lease
    lease_until REAL NOT NULL DEFAULT 0,
    ticket TEXT,               -- storage commitment transaction UID
    reason TEXT,
    doubt INTEGER NOT NULL DEFAULT 0,   -- an attempt ended without an answer
    UNIQUE (destination, uid)
);
CREATE INDEX IF NOT EXISTS queue ON entries (destination, state, priority DESC, number);
"""
_WAIT_FOR_OTHERS_S = 60.0
_LATER_COLUMNS = {"doubt": "INTEGER NOT NULL DEFAULT 0"}
"""Which an index made by an earlier version lacks."""


class Index:
    """One sqlite3 file, shared by threads (a lock) and processes (sqlite's own locks).

    Parameters
    ----------
    path : Path
        The file; made if missing.
    refill : callable
        Called with the open connection, inside a transaction, whenever the file was opened: makes
        the index agree with the folders.
    """

    def __init__(self, path: Path, refill: Callable[[sqlite3.Connection], None]) -> None:
        self._path = path
        self._refill = refill
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._inode = -1

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Exclusive access for one change; committed at the end, undone by an exception.

        Raises
        ------
        SpoolFull
            The disk is full.
        SpoolCorrupt
            The file was damaged while in use; it has been rebuilt, the change can be tried again.
        """
        with self._lock:
            db = self._opened()
            try:
                self._begin(db)
                yield db
                db.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                raise self._translated(error) from error
            except BaseException:
                self._roll_back()
                raise

    def _begin(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")

    def _opened(self) -> sqlite3.Connection:
        """The connection, to the file that is there now: somebody may have removed it."""
        if self._db is not None and self._inode_now() == self._inode:
            return self._db
        self.close()
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            known = self._passing(error)
            if known is not None:
                raise known from error
            self._set_aside()
            return self._open()

    def _open(self) -> sqlite3.Connection:
        # Made here, since sqlite would make it readable for all; its journal takes the same permissions.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, PRIVATE_MODE))
        db = sqlite3.connect(
            self._path, timeout=_WAIT_FOR_OTHERS_S, isolation_level=None, check_same_thread=False
        )
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA mmap_size=0")
            db.execute("PRAGMA journal_mode=TRUNCATE")
            db.execute("PRAGMA synchronous=FULL")
            _check(db)
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            _add_columns(db)
            self._refill(db)
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        self._db = db
        self._inode = self._inode_now()
        return db

    def _inode_now(self) -> int:
        try:
            return self._path.stat().st_ino
        except FileNotFoundError:
            return -2

    def _set_aside(self) -> None:
        """Keep a damaged index for whoever wants to know why, out of the way."""
        self.close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            damaged = self._path.with_name(self._path.name + suffix)
            try:
                damaged.replace(self._path.with_name(f"damaged-{self._path.name}{suffix}"))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SpoolFull(f"cannot write to the spool: {damaged.name}: {error.strerror}") from error

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _translated(self, error: sqlite3.DatabaseError) -> SpoolFull | SpoolCorrupt:
        self._roll_back()
        known = self._passing(error)
        if known is not None:
            return known
        self._set_aside()
        return SpoolCorrupt(f"the spool's index {self._path} was damaged ({error}) and has been rebuilt")

    def _passing(self, error: sqlite3.DatabaseError) -> SpoolFull | SpoolCorrupt | None:
        """What is wrong where the index itself is not; None where it is damaged."""
        code = getattr(error, "sqlite_errorcode", 0)
        # A full disk shows as SQLITE_FULL, or as an I/O error while extending a file.
        if code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return SpoolFull(f"no room for the spool's index {self._path}")
        if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return SpoolFull(f"cannot write to the spool's index {self._path}")
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return SpoolCorrupt(f"the spool's index {self._path} is locked by another process")
        return None


def _add_columns(db: sqlite3.Connection) -> None:
    there = {row["name"] for row in db.execute("PRAGMA table_info(entries)")}
    for name, kind in _LATER_COLUMNS.items():
        if name not in there:
            db.execute(f"ALTER TABLE entries ADD COLUMN {name} {kind}")


def _check(db: sqlite3.Connection) -> None:
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)

"""One instance on its way to one destination, as the spool tells of it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from recon_node.delivery.queue.layout import Filed, Key, Layout, State


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the spool's index with the place of its file."""

    filed: Filed
    path: Path
    size: int
    """Bytes."""
    attempts: int
    queued: float
    """Seconds since 1970."""
    changed: float
    """Steady clock: when it came into its state."""
    due: float
    """Steady clock: not tried before."""
    leased: bool
    ticket: str | None
    """Transaction UID of the storage commitment asked for."""
    reason: str | None
    """What came of the last attempt."""
    in_doubt: bool = False
    """It may be at the destination already: an attempt ended without an answer, or its process did."""

    @property
    def key(self) -> Key:
        """Destination and SOP Instance UID."""
        return self.filed.key

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.filed.key.uid

    @property
    def destination(self) -> str:
        """Name of the destination."""
        return self.filed.key.destination

    @property
    def state(self) -> State:
        """waiting, stored, delivered or dead."""
        return self.filed.state


def entry_from_row(row: sqlite3.Row, layout: Layout) -> Entry:
    """The entry a row of the index describes."""
    filed = Filed(Key(row["destination"], row["uid"]), row["state"], row["priority"], row["digest"])
    return Entry(
        filed=filed,
        path=layout.path(filed),
        size=row["size"],
        attempts=row["attempts"],
        queued=row["queued"],
        changed=row["changed"],
        due=row["due"],
        leased=row["owner"] is not None,
        ticket=row["ticket"],
        reason=row["reason"],
        in_doubt=bool(row["doubt"]) or row["owner"] is not None,
    )

"""What a worker process has to say of one input, in files of the output folder.

The ledger is written by one process only, since SQLite's WAL mode does not work between machines. Workers
append the same rows to a journal, which that process reads; where a worker is killed, the next one at the
same input reads it too, and goes on behind it. Beside it lie marks: one for each piece of work at hand, left
over where its process was killed. Two of them, and the piece is tried in a process of its own.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from recon_node.offline.ledger import done_in

ROOM = ".replay"
"""Folder of the output folder where journals lie while a replay runs."""
KNOWN = "known.sqlite"
"""The ledger as it was when the replay began, for workers to read."""
MINE = "this_replay"
"""Set in a finished row that stems from this replay, not from an earlier one."""
TRIES = 2
"""Worker processes that may be killed at one piece of work before it gets a process of its own."""
_JOURNAL = "rows.jsonl"


class Notes(Protocol):
    """Where slices are remembered: the ledger, or a worker's journal."""

    def done(self, input_sha256: str, key: str) -> list[dict[str, Any]]:
        """Rows of finished slices of an input under one set of settings."""

    def note(self, values: Mapping[str, Any]) -> None:
        """Remember one row."""


class Journal:
    """Notes of the processes that work at one input, one after the other.

    Parameters
    ----------
    folder : Path
        The input's own in `ROOM`; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / _JOURNAL
        self._known = folder.parent / KNOWN

    def done(self, input_sha256: str, key: str) -> list[dict[str, Any]]:
        """Finished slices of earlier replays, and of processes that were killed in this one."""
        wanted = {"input_sha256": input_sha256, "key": key, "status": "done"}
        mine = [{**row, MINE: True} for row in _rows(self._path, 0)[0] if wanted.items() <= row.items()]
        if not self._known.is_file():
            return mine
        return [*done_in(self._known, input_sha256, key), *mine]

    def note(self, values: Mapping[str, Any]) -> None:
        """Append one row."""
        with self._path.open("ab") as stream:
            stream.write(b"\n" + json.dumps(dict(values)).encode("utf-8", "backslashreplace") + b"\n")


def left_over(room: Path) -> Iterator[dict[str, Any]]:
    """Rows that no process took over before a replay ended."""
    for path in sorted(room.glob(f"*/{_JOURNAL}")):
        yield from _rows(path, 0)[0]


class JournalReader:
    """Reads the rows that were added to a journal since the last time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _JOURNAL
        self._at = 0

    def news(self) -> list[dict[str, Any]]:
        """Whole rows only: a process may have been killed in the middle of one."""
        rows, self._at = _rows(self._path, self._at)
        return rows


def _rows(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            data = stream.read()
    except FileNotFoundError:
        return [], start
    whole = data[: data.rfind(b"\n") + 1]
    found = []
    for line in whole.splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # cut by a kill; the next process began a line of its own
            continue
        if isinstance(row, dict):
            found.append(row)
    return found, start + len(whole)


class Tries:
    """Marks of what is being done, by processes that may be killed at it.

    Parameters
    ----------
    folder : Path
        The input's own in `ROOM`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def killed(self, what: str) -> int:
        """Processes that were killed at a piece of work, which may have been something else's fault."""
        return len(list(self._folder.glob(f"{what}.*.try")))

    def begin(self, what: str) -> Path:
        """Mark that a piece of work begins here."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = self._folder / f"{what}.{os.getpid()}-{secrets.token_hex(4)}.try"
        mark.touch()
        return mark

    @contextmanager
    def at(self, what: str) -> Iterator[None]:
        """The mark of one piece of work, for as long as it takes."""
        mark = self.begin(what)
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def forget(self, what: str) -> None:
        """There was progress: what was killed before does not count."""
        for mark in self._folder.glob(f"{what}.*.try"):
            mark.unlink(missing_ok=True)

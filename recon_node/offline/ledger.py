"""What became of every slice of an archive: a table beside the output that can be asked.

SQLite in WAL mode, so that several processes write and others read meanwhile. A row is one slice of one
input under one set of settings; `Ledger.done` tells which need not be made again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from recon_node.core.errors import ConfigError, SourceError
from recon_node.core.scan import SliceIndex
from recon_node.pipeline.result import Slice

FILE = "ledger.sqlite"
"""In the output folder."""
LOCK = ".replay.lock"
"""Beside it: held by the replay that writes there."""
COUNTERS = ("slice", "contrast", "set", "repetition", "encoding", "partition")
_PATIENCE_S = 30.0
"""How long a process waits for another one's write."""
_COLUMNS = {
    "input": "TEXT NOT NULL",
    "scan": "INTEGER NOT NULL",
    **dict.fromkeys(COUNTERS, "INTEGER NOT NULL"),
    "input_sha256": "TEXT NOT NULL",
    "key": "TEXT NOT NULL",
    "status": "TEXT NOT NULL",
    "finished": "TEXT NOT NULL",
    "method": "TEXT",
    "weights": "TEXT",
    "weights_sha256": "TEXT",
    "pattern": "TEXT",
    "acceleration": "REAL",
    "acs_lines": "INTEGER",
    "lines_found": "INTEGER",
    "lines_expected": "INTEGER",
    "trust": "TEXT",
    "score": "REAL",
    "reasons": "TEXT",
    "ssim_at_least": "REAL",
    "psnr_at_least": "REAL",
    "field_t": "REAL",
    "vendor": "TEXT",
    "model": "TEXT",
    "protocol": "TEXT",
    "metadata_prompt": "TEXT",
    "undersampling_prompt": "TEXT",
    "phases": "INTEGER",
    "psnr": "REAL",
    "ssim": "REAL",
    "nmse": "REAL",
    "seconds": "REAL",
    "instances": "INTEGER",
    "folders": "TEXT",
    "study_uid": "TEXT",
    "series_uids": "TEXT",
    "instance_uids": "TEXT",
    "error": "TEXT",
    "entry": "TEXT",
    "scaling": "TEXT",
}
_IDENTITY = ("input_sha256", "scan", *COUNTERS, "key")
_BOUNDS = ("ssim_at_least", "psnr_at_least")
"""What errors the trust check bounds, where it does."""
_HIDDEN = ("entry", "scaling")
"""For the node's own use."""
SHOWN = tuple(name for name in _COLUMNS if name not in _HIDDEN)
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR}
_SAFE = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


class Ledger:
    """The ledger of one output folder.

    Parameters
    ----------
    folder : Path
        The output folder; exists.

    Raises
    ------
    SourceError
        The file is no ledger, or cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with _told(self.path):
            self._db = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last rows, nothing else
            columns = ", ".join(f'"{name}" {kind}' for name, kind in _COLUMNS.items())
            self._db.execute(f"CREATE TABLE IF NOT EXISTS slices ({columns}, UNIQUE ({_quoted(_IDENTITY)}))")
            self._take_up_to_date()
        self.path.chmod(0o600)

    def _take_up_to_date(self) -> None:
        """Add the columns that the file of a former version lacks."""
        there = {row[1] for row in self._db.execute("PRAGMA table_info(slices)")}
        for name in _COLUMNS.keys() - there:
            self._db.execute(f'ALTER TABLE slices ADD COLUMN "{name}" {_COLUMNS[name]}')

    def copy(self, path: Path) -> None:
        """Write everything to a file of its own, which nobody writes to again."""
        with _told(path):
            self._db.execute("VACUUM INTO ?", (str(path),))
        path.chmod(0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def note(self, values: Mapping[str, Any]) -> None:
        """Write one row; an older one of the same slice, input and settings gives way."""
        row = {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **values}
        marks = ", ".join("?" for _ in row)
        with _told(self.path):
            self._db.execute(
                f"INSERT OR REPLACE INTO slices ({_quoted(row)}) VALUES ({marks})",  # noqa: S608 - our names
                [_plain_text(value) for value in row.values()],
            )

    def done(self, input_sha256: str, key: str) -> list[dict[str, Any]]:
        """Finished slices of an input under one set of settings, in the order they were finished."""
        return _done(self._db, self.path, input_sha256, key)


def done_in(copy: Path, input_sha256: str, key: str) -> list[dict[str, Any]]:
    """The same, of what `Ledger.copy` wrote: no process writes to it, and any machine may read it."""
    with _told(copy):
        db = sqlite3.connect(f"{copy.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        with closing(db):
            return _done(db, copy, input_sha256, key)


def _done(db: sqlite3.Connection, path: Path, input_sha256: str, key: str) -> list[dict[str, Any]]:
    where = "input_sha256 = ? AND key = ? AND status = 'done' ORDER BY rowid"
    with _told(path):
        cursor = db.execute(f"SELECT * FROM slices WHERE {where}", (input_sha256, key))  # noqa: S608
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def query(folder: Path, where: str) -> list[dict[str, Any]]:
    """Rows of a ledger for which an SQL condition holds, in the order of inputs and slices.

    Parameters
    ----------
    folder : Path
        The output folder.
    where : str
        For example ``trust = 'warn' and field_t < 1``; empty for all. It can only read.

    Raises
    ------
    SourceError
        There is no ledger, or it is damaged.
    ConfigError
        The condition is none; the message names the columns.
    """
    path = folder / FILE
    if not path.is_file():
        raise SourceError(f"{folder}: no {FILE} here, expected the output folder of a replay")
    order = _quoted(("input", "scan", *COUNTERS))
    with _told(path):
        mode = "rw" if os.access(folder, os.W_OK) else "ro"  # who may write tidies up behind itself
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE_S)
    try:
        there = {row[1] for row in db.execute("PRAGMA table_info(slices)")}  # a former version had fewer
        names = ", ".join(f'"{name}"' if name in there else "NULL" for name in SHOWN)
        db.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _SAFE else sqlite3.SQLITE_DENY)
        condition = where.strip() or "1"
        cursor = db.execute(
            f"SELECT {names} FROM slices WHERE ({condition}\n) ORDER BY {order}"  # noqa: S608
        )
        return [dict(zip(SHOWN, row, strict=True)) for row in cursor]
    except (sqlite3.Error, sqlite3.Warning) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            raise SourceError(
                f"{path}: the ledger is damaged ({error}): move it away, or restore it"
            ) from error
        raise ConfigError(
            f"ledger query {where[:60]!r}: {error}; expected a condition on {', '.join(SHOWN[:24])}..."
        ) from error
    finally:
        db.close()


def values_of(done: Slice, entry: Mapping[str, Any], scaling: Mapping[str, Any] | None) -> dict[str, Any]:
    """A finished slice as a row, but for what identifies its input."""
    header, result = done.result.kspace.header, done.result
    metrics = entry.get("metrics", {}).get(result.images.made_by.method, {})
    return {
        **{name: getattr(result.kspace.index, name) for name in COUNTERS},
        "status": "done",
        "method": entry["method"],
        "weights": entry["weights"]["name"],
        "weights_sha256": entry["weights"]["sha256"],
        "pattern": entry["sampling"]["pattern"],
        "acceleration": entry["sampling"]["acceleration"],
        "acs_lines": entry["sampling"]["acs_lines"],
        "lines_found": entry["lines"]["found"],
        "lines_expected": entry["lines"]["expected"],
        "trust": entry["trust"]["verdict"],
        "score": entry["trust"]["score"],
        "reasons": "; ".join(entry["trust"]["reasons"]) or None,
        **{name: (entry["trust"].get("expected") or {}).get(name) for name in _BOUNDS},
        "field_t": header.field_strength_t,
        "vendor": header.vendor,
        "model": header.model,
        "protocol": header.protocol,
        "metadata_prompt": entry["prompts"]["metadata"],
        "undersampling_prompt": entry["prompts"]["undersampling"],
        "phases": entry["phases"],
        **{name: metrics.get(name) for name in ("psnr", "ssim", "nmse")},
        "seconds": round(sum(done.seconds.values()), 3),
        "instances": len(entry["instances"]),
        "folders": "; ".join(entry["folders"]) or None,
        "study_uid": next((one.study_instance_uid for one in done.instances), None),
        "series_uids": "; ".join(dict.fromkeys(one.series_instance_uid for one in done.instances)) or None,
        "instance_uids": "; ".join(entry["instances"]) or None,
        "entry": json.dumps(entry),
        "scaling": None if scaling is None else json.dumps(dict(scaling)),
    }


def index_of(row: Mapping[str, Any]) -> SliceIndex:
    """Which slice a row is of."""
    return SliceIndex(**{name: int(row[name]) for name in COUNTERS})


def write_csv(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Rows as a table that spreadsheets read, with a head."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, SHOWN)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Rows as a Parquet file.

    Raises
    ------
    ConfigError
        pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow: pip install 'recon-node[parquet]', or take --csv"
        ) from error
    kinds = {"TEXT": pa.string(), "INTEGER": pa.int64(), "REAL": pa.float64()}
    schema = pa.schema([(name, kinds[_COLUMNS[name].partition(" ")[0]]) for name in SHOWN])
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)


def read_listed(name: str) -> dict[Path, frozenset[SliceIndex]]:
    """Slices by input, from what ``ledger query`` printed: its table, or its JSON.

    Parameters
    ----------
    name : str
        A file, or ``-`` for standard input.

    Raises
    ------
    SourceError
        It cannot be read, or names no slices.
    """
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip().startswith("[") else list(csv.DictReader(io.StringIO(text)))
        found: dict[Path, set[SliceIndex]] = {}
        for one in rows:
            if int(one["slice"]) >= 0:
                found.setdefault(Path(one["input"]), set()).add(index_of(one))
    except OSError as error:
        raise SourceError(f"{name}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{name}: is not what `recon-node ledger query` prints") from error
    if not found:
        raise SourceError(f"{name}: names no slices: nothing to do again")
    return {path: frozenset(indices) for path, indices in found.items()}


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SourceError(
            f"{path}: the ledger cannot be used ({error}): move it away, or free the disk"
        ) from error


def _plain_text(value: Any) -> Any:
    """A value as the database can hold it: names of files may be no text."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

"""A study's results in a file, a line each, so that a run that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recon_node.core import durable
from recon_node.core.errors import DataError

Record = dict[str, Any]


def read_records(path: Path, what: str) -> list[Record]:
    """The records of a file, none where there is no file; a last line that was cut off is taken off it.

    Parameters
    ----------
    path : Path
        One JSON object a line, each with a ``key``.
    what : str
        What a record is, for errors: ``case of the failure benchmark``, for example.

    Raises
    ------
    DataError
        It holds something else.
    """
    if not path.exists():
        return []
    found = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            record = json.loads(line)
            found.append({**record, "key": record["key"]})
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) - 1:
                durable.write_text(path, "\n".join(lines[:-1]) + "\n" * (len(lines) > 1))
                return found
            raise DataError(f"{path}: line {number + 1} is no {what}") from error
    return found


def add_records(path: Path, records: Iterable[Record]) -> None:
    """Put records at the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))

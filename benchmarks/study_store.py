"""Measurements on disk, one JSON line each, so that a killed study goes on and a repeated one costs nothing."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self


class Store:
    """Measurements by what they depend on."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, dict[str, Any]] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        self._stream = file.open("ab")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.close()
            raise SystemExit(f"{file}: another study is writing it; wait, or take another --out") from None
        whole, _, torn = file.read_bytes().rpartition(b"\n")
        for line in whole.splitlines():
            entry = json.loads(line)
            self.known[entry["key"]] = entry
        if torn:  # what a killed run was writing
            os.truncate(file, len(whole) + 1 if whole else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def get(self, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The measurement of `identity`, made and appended where it is not known."""
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        if key not in self.known:
            entry = {"key": key, **identity, **make()}
            self._stream.write(json.dumps(entry).encode() + b"\n")
            self._stream.flush()
            self.known[key] = entry
        return self.known[key]

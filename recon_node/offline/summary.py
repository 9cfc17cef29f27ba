"""``summary.json`` of a replay, written now and then while it runs and whole at its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from recon_node.core import durable
from recon_node.offline.job import FileResult
from recon_node.pipeline.summary import WARNING

_SHARE = 0.02
"""Of the time that may go into writing it before the end."""


class Summary:
    """What became of each input so far.

    Parameters
    ----------
    path : Path
    inputs : iterable of Path
        In the order in which they are told; more may be added to it.
    """

    def __init__(self, path: Path, inputs: Iterable[Path]) -> None:
        self._path, self._inputs = path, inputs
        self._results: dict[Path, FileResult] = {}
        self._next = 0.0
        self._written = True

    def add(self, result: FileResult) -> None:
        """One input has ended."""
        self._results[result.path] = result
        self._written = False
        if time.monotonic() >= self._next:
            self.write()

    def results(self, inputs: Sequence[Path]) -> list[FileResult]:
        """Of some inputs, in their order."""
        return [self._results[path] for path in inputs]

    def write_news(self) -> None:
        """Write the file, unless all that was added stands there."""
        if not self._written:
            self.write()

    def write(self) -> None:
        """Write the file whole, an entry at a time: an archive's would not fit into memory."""
        began = time.monotonic()
        with durable.writing(self._path) as stream:
            stream.write(f'{{\n  "warning": {json.dumps(WARNING)},\n  "series": ['.encode())
            for number, text in enumerate(self._entries()):
                stream.write(f"{',' if number else ''}\n    {text}".encode())
            stream.write(b"\n  ]\n}\n")
        self._written = True
        now = time.monotonic()
        self._next = now + (now - began) / _SHARE

    def _entries(self) -> Iterator[str]:
        for path in self._inputs:
            if path in self._results:
                for entry in self._results[path].series:
                    yield json.dumps(entry, indent=2).replace("\n", "\n    ")

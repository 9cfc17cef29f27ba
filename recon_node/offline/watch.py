"""A folder that is watched: the offline twin of the scanner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from recon_node.core.disk import check_room
from recon_node.core.errors import SourceError
from recon_node.offline.inputs import raw_files
from recon_node.offline.job import Extras, FileResult
from recon_node.offline.replay import SUMMARY, replay
from recon_node.offline.summary import Summary
from recon_node.settings import Settings

_QUIET_S = 2.0
"""How long a file must not change before it counts as whole."""
_LOOK_S = 1.0
"""How often the folder is looked at."""


def watch(
    folders: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    deliver: Callable[[list[FileResult]], None] = lambda results: None,
    extras: Extras | None = None,
    report: Callable[[FileResult], None] = lambda result: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Reconstruct files that appear in folders, once they are whole, until `stop` says so.

    A file is whole when it has not changed for two seconds. What the ledger in `out` knows is not done again,
    so a watch that was stopped goes on where it was; a file that failed is tried again when it changes.

    Parameters
    ----------
    folders : sequence of Path
    out, settings, extras, report
        As for `replay`.
    deliver : callable
        Told of what each file became, after it was reconstructed.
    stop : callable
        Asked between two looks.

    Raises
    ------
    SourceError
        A folder is none.
    ConfigError, WeightsError
        As for `replay`.
    DiskFull
        No room for images is left.
    """
    for folder in folders:
        if not folder.is_dir():
            raise SourceError(f"{folder}: is no folder, expected one to watch")
    found = _Found(folders)
    told: dict[Path, None] = {}
    summary = Summary(out / SUMMARY, told)
    try:
        while not stop():
            for path in found.whole():
                check_room(out, "the images", settings.delivery.reserve_mb << 20)
                told[path] = None
                again = partial(replay, resume=True, extras=extras, summary=summary, report=report)
                deliver(again([path], out, settings))
            summary.write_news()
            time.sleep(_LOOK_S)
    finally:
        summary.write_news()


class _Found:
    """Files in folders, each once it is whole, and again when it has changed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._seen: dict[Path, tuple[int, int]] = {}
        self._settled: dict[Path, tuple[int, int]] = {}

    def whole(self) -> Iterator[Path]:
        """Those that were not given yet."""
        for path in [path for folder in self._folders for path in raw_files(str(folder))]:
            state = _state(path)
            if state is None or self._settled.get(path) == state:
                continue
            if self._seen.get(path) != state or time.time() - state[1] / 1e9 < _QUIET_S:
                self._seen[path] = state
                continue
            self._settled[path] = state
            yield path


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns

"""What processes that are gone, and former versions of this package, left in a store of received scans."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from recon_node.core.durable import PART
from recon_node.mrd.captures.capture import DESCRIPTION, FORMER, Capture
from recon_node.mrd.captures.store import Captures

_OURS = re.compile(r"[0-9a-f]{12}\.mrd(\.part)?")
"""Names of recordings of former versions."""


def recover(captures: Captures, *, finish: bool) -> None:
    """Scans that were arriving in a process that is gone wait as far as they came, or end here.

    Parameters
    ----------
    captures : Captures
    finish : bool
        Whether what came is to be reconstructed.
    """
    for capture in captures.open():
        if capture.state == "arriving":
            _recover(capture, finish=finish)


def _recover(capture: Capture, *, finish: bool) -> None:
    try:
        handle = os.open(capture.part, os.O_RDWR)
    except OSError:
        return  # it ends at this moment
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if capture.part.exists():  # else it was kept meanwhile
            _end(capture, finish=finish, size=os.fstat(handle).st_size)
    except BlockingIOError:
        return  # whoever receives it lives
    finally:
        os.close(handle)


def _end(capture: Capture, *, finish: bool, size: int) -> None:
    if capture.kind == "echo":
        capture.finish([])
    elif not size or capture.kind == "retrieve" or not (finish or capture.keep):
        shutil.rmtree(capture.folder, ignore_errors=True)
    elif finish:
        capture.wait()
    else:
        capture.fail("the node was stopped while it arrived, and server.on_vanish is stop")


def take_over(captures: Captures, former: Path | None = None) -> tuple[int, list[str]]:
    """Take in what former versions left: flat recordings in the folder, and deferred scans in `former`.

    Parameters
    ----------
    captures : Captures
    former : Path, optional
        The folder of deferred scans, where that was another one.

    Returns
    -------
    (int, list of str)
        How many were taken in, and what could not be, a line each.
    """
    moves: list[tuple[Path, Callable[[], object]]] = [
        (path, partial(_adopt, captures, path))
        for path in sorted(captures.folder.glob("*.mrd*"))
        if path.is_file() and _OURS.fullmatch(path.name)
    ]
    if former is not None and former != captures.folder and former.is_dir():
        described = {path.parent for name in (FORMER, DESCRIPTION) for path in former.glob(f"*/{name}")}
        there = [capture for capture in map(Capture.read, sorted(described)) if capture is not None]
        moves += [
            (capture.folder, partial(capture.folder.rename, captures.folder / capture.scan_id))
            for capture in there
            if capture.state != "arriving"
        ]
    troubles = []
    for path, move in moves:
        try:
            move()
        except OSError as error:
            troubles.append(f"{path} cannot be taken into {captures.folder} ({error.strerror})")
    return len(moves) - len(troubles), troubles


def _adopt(captures: Captures, path: Path) -> None:
    """A recording of a former version becomes a scan that is done: it was answered then."""
    capture = Capture(
        folder=captures.folder / path.name.partition(".")[0],
        number=path.stat().st_mtime_ns,
        kind="unknown",
        whole=not path.name.endswith(PART),
        keep=True,
    )
    capture.folder.mkdir(mode=0o700)
    path.rename(capture.scan)
    capture.describe()
    capture.finish([], handed=True)

"""Deliver what waits in the spool, in a process that outlives the one that queued it.

``python -m recon_node.online.afterwards`` with the environment of the module: one such process works on a
spool at a time, and gives up after a while; a node that serves, or ``recon-node spool retry``, takes it from
there.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recon_node.core.errors import ReconNodeError
from recon_node.delivery import Spool
from recon_node.pipeline.queue import delivering, open_spool, spool_folder
from recon_node.settings import load_settings

log = logging.getLogger(__name__)

PATIENCE_S = 600.0
"""For a PACS that is away."""
_left_behind: list[subprocess.Popen[bytes]] = []
"""Processes of this one that may still run."""


def deliver_afterwards(spool: Spool) -> None:
    """Leave a process behind that delivers what waits in `spool`; one that works already is enough."""
    if not any(states.get("waiting") for states in spool.counts().values()):
        return
    command = [sys.executable, "-m", "recon_node.online.afterwards"]
    quiet = subprocess.DEVNULL
    _left_behind[:] = [process for process in _left_behind if process.poll() is None]
    try:
        process = subprocess.Popen(  # noqa: S603 - this package's own module
            command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        _left_behind.append(process)
    except OSError as error:
        log.warning("nothing delivers what waits in the spool (%s): `recon-node spool retry` does", error)


def main() -> int:
    """Deliver until nothing waits, or for `PATIENCE_S`."""
    try:
        settings = load_settings().delivery
        with open_spool(settings) as spool:
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until:
                with _alone(spool_folder(settings)) as alone:
                    if not alone:
                        return 0
                    with delivering(spool, settings, hurried=True) as worker:
                        worker.drain(timeout=until - time.monotonic())
                # Whoever queued while this one ended has seen it at work, and left.
                if not any(states.get("waiting") for states in spool.counts().values()):
                    return 0
    except ReconNodeError as error:
        return error.exit_code
    return 1


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other such process works on the folder, which is locked while the block runs."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        else:
            alone = True
        yield alone
    finally:
        os.close(handle)


if __name__ == "__main__":
    raise SystemExit(main())

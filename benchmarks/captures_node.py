"""A node that fails once where a file says so; started by `benchmarks.captures`.

python -m benchmarks.captures_node FOLDER
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recon_node.mrd import session
from recon_node.online.log import setup_logging
from recon_node.online.serve import serving
from recon_node.pipeline import row
from recon_node.settings import Settings

STAGES = (
    "header",
    "prepare",
    "calibrate",
    "reconstruct",
    "judge",
    "write",
    "queue",
    "answer",
    "disk full",
    "kill",
)
"""Where a scan fails; `kill` is SIGKILL while its last slice is reconstructed."""
_CLOCKED = {
    "coils": "calibrate",
    "model": "reconstruct",
    "trust": "judge",
    "dicom": "write",
    "queue": "queue",
}


def settings_in(folder: Path) -> Settings:
    """Of the node, and of whoever looks at its captures."""
    settings = Settings().replace("recon", method="view-sharing", fallback="zero-filled")
    settings = settings.replace(
        "delivery", spool=str(folder / "spool"), to=(str(folder / "pacs"),), reserve_mb=1
    )
    fetch = {"fetch": {"mode": "retrieve"}}
    return settings.replace(
        "server",
        port=0,
        out=str(folder / "dicom"),
        record=str(folder / "captures"),
        deferred=str(folder / "deferred"),
        configurations=fetch,
    )


class Failure:
    """Fails at the stage that the file names, once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def at(self, stage: str) -> None:
        """The scan has come to a stage."""
        with self._lock:
            wanted = self._file.read_text() if self._file.exists() else ""
            full = wanted == "disk full" and stage == "write"
            killed = wanted == "kill" and stage == "reconstruct"
            if not (wanted == stage or full or killed):
                return
            self._file.unlink()
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise RuntimeError(f"injected at {stage}")

    def before(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, unless it is to fail."""

        def failing(*arguments: Any, **named: Any) -> Any:
            self.at(stage)
            return work(*arguments, **named)

        return failing


def install(failure: Failure) -> None:
    """Put the failure in the way of every stage."""
    stopwatch = row.Stopwatch
    clocked = stopwatch.__call__

    def timed(self: Any, stage: str, work: Any, /, *arguments: Any, **named: Any) -> Any:
        failure.at(_CLOCKED.get(stage, stage))
        return clocked(self, stage, work, *arguments, **named)

    stopwatch.__call__ = timed  # type: ignore[method-assign]
    row.prepare = failure.before("prepare", row.prepare)
    session.parse_header = failure.before("header", session.parse_header)
    session.Answering.reply = failure.before("answer", session.Answering.reply)  # type: ignore[method-assign]


def main() -> None:
    """Serve until SIGTERM."""
    folder = Path(sys.argv[1])
    patients = setup_logging("info")
    install(Failure(folder / "inject"))
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with serving(settings_in(folder), patients=patients) as running:
        print(running.server.port, flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()

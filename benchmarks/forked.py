"""Commands of the node, each in a process of its own that is forked from one that has loaded everything.

Starting Python and its libraries takes seconds; thousands of hostile files are tried in minutes this way, and what
one does to its process (a crash, a hang, memory) is seen from outside and ends with it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_WARM = ("recon_node.offline.replay", "recon_node.cli.replay", "rich.progress", "recon_node.lab.evaluation")
_ADDRESS_SPACE = 24 << 30
"""So that a bomb which gets through takes itself down and not the machine."""


@dataclass(frozen=True)
class Ended:
    """How one command ended."""

    code: int | None
    """Exit code; None where a signal ended it."""
    signal: int
    seconds: float
    peak_mb: float
    errors: list[str]
    """Lines on standard error."""

    @property
    def hung(self) -> bool:
        return self.signal == signal.SIGKILL

    @property
    def uncaught(self) -> bool:
        """A traceback, or the end by a signal."""
        return self.code is None or any(line.startswith("Traceback (most recent") for line in self.errors)

    @property
    def clear(self) -> bool:
        """Done, or refused in one line of the node's own."""
        if self.uncaught or self.code not in (0, 1, 2):
            return False
        own = [line for line in self.errors if line.startswith("recon-node: ")]
        return self.code == 0 or (len(own) == 1 and len(own[0]) < 600)


class Forked:
    """Runs commands; one at a time, each in a fork of a warm process.

    Parameters
    ----------
    packages : Path, optional
        Folder with more installed packages.
    """

    def __init__(self, packages: Path | None = None) -> None:
        self._packages = packages

    def __enter__(self) -> Self:
        more = [] if self._packages is None else [str(self._packages)]
        path = os.pathsep.join([*more, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        with self._process:
            self._process.stdin.close()

    def run(self, arguments: Sequence[str], *, limit_s: float = 30.0) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(arguments), limit_s]) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


def _one(arguments: Sequence[str], limit_s: float, warm: object) -> Ended:
    with tempfile.TemporaryFile() as told:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _work(arguments, told.fileno(), warm)
        status, usage = _wait(child, began + limit_s)
        told.seek(0)
        text = told.read(1 << 20).decode(errors="replace")
        ended = os.waitstatus_to_exitcode(status)
        return Ended(
            code=ended if ended >= 0 else None,
            signal=max(0, -ended),
            seconds=time.monotonic() - began,
            peak_mb=usage.ru_maxrss / 1024,
            errors=text.splitlines(),
        )


def _work(arguments: Sequence[str], told: int, run: object) -> None:
    """The child: never returns."""
    os.dup2(told, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        code = run(arguments)  # type: ignore[operator]
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 70
    sys.stderr.flush()
    os._exit(code)


def _wait(child: int, until: float) -> tuple[int, resource.struct_rusage]:
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage
        time.sleep(0.002)


def main() -> None:
    import importlib
    import threading
    import warnings

    from recon_node.cli import run, thread_ended

    threading.excepthook = thread_ended

    for name in _WARM:
        importlib.import_module(name)
    warnings.simplefilter("ignore", DeprecationWarning)
    for line in sys.stdin:
        arguments, limit_s = json.loads(line)
        print(json.dumps(asdict(_one(arguments, limit_s, run))), flush=True)


if __name__ == "__main__":
    main()

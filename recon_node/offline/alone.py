"""A call in a process of its own, for work that processes were killed at: there it shows what is to blame."""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TypeVar

import psutil
from distributed.protocol import pickle as dask_pickle

T = TypeVar("T")
_LOOK_S = 0.1
_BLOCK = 1 << 20


class EndedError(Exception):
    """The process did not survive its work."""


def alone(function: Callable[..., T], *arguments: Any, most_bytes: int = 0) -> T:
    """Call a function in a new process, which ends with this one.

    Parameters
    ----------
    function : callable
        It, its arguments and what it returns have to be picklable.
    most_bytes : int
        Resident memory from which on the process is killed; 0 for no limit.

    Raises
    ------
    EndedError
        The process was killed, or ended by itself.
    Exception
        What `function` raised.
    """
    with subprocess.Popen(  # noqa: S603 - this package's own module
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None  # noqa: S101 - for the type checker
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            with suppress(BrokenPipeError):  # it has ended
                pickle.dump((sys.path, dask_pickle.dumps((function, arguments))), process.stdin)
                process.stdin.flush()  # and kept open: its end is this process's
            answer = _answer(process, process.stdout.fileno(), most_bytes)
        finally:
            process.kill()
        code = process.wait()
    if not answer:
        raise EndedError(f"signal {-code}" if code < 0 else f"exit code {code}")
    ok, found = dask_pickle.loads(answer)
    if not ok:
        raise found
    result: T = found
    return result


def _answer(process: subprocess.Popen[bytes], pipe: int, most_bytes: int) -> bytes:
    """What the process says before it ends; nothing where it was killed for its memory."""
    found = bytearray()
    me = psutil.Process(process.pid)
    while True:
        if select.select([pipe], [], [], _LOOK_S)[0]:
            if not (data := os.read(pipe, _BLOCK)):
                process.wait()
                return bytes(found) if process.returncode == 0 else b""
            found += data
        elif most_bytes and me.memory_info().rss > most_bytes:
            process.kill()


def _until_the_end(pipe: IO[bytes]) -> None:
    pipe.read(1)
    os._exit(1)


def _main() -> None:
    """The other process: what it prints goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        sys.path[:], call = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this
        threading.Thread(target=_until_the_end, args=(sys.stdin.buffer,), daemon=True).start()
        answer: tuple[bool, Any]
        try:
            function, arguments = dask_pickle.loads(call)
            answer = True, function(*arguments)
        except Exception as error:  # noqa: BLE001 - the caller's
            answer = False, error
        out.write(dask_pickle.dumps(answer))
        out.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()

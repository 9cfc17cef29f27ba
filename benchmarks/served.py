"""A node in a process of its own, and what is seen of it from outside: memory, threads, files, its log."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class Served:
    """A long-lived command of the node that listens; ended by `stop`.

    Parameters
    ----------
    folder : Path
        Of everything it writes, and of its log.
    command : sequence of str
        Behind ``python``.
    settings : mapping
        By the environment's names, such as ``SERVER__OUT``.
    """

    def __init__(self, folder: Path, command: Sequence[str], settings: Mapping[str, str]) -> None:
        own = {
            "SERVER__OUT": str(folder / "dicom"),
            "SERVER__RECORD": str(folder / "recorded"),
            "SERVER__DEFERRED": str(folder / "deferred"),
            "DELIVERY__SPOOL": str(folder / "spool"),
        }
        environment = os.environ | {f"RECON_NODE__{name}": value for name, value in (own | settings).items()}
        self.log = folder / "log"
        self._read = 0
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )

    def told(self, pattern: str) -> str:
        """The part in parentheses of the next line that it says.

        Raises
        ------
        SystemExit
            The line is another.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(pattern, line)
        if found is None:
            raise SystemExit(f"the node did not start: {line!r}")
        return found[1]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def usage(self) -> tuple[int, int]:
        """Threads and open files."""
        folder = Path(f"/proc/{self.process.pid}")
        return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))

    def rss_mb(self) -> float:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def forget_peak(self) -> None:
        """Count the peak of memory from now on, where the system lets us."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """Most resident memory since `forget_peak`, else since it started."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", text)
        return int(found[1]) * 1024 / 1e6 if found else 0.0

    def new_log(self) -> str:
        """What it logged since this was asked last."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        self._read += len(data)
        return data.decode(errors="replace")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        if self.process.stdout is not None:
            self.process.stdout.close()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

"""Real programs on loopback ports, each with a folder of its own below the test's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


def need(program: str) -> str:
    """Path of an installed program; in CI it must be there."""
    path = f"/usr/bin/{program}" if Path(f"/usr/bin/{program}").exists() else shutil.which(program)
    path = path or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed, and in CI it must be")
        pytest.skip(f"{program} is not installed")
    return path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the server ended with code {process.returncode} instead of listening")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"the server does not listen on port {port}")


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process while the block lasts."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
        try:
            wait_for_port(port, process)
            yield process
        finally:
            process.kill()  # Orthanc takes 3 s to end by itself, and what it stored is thrown away
            process.wait()


@dataclass
class Orthanc:
    """A running Orthanc."""

    dicom_port: int
    http_port: int
    folder: Path

    @property
    def address(self) -> str:
        return f"dicom://ORTHANC@127.0.0.1:{self.dicom_port}"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.web + path, timeout=10) as answer:
            return bytes(answer.read())

    def instances(self) -> list[str]:
        return list(json.loads(self.get("/instances")))

    def file(self, instance: str) -> bytes:
        return self.get(f"/instances/{instance}/file")


def answers(orthanc: Orthanc) -> bool:
    try:
        return bool(orthanc.get("/system"))
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@dataclass
class Certificates:
    """An authority, and certificates it signed."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

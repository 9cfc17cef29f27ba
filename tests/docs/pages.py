"""The command lines of the documentation, and how they are run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import recon_node
from recon_node.cli import run

ROOT = Path(recon_node.__file__).parents[1]
GENERATED = {"commands.md", "settings.md", "training-settings.md"}
"""Pages that list what there is; they hold synopses, no commands."""
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in GENERATED),
    ROOT / "gadget_configs" / "README.md",
]
PROGRAMS = (
    *("recon-node", "python", "pip", "torchrun", "make", "cat", ".", "docker", "useradd"),
    *("install", "systemctl", "tar", "mkdir", "head", "cyclonedx-py", "kubectl", "/opt/recon-node/bin/pip"),
)
"""First words of what is a command in a block."""

NOT_RUN = {
    "make demo": "the demo: tests/node/test_node_demo.py runs it",
    "make test": "these tests",
    ". .venv/bin/activate": "where these tests run",
    "docker compose": "docker",
    "pip install": "installs: CI does so at its start",
    "useradd": "root",
    "python3 -m venv /opt": "root",
    "/opt/recon-node/bin/pip": "root",
    "install -": "root",
    "systemctl": "root",
    "tar -C": "root",
    "python examples/cluster": "a cluster",
    "kubectl": "a cluster",
    "torchrun": "several processes: tests/lab/training",
    "recon-node train --config": "hours: tests/lab/training runs the command with fewer steps",
    "python -m benchmarks.": "hours",
    "recon-node weights import cardiomm.ckpt": "others' weights: tests/node/test_node_published.py",
    "recon-node replay heart.h5 --out images --weights cardiomm.safetensors": "others' weights",
    "recon-node evaluate --hearts FOLDER": "others' hearts: tests/lab/evaluation",
    "recon-node evaluate trust --hearts FOLDER": "others' hearts: tests/lab/evaluation",
    "recon-node evaluate biomarkers --hearts FOLDER": "others' hearts: tests/lab/biomarkers",
    "recon-node evaluate ablation": "an hour: tests/lab/ablation runs the command with fewer steps",
    "recon-node replay scan.h5 --out images --method sense-denoised": "tests/node/test_node_example.py",
    "recon-node evaluate --methods sense,sense-denoised": "tests/node/test_node_example.py",
}
"""Beginnings of commands that are not run here, and why; a test sees to it that each stands in a page."""
SMALLER = {
    "recon-node simulate": "--slices 2 --phases 6 --matrix 64 --coils 4",
    "recon-node evaluate measured": "--methods sense --patterns random --accelerations 4 --slices 1",
    "recon-node evaluate zero-shot --scans": "--scans 1 --fields 3 --phases 4 --matrix 48 --coils 4 "
    "--no-trust",
    "recon-node evaluate biomarkers --scans": "--methods sense --acceleration 4 --scans 1 --slices 2 "
    "--phases 3 --matrix 48 --coils 4",
    "recon-node evaluate --scans": "--methods zero-filled,sense --patterns random --accelerations 4 "
    "--phases 3 --matrix 48 --coils 4",
}
"""What is put behind a command so that it takes seconds; a smaller scan, the same command."""
SERVERS = {
    "recon-node serve": (9002, signal.SIGTERM),
    "python -m recon_node.gadget": (18000, signal.SIGTERM),
    "recon-node replay inbox": (None, signal.SIGINT),
}
"""Commands that run until they are stopped, by the port that tells that they are there, and how they end."""


class Command(NamedTuple):
    """One command of a page."""

    text: str
    shell: bool
    """Whether it needs a shell: a pipe, a redirection, several lines."""


def commands(page: Path) -> list[Command]:
    """Command lines of a page, top to bottom: indented and fenced blocks, and code in the table of tasks."""
    text = page.read_text(encoding="utf-8")
    found: list[tuple[int, Command]] = []
    for start, block in blocks(text):
        lines = _lines(block)
        if not lines or not all(line.split()[0].startswith(PROGRAMS) for line in lines):
            continue
        if any("() {" in line for line in lines):
            found.append((start, Command("\n".join(lines), shell=True)))
        else:
            found += [(start, Command(line, shell=_needs_shell(line))) for line in lines]
    table = text.find("| I want to | command |")
    if table >= 0:
        end = text.find("\n\n", table)
        for match in re.finditer(r"`([^`\n]+)`", text[table:end]):
            if match[1].split()[0].startswith(PROGRAMS):
                found.append((table + match.start(), Command(match[1], shell=_needs_shell(match[1]))))
    return [command for _, command in sorted(found, key=lambda one: one[0])]


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """Indented blocks and fenced ones of ``sh``, with where they begin."""
    for match in re.finditer(r"(?:(?<=\n\n)|\A)((?: {4}[^\n]*\n(?:\n(?= {4}))?)+)", text):
        if not _in_list(text, match.start()):
            yield match.start(), re.sub(r"^ {4}", "", match[1], flags=re.MULTILINE)
    for match in re.finditer(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield match.start(), match[1]


def _in_list(text: str, start: int) -> bool:
    before = text[:start].rstrip().rpartition("\n")[2]
    return before.startswith(("- ", "  "))


def _lines(block: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", block)
    bare = (re.sub(r"\s+#.*$|^#.*$", "", line).rstrip() for line in joined.splitlines())
    return [line for line in bare if line]


def _needs_shell(line: str) -> bool:
    return not line.startswith("recon-node ") or bool(re.search(r"[|<>;&]", re.sub(r'"[^"]*"', "", line)))


def why_not(text: str) -> str | None:
    """Why a command is not run here; None where it is."""
    return next((reason for start, reason in NOT_RUN.items() if text.startswith(start)), None)


class Session:
    """Runs one page's commands in the current folder, as somebody who follows it would.

    A server goes on until the next one is started, or the page ends: somebody has a second window for it.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._end: signal.Signals = signal.SIGTERM

    def run(self, command: Command) -> None:
        """Run one command; it must end with 0."""
        text = command.text
        for start, more in SMALLER.items():
            if text.startswith(start):
                text = f"{text} {more}"
        for start, (port, end) in SERVERS.items():
            if text.startswith(start):
                self._serve(text, port, end)
                return
        if command.shell:
            bash = ["bash", "-ec", text]
            done = subprocess.run(bash, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        else:
            words = shlex.split(text)[1:]
            limit = time.monotonic() + 60
            while (code := run(words)) and "mode=retrieve" in words and time.monotonic() < limit:
                time.sleep(1.0)  # what was deferred is still being made: the page says to ask again
            assert code == 0, text

    def _serve(self, text: str, port: int | None, end: signal.Signals) -> None:
        self.stop()
        words = [sys.executable, "-m", "recon_node", *shlex.split(text)[1:]]
        if not text.startswith("recon-node"):
            words = [sys.executable, *shlex.split(text)[1:]]
        if port is not None:
            assert not _listens(port), f"port {port} is taken: another program has it"
        self._end = end
        self._server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began, limit = time.time(), time.monotonic() + 120
        while not (_listens(port) if port is not None else _written(Path("images", "summary.json"), began)):
            assert self._server.poll() is None, f"{text}: ended with {self._server.returncode}"
            assert time.monotonic() < limit, f"{text}: not there after two minutes"
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server as a person would, and see that it ends well."""
        if self._server is None:
            return
        self._server.send_signal(self._end)
        code = self._server.wait(60)
        self._server = None
        assert code == (130 if self._end == signal.SIGINT else 0)


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _written(file: Path, since: float) -> bool:
    return file.exists() and file.stat().st_mtime > since


def on_path() -> str:
    """A search path that begins with this environment's programs."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

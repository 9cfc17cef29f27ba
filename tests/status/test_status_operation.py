"""A node as a service: log file, SIGHUP, what systemd hears."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recon_node.core.errors import ConfigError
from recon_node.offline.send import send_scan
from recon_node.online.log import setup_logging
from recon_node.online.logfile import JournalFormatter, is_journal, log_handler
from recon_node.online.retention import mark_not_queued, remove_old
from recon_node.online.serve import serving
from recon_node.settings import LogSettings, Settings

CONFIG = """
[recon]
method = "{method}"
[server]
port = 0
out = "images"
deferred = "deferred"
[log]
level = "{level}"
format = "json"
file = "node.log"
"""


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    logger, own = logging.getLogger(), logging.getLogger("recon_node")
    before = ([*logger.handlers], logger.level, own.level)
    yield logger
    for handler in logger.handlers:
        if handler not in before[0]:
            handler.close()
    logger.handlers[:], logger.level, own.level = before


class Node:
    """A node that serves, in a process of its own; systemd is a socket."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(folder / "notify"))
        self.manager.settimeout(60)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recon_node", "serve", "--config", "node.toml"],
            cwd=folder,
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def configure(self, *, method: str = "sense", level: str = "info", port: int = 0) -> None:
        text = CONFIG.format(method=method, level=level).replace("port = 0", f"port = {port}")
        (self.folder / "node.toml").write_text(text)

    def hears(self, word: str) -> str:
        """What the manager is told that has this word in it."""
        while word not in (told := self.manager.recv(4096).decode()):
            pass
        return told

    def log(self, name: str = "node.log") -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def says(self, words: str, name: str = "node.log", seconds: float = 60.0) -> bool:
        """Whether the log says so in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (self.folder / name).exists() and any(words in line["message"] for line in self.log(name)):
                return True
            time.sleep(0.05)
        return False

    def end(self) -> int:
        self.process.terminate()
        code = self.process.wait(60)
        self.manager.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def test_hang_up_reads_settings_and_opens_the_log_again_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(CONFIG.format(method="sense", level="info"))
    node = Node(tmp_path, WATCHDOG_USEC="400000")
    try:
        assert "takes scans at port" in node.hears("READY=1")
        (tmp_path / "node.log").rename(tmp_path / "node.log.old")
        node.configure(method="kt", level="debug")
        node.process.send_signal(signal.SIGHUP)
        assert node.says("settings read again: [recon] method, [log] level")
        node.configure(method="magic")
        node.process.send_signal(signal.SIGHUP)
        assert node.says("settings are not usable, the former ones stay: ")
        (tmp_path / "node.toml").write_text(
            CONFIG.format(method="kt", level="debug").replace("port = 0", "port = 1")
        )
        node.process.send_signal(signal.SIGHUP)
        assert node.says("these take effect at the next start: [server] port")
        assert node.hears("WATCHDOG") == "WATCHDOG=1"
    finally:
        assert node.end() == 0
    assert stat.S_IMODE((tmp_path / "node.log").stat().st_mode) & 0o007 == 0


def test_the_log_file_is_put_aside_at_its_size_and_private(tmp_path: Path, root: logging.Logger) -> None:
    before = os.umask(0)
    try:
        file = tmp_path / "node.log"
        setup_logging("info", handler=log_handler(LogSettings(file=str(file), max_mb=1, keep=2)))
        for number in range(500):
            logging.getLogger("recon_node.test").info("%d %s", number, "x" * 10_000)
    finally:
        os.umask(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.log", "node.log.1", "node.log.2"]
    for path in tmp_path.iterdir():
        assert path.stat().st_size <= 1 << 20
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_log_file_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[log\] file: .*cannot be written"):
        log_handler(LogSettings(file=str(tmp_path / "absent" / "node.log")))


def test_the_journal_is_told_the_priority_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def line(level: int) -> str:
        record = logging.LogRecord("recon_node", level, "f", 1, "said", None, None)
        return JournalFormatter("text").format(record)

    assert [line(level)[:3] for level in (10, 20, 30, 40)] == ["<7>", "<6>", "<4>", "<3>"]
    with open(os.devnull, "w") as stream:  # noqa: PTH123
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not is_journal(stream)
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_journal(stream)
    assert not is_journal(io.StringIO())


# ---------------------------------------------------------------- images that are kept, and who may read them


def _series(folder: Path, age_h: float, *, name: str = "0001.dcm") -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"x")
    os.utime(folder / name, (time.time() - 3600 * age_h,) * 2)
    return folder


def test_old_series_go_and_what_may_be_the_only_copy_stays(tmp_path: Path) -> None:
    old, fresh = _series(tmp_path / "1.2" / "1.2.3", 30), _series(tmp_path / "1.2" / "1.2.4", 20)
    alone, foreign = (
        _series(tmp_path / "1.5" / "1.5.1", 30),
        _series(tmp_path / "a" / "b", 30, name="thesis.doc"),
    )
    marked = _series(tmp_path / "1.6" / "1.6.1", 30)
    mark_not_queued([marked / "0001.dcm"])
    assert remove_old(tmp_path, 24 * 3600) == 2
    assert not old.exists()
    assert not alone.parent.exists()
    assert all(folder.is_dir() for folder in (fresh, foreign, marked))


def test_a_node_deletes_only_what_it_has_queued(
    scan: Path, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="out_keep_h"):
        settings(out_keep_h=1.0)
    (tmp_path / "share").mkdir()
    flow = {"flow": {"SeriesDescription": "*flow*", "to": str(tmp_path / "share")}}
    made = settings().replace("delivery", routes=flow).replace("server", out_keep_h=1.0)
    with serving(made) as running:
        assert send_scan(scan, port=running.server.port).ok
    assert len(list((tmp_path / "dicom").glob("*/*/.not-queued"))) == 2
    made = settings().replace("delivery", to=(str(tmp_path / "share"),)).replace("server", out_keep_h=1.0)
    with serving(made.replace("server", out=str(tmp_path / "other"))) as running:
        assert send_scan(scan, port=running.server.port).ok
    assert not list((tmp_path / "other").glob("*/*/.not-queued"))


def test_nothing_that_a_node_writes_is_readable_for_others(
    scan: Path, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        to = {"pacs": {"address": "dicom://PACS@127.0.0.1:1"}}
        made = settings(record=str(tmp_path / "recorded")).replace("delivery", destinations=to, to=("pacs",))
        with serving(made) as running:
            assert send_scan(scan, port=running.server.port).ok
            assert send_scan(scan, port=running.server.port, properties={"mode": "deferred"}).ok
    finally:
        os.umask(before)
    written = [
        path for name in ("dicom", "deferred", "spool", "recorded") for path in (tmp_path / name).rglob("*")
    ]
    assert len(written) > 20
    assert {path.relative_to(tmp_path) for path in written if path.stat().st_mode & 0o007} == set()

"""Where log lines go: stderr, the journal of systemd, or a file that is rotated."""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from recon_node.core.durable import FILE_MODE
from recon_node.core.errors import ConfigError
from recon_node.online.log import LineFormatter
from recon_node.settings import LogSettings

_PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Levels and what syslog calls them; below the last it is 7, debug."""


def log_handler(settings: LogSettings) -> logging.Handler:
    """What writes log lines as the settings want them.

    Raises
    ------
    ConfigError
        The file cannot be written to.
    """
    if settings.file is None:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        formatter = JournalFormatter if is_journal(sys.stderr) else LineFormatter
        handler.setFormatter(formatter(settings.format))
        return handler
    handler = LogFile(Path(settings.file), max_bytes=settings.max_mb << 20, keep=settings.keep)
    handler.setFormatter(LineFormatter(settings.format))
    return handler


class LogFile(RotatingFileHandler):
    """A log file for owner and group; at `max_bytes` it becomes ``NAME.1``, and so on up to ``NAME.<keep>``.

    Raises
    ------
    ConfigError
        It cannot be written to.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self._told = False
        try:
            super().__init__(path, maxBytes=max_bytes, backupCount=keep, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"[log] file: {path} cannot be written ({error.strerror or error})") from error

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags, FILE_MODE)

        return open(self.baseFilename, "a", encoding="utf-8", opener=private)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of the base class
        """Say once that lines are lost (a full disk), and go on: the log ends no scan."""
        if not self._told:
            self._told = True
            print(f"recon-node: {self.baseFilename} cannot be written to", file=sys.stderr)  # noqa: T201


class JournalFormatter(LineFormatter):
    """Lines with the priority in front that systemd's journal takes off again."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        priority = next((number for level, number in _PRIORITY if record.levelno >= level), 7)
        return f"<{priority}>{super().format(record)}"


def is_journal(stream: TextIO) -> bool:
    """Whether `stream` is what systemd connected to its journal (``JOURNAL_STREAM``, systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"

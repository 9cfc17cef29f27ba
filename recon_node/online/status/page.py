"""The status page as HTML: whole for a browser that comes, in sections for one that watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from recon_node.core.version import __version__
from recon_node.online.status.board import StatusBoard
from recon_node.online.status.facts import Sources, disks, versions

SECTIONS = ("now", "series", "queue", "machine")
"""Parts that change by themselves; each is an element with this id."""
_FRESH_S = 0.5
"""Several people may watch: what they see is made once in so long."""
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def ago(seconds: float) -> str:
    """A time span as people say it, in its largest unit."""
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


class StatusPage:
    """Renders what board and sources tell; every value is escaped.

    Parameters
    ----------
    board : StatusBoard
    sources : Sources
    clock : callable
        Seconds, steady.
    """

    def __init__(
        self, board: StatusBoard, sources: Sources, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.board = board
        self._sources = sources
        self._clock = clock
        self._lock = threading.Lock()
        self._made: tuple[float, dict[str, str]] | None = None
        self._began = clock()
        self._templates = Environment(
            loader=PackageLoader("recon_node.online.status"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["ago"] = ago
        self._versions = versions(sources.weights)

    def html(self, *, nonce: str, guard: str) -> str:
        """The whole page.

        Parameters
        ----------
        nonce : str
            By which the browser knows the page's own script and style.
        guard : str
            Secret that the page's forms carry, so that no other page can send them.
        """
        template = self._templates.get_template("status.html")
        return template.render(sections=self.sections(guard), nonce=nonce, version=__version__)

    def login(self, *, nonce: str, wrong: bool) -> str:
        """The page that asks for the token."""
        return self._templates.get_template("login.html").render(nonce=nonce, wrong=wrong)

    def sections(self, guard: str) -> dict[str, str]:
        """HTML of each section, by the id of its element."""
        with self._lock:
            now = self._clock()
            if self._made is None or now - self._made[0] >= _FRESH_S:
                facts = self._facts()
                made = {
                    name: self._templates.get_template(f"{name}.html").render(**facts, guard=guard)
                    for name in SECTIONS
                }
                self._made = (now, made)
            return self._made[1]

    def _facts(self) -> dict[str, Any]:
        board, sources = self.board, self._sources
        return {
            "trouble": sources.ready(),
            "running": board.running(),
            "ended": board.ended(),
            "series": board.series(),
            "queue": sources.queue(),
            "deferred": {state: count for state, count in sources.deferred().items() if count},
            "disks": disks(sources.settings),
            "versions": self._versions,
            "up_s": self._clock() - self._began,
            "now": time.time(),
            "steady": time.monotonic(),
        }

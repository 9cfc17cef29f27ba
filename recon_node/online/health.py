"""The loopback port that tells whether the node lives, takes scans and reaches its PACS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qs

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from recon_node.delivery import DestinationStatus
from recon_node.online.http_port import HttpPort, QuietHandler
from recon_node.online.metrics import Metrics

Page = tuple[HTTPStatus, str, bytes]
"""Status, content type, body."""
Pages = Mapping[str, Callable[[str], Page]]
"""By path; called with the query."""
_TEXT = "text/plain; charset=utf-8"


def health_pages(
    metrics: Metrics,
    *,
    ready: Callable[[], str | None],
    destinations: Callable[[], Mapping[str, DestinationStatus]] = dict,
) -> Pages:
    """``/healthz`` (the process runs), ``/readyz`` (it takes scans) and ``/metrics``.

    A PACS that is away does not keep a node from taking scans: ``/readyz`` names it and stays 200;
    ``/readyz?destination=NAME`` is 503 while that one is away.

    Parameters
    ----------
    metrics : Metrics
    ready : callable
        None if the node takes scans, else the reason why not.
    destinations : callable
        What each destination does (`DeliveryWorker.status`).
    """
    return {
        "/healthz": lambda query: (HTTPStatus.OK, _TEXT, b"ok\n"),
        "/readyz": lambda query: _readiness(ready, destinations, query),
        "/metrics": lambda query: (HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics.text()),
    }


def _readiness(
    ready: Callable[[], str | None], destinations: Callable[[], Mapping[str, DestinationStatus]], query: str
) -> Page:
    asked = parse_qs(query).get("destination")
    if asked is not None:
        return _reaches(asked[-1], destinations())
    reason = ready()
    if reason is not None:
        return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{reason}\n".encode()
    lines = ["ready", *(_told(name, one) for name, one in destinations().items())]
    return HTTPStatus.OK, _TEXT, "".join(f"{line}\n" for line in lines).encode()


def _reaches(name: str, destinations: Mapping[str, DestinationStatus]) -> Page:
    if name not in destinations:
        known = ", ".join(destinations) or "none"
        return HTTPStatus.NOT_FOUND, _TEXT, f"no such destination; there are: {known}\n".encode()
    code = HTTPStatus.OK if destinations[name].up else HTTPStatus.SERVICE_UNAVAILABLE
    return code, _TEXT, f"{_told(name, destinations[name])}\n".encode()


def _told(name: str, status: DestinationStatus) -> str:
    return f"destination {name}: {'works' if status.up else f'away ({status.trouble})'}"


class HealthServer(HttpPort):
    """Serves `health_pages` over HTTP, without asking who looks.

    Parameters
    ----------
    pages : mapping
        From `health_pages`.
    host, port : str, int
        Loopback unless set; port 0 takes a free one (see `port`).
    home : str, optional
        Address of the status page, where ``/`` leads.

    Raises
    ------
    ConfigError
        The address cannot be listened on.
    """

    def __init__(
        self, pages: Pages, *, host: str = "127.0.0.1", port: int = 9003, home: str | None = None
    ) -> None:
        class Handler(_Handler):
            pass

        Handler.pages, Handler.home = pages, home
        super().__init__(Handler, name="health", host=host, port=port)


class _Handler(QuietHandler):
    pages: Pages
    home: str | None

    def do_GET(self) -> None:  # noqa: N802 - name of the base class
        """Answer one of the pages; ``/`` leads to the status page, or names them."""
        path, _, query = self.path.partition("?")
        if path == "/":
            self._home()
        elif path in self.pages:
            self._answer(*self.pages[path](query))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _home(self) -> None:
        if self.home is None:
            told = f"{' '.join(self.pages)}; no status page: it needs server.status_port\n"
            self._answer(HTTPStatus.OK, _TEXT, told.encode())
            return
        self.send_response(HTTPStatus.FOUND)
        self.send_header("Location", self.home)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

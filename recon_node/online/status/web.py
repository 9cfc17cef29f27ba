"""The port of the status page: pages, pictures, live events, and the one thing it can be asked to do.

A policy in its head lets the page load nothing from elsewhere; see `access` for who may see it.
"""

from __future__ import annotations

import json
import logging
import secrets
import ssl
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from urllib.parse import parse_qs

from recon_node.core.errors import ReconNodeError
from recon_node.online.health import Pages
from recon_node.online.http_port import HttpPort, QuietHandler
from recon_node.online.status.access import Access
from recon_node.online.status.page import StatusPage

log = logging.getLogger(__name__)

_HTML = "text/html; charset=utf-8"
_EVERY_S = 2.0
"""Events go out so often where nothing happens: times and disks change by themselves."""
_LONGEST_FORM = 4096
_OPEN_PAGES = ("/healthz", "/readyz")
"""Without a token: they tell a probe nothing but yes or no."""


class StatusServer(HttpPort):
    """Serves a `StatusPage` and further pages until the ``with`` block ends.

    Parameters
    ----------
    page : StatusPage
    retry : callable
        Given a destination's name: everything that waits or failed for it is tried again.
    pages : mapping
        More pages by path (``/metrics``); called with the query.
    host, port : str, int
        Loopback unless set; port 0 takes a free one (see `port`).
    token : str, optional
        Asked for: as a password by the page, as ``Authorization: Bearer`` from programs.
    tls : ssl.SSLContext, optional

    Raises
    ------
    ConfigError
        The address cannot be listened on.
    """

    def __init__(
        self,
        page: StatusPage,
        *,
        retry: Callable[[str], object],
        pages: Pages,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        class Handler(_Handler):
            pass

        Handler.status, Handler.retry, Handler.pages = page, staticmethod(retry), pages
        Handler.access = Access(host=host, token=token, secure=tls is not None)
        Handler.stopping = threading.Event()
        self._stopping = Handler.stopping
        super().__init__(Handler, name="status", host=host, port=port, tls=tls)
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}/"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        super().__exit__(kind, error, trace)


class _Handler(QuietHandler):
    status: StatusPage
    retry: Callable[[str], object]
    pages: Pages
    access: Access
    stopping: threading.Event

    def do_GET(self) -> None:  # noqa: N802 - name of the base class
        """Answer a page, a picture or the stream of events."""
        path, _, query = self.path.partition("?")
        if path not in _OPEN_PAGES and not self._allowed():
            return
        if path == "/":
            nonce = secrets.token_urlsafe(16)
            self._send(HTTPStatus.OK, self.status.html(nonce=nonce, guard=self.access.guard), nonce=nonce)
        elif path == "/events":
            self._events()
        elif path in self.pages:
            code, kind, body = self.pages[path](query)
            self._send(code, body, kind=kind)
        elif path.startswith("/picture/"):
            self._picture(path)
        else:
            self._say(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:  # noqa: N802 - name of the base class
        """Take the token, or try a destination again."""
        form = self._form()
        if self.path == "/login" and self.access.token is not None:
            self._login(form.get("token", ""))
        elif self.path != "/retry":
            self._say(HTTPStatus.NOT_FOUND, "no such page")
        elif self._allowed():
            if self.access.is_own_form(form.get("guard", "")):
                self._retry(form.get("destination", ""))
            else:
                self._say(HTTPStatus.FORBIDDEN, "the form is not this page's; load it again")

    def _allowed(self) -> bool:
        """Whether the caller may see this; where not, he has his answer."""
        if self.access.allows(self.headers):
            return True
        if self.access.token is None:
            self._say(HTTPStatus.FORBIDDEN, "asked under a name that is not this machine's")
        else:
            self._ask_for_token(wrong=False)
        return False

    def _login(self, token: str) -> None:
        if not self.access.is_token(token):
            self._ask_for_token(wrong=True)
        else:
            self._home({"Set-Cookie": self.access.cookie(token)})

    def _ask_for_token(self, *, wrong: bool) -> None:
        nonce = secrets.token_urlsafe(16)
        self._send(HTTPStatus.UNAUTHORIZED, self.status.login(nonce=nonce, wrong=wrong), nonce=nonce)

    # ---------------------------------------------------------------- what is answered

    def _form(self) -> dict[str, str]:
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = 0
        if not 0 < length <= _LONGEST_FORM:
            return {}
        fields = parse_qs(self.rfile.read(length).decode("utf-8", "replace"))
        return {name: values[-1] for name, values in fields.items()}

    def _retry(self, destination: str) -> None:
        try:
            self.retry(destination)
        except ReconNodeError as error:
            self._say(HTTPStatus.CONFLICT, str(error))
            return
        log.info("tried again as the status page was asked to", extra={"destination": destination})
        self._home({})

    def _picture(self, path: str) -> None:
        picture = self.status.board.picture(path.removeprefix("/picture/").removesuffix(".png"))
        if picture is None:
            self._say(HTTPStatus.NOT_FOUND, "no longer kept")
        else:
            self._send(HTTPStatus.OK, picture, kind="image/png", keep=True)

    def _events(self) -> None:
        """Server-sent events: every section that changed, as JSON of id to HTML, until the browser leaves."""
        self.send_response(HTTPStatus.OK)
        self._headers("text/event-stream", {"Cache-Control": "no-store", "Connection": "close"})
        self.close_connection = True
        sent: dict[str, str] = {}
        seen = -1
        while not self.stopping.is_set():
            seen = self.status.board.wait(seen, _EVERY_S)
            sections = self.status.sections(self.access.guard)
            changed = {name: html for name, html in sections.items() if sent.get(name) != html}
            sent = dict(sections)
            line = f"data: {json.dumps(changed)}\n\n" if changed else ": nothing new\n\n"
            self.wfile.write(line.encode())
            if self.stopping.wait(0.5):
                return

    def _home(self, more: Mapping[str, str]) -> None:
        self.send_response(HTTPStatus.SEE_OTHER)
        self._headers("text/plain", {"Location": "/", "Content-Length": "0", **more})

    def _say(self, code: HTTPStatus, text: str) -> None:
        self._send(code, f"{text}\n", kind="text/plain; charset=utf-8")

    def _send(
        self,
        code: HTTPStatus,
        body: str | bytes,
        *,
        kind: str = _HTML,
        nonce: str | None = None,
        keep: bool = False,
    ) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(code)
        own = "'none'" if nonce is None else f"'nonce-{nonce}'"
        policy = (
            f"default-src 'none'; img-src 'self' data:; script-src {own}; style-src {own}; "
            "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        more = {"Content-Length": str(len(content)), "Content-Security-Policy": policy}
        more["Cache-Control"] = "private, max-age=3600" if keep else "no-store"
        if code == HTTPStatus.UNAUTHORIZED:
            more["WWW-Authenticate"] = "Bearer"
        self._headers(kind, more)
        self.wfile.write(content)

    def _headers(self, kind: str, more: Mapping[str, str]) -> None:
        told = {"Content-Type": kind, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        for name, value in {**told, **more}.items():
            self.send_header(name, value)
        self.end_headers()

"""Who may see the status page, and ask something of it.

It is read by browsers, so that other pages in them are kept out: the ``Host`` must be this machine's (no
DNS rebinding) unless a token is asked for, and forms carry a secret of the page. Beyond loopback a token or
a client certificate is needed; the settings see to that.
"""

from __future__ import annotations

import hmac
import secrets
from email.message import Message
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from recon_node.settings.kinds import is_loopback

COOKIE = "recon_node_token"
Headers = Message
"""Of a request, as `http.server` gives them."""


class Access:
    """The rules of one port.

    Parameters
    ----------
    host : str
        That the port listens on.
    token : str, optional
        Asked for: as a password by the page, as ``Authorization: Bearer`` from programs.
    secure : bool
        Whether it speaks TLS.
    """

    def __init__(self, *, host: str, token: str | None, secure: bool) -> None:
        self.token = token
        self.guard = secrets.token_urlsafe(24)
        """Secret that the page's forms carry."""
        self._local = is_loopback(host)
        self._secure = secure

    def allows(self, headers: Headers) -> bool:
        """Whether a request with these headers may be answered."""
        if self.token is not None:
            return self.is_token(_bearer(headers)) or self.is_token(_cookie(headers))
        return not self._local or is_loopback(_host(headers))

    def is_token(self, text: str) -> bool:
        """Whether `text` is the token; takes as long for a wrong one."""
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    def is_own_form(self, guard: str) -> bool:
        """Whether a form came from a page of this server."""
        return hmac.compare_digest(guard.encode(), self.guard.encode())

    def cookie(self, token: str) -> str:
        """Value of ``Set-Cookie`` by which a browser shows the token from now on."""
        cookie: SimpleCookie = SimpleCookie({COOKIE: token})
        morsel = cookie[COOKIE]
        morsel["path"], morsel["samesite"], morsel["httponly"] = "/", "Strict", True
        if self._secure:
            morsel["secure"] = True
        return morsel.OutputString()


def _bearer(headers: Headers) -> str:
    kind, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("Cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _host(headers: Headers) -> str:
    try:
        return urlsplit(f"//{headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""

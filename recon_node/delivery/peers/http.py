"""One HTTP request at a time to one origin, with an end to what the answer may cost.

Patient data goes to the origin that the settings name and to no other: a redirect is followed only within
it, a few times, and never from TLS to plain HTTP. What the server says otherwise is told to the person who
can correct the address.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, NewConnectionError

from recon_node.core.errors import DeliveryError, PacsMisconfigured, PacsUnreachable, where_it_failed
from recon_node.delivery.outcome import Unanswered

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD = frozenset({307, 308})
_MOST_HOPS = 3
_CHUNK = 1 << 16
_SHOWN = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAccess:
    """How to prove who we are, and how long to wait."""

    user: str | None = None
    password: str | None = None
    token: str | None = None
    """Bearer token."""
    certificate: str | None = None
    """Client certificate (PEM)."""
    key: str | None = None
    ca: str | None = None
    """Authorities to trust (PEM) in place of the system's."""
    connect_s: float = 10.0
    answer_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    code: int
    kind: str
    """Media type, lower case, without parameters."""
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def retry_after_s(self) -> float:
        """Seconds the server asked to be left alone; 0 where it did not say."""
        text = self.headers.get("Retry-After", "").strip()
        if text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            return 0.0


class HttpPeer:
    """A server at one base URL.

    Parameters
    ----------
    url : str
        Base URL.
    name : str
        What errors call it.
    access : HttpAccess
        Credentials and time limits.
    """

    def __init__(self, url: str, name: str, access: HttpAccess) -> None:
        self.url = url.rstrip("/")
        self.name = name
        self._access = access
        self._session = _session(access)

    def close(self) -> None:
        """Close the connections kept open."""
        self._session.close()

    def get(self, path: str, *, accept: str, limit: int) -> Answer:
        """The answer to GET; see `request`."""
        return self.request("GET", path, headers={"Accept": accept}, limit=limit)

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str], limit: int, body: bytes | None = None
    ) -> Answer:
        """One request and its answer.

        Parameters
        ----------
        method, path : str
            The path begins with a slash and is appended to the base URL.
        headers : mapping
            Besides credentials.
        limit : int
            Bytes of the answer that are read at most.
        body : bytes, optional
            What is sent.

        Raises
        ------
        Unanswered
            Sent, perhaps in part, but no whole answer came.
        PacsUnreachable
            Not sent.
        PacsMisconfigured
            TLS failed, or a redirect that is not followed.
        """
        url = self.url + path
        seen = {url}
        while True:
            answer = self._once(method, url, headers, body, limit)
            if answer.code not in _REDIRECTS:
                return answer
            url = self._redirected(url, answer, method)
            if url in seen or len(seen) > _MOST_HOPS:
                raise PacsMisconfigured(
                    f"{self.name}: redirects in a circle: correct the address, or the server"
                )
            seen.add(url)

    def _redirected(self, url: str, answer: Answer, method: str) -> str:
        """Where to go on.

        Raises
        ------
        PacsMisconfigured
            To another origin, or in a way that drops the body.
        """
        target = urljoin(url, answer.headers.get("Location", ""))
        here, there = urlsplit(url), urlsplit(target)
        shown = there._replace(query="", fragment="", netloc=there.netloc.rpartition("@")[2]).geturl()[
            :_SHOWN
        ]
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise PacsMisconfigured(
                f"{self.name}: redirected to another server, {shown!r} (HTTP {answer.code}): images are not "
                "sent there; if it is the right one, make it the address of this destination"
            )
        if method != "GET" and answer.code not in _KEEPS_METHOD:
            raise PacsMisconfigured(
                f"{self.name}: the service has moved to {shown!r} (HTTP {answer.code}): make that, without "
                "/studies, the address of this destination"
            )
        return target

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, limit: int
    ) -> Answer:
        try:
            response = self._session.request(
                method,
                url,
                headers=dict(headers),
                data=body,
                timeout=(self._access.connect_s, self._access.answer_s),
                allow_redirects=False,
                stream=True,
            )
            with response:
                return self._read(response, limit)
        except requests.RequestException as error:
            raise self._fault(error) from error
        except (HTTPError, OSError) as error:
            raise Unanswered(f"{self.name}: the answer broke off: {_innermost(error)}") from error
        except DeliveryError:
            raise
        except Exception as error:  # of requests and urllib3, about an odd address or answer
            raise Unanswered(f"{self.name}: no valid answer ({where_it_failed(error)})") from error

    def _read(self, response: requests.Response, limit: int) -> Answer:
        end = time.monotonic() + self._access.answer_s
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            body += chunk
            if len(body) > limit:
                raise Unanswered(f"{self.name}: an answer of more than {limit >> 10} KiB is not read")
            if time.monotonic() > end:
                raise Unanswered(f"{self.name}: no whole answer in time")
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return Answer(
            code=int(response.status_code), kind=kind, body=bytes(body), headers=dict(response.headers)
        )

    def _fault(self, error: requests.RequestException) -> DeliveryError:
        if isinstance(error, requests.exceptions.SSLError):
            return PacsMisconfigured(f"{self.name}: TLS failed: {_innermost(error)}")
        if isinstance(error, requests.ConnectTimeout) or _was_refused(error):
            return PacsUnreachable(f"{self.name}: {_innermost(error)}")
        if isinstance(error, requests.Timeout):
            return Unanswered(f"{self.name}: no answer in time")
        if isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            return Unanswered(f"{self.name}: {_innermost(error)}")
        return PacsUnreachable(f"{self.name}: no valid request or answer ({type(error).__name__})")


def _was_refused(error: BaseException) -> bool:
    """Whether the connection never came about."""
    reasons = [getattr(argument, "reason", argument) for argument in error.args]
    return any(isinstance(reason, NewConnectionError) for reason in reasons)


def _session(access: HttpAccess) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers["Accept-Encoding"] = "identity"
    if access.token:
        session.headers["Authorization"] = f"Bearer {access.token}"
    if access.ca:
        session.verify = access.ca
    if access.certificate:
        session.cert = (access.certificate, access.key) if access.key else access.certificate
    if access.user is not None:
        session.auth = (access.user, access.password or "")
    return session


def _innermost(error: BaseException) -> str:
    """Last cause of a chain of exceptions, in words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    text: Any = getattr(error, "strerror", None) or error
    return str(text)[:_SHOWN]

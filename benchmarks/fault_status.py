"""What browsers, scanners of ports and others say to the health and status ports of a live node."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.fault_node import TOKEN, Live, attack, connected, holding, reset, say
from benchmarks.fault_server import EVIL, header, scan, subject
from recon_node.mrd.messages import ConfigFile, close_bytes, message_bytes

_GET = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_BEARER = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
REQUESTS = [
    *(_GET % path for path in (b"/../../etc/passwd", b"//etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/picture/../../x")),
    _GET % (b"/" + b"x" * 70_000),
    _GET % (b"/readyz?destination=" + b"%00" * 5000),
    _GET % b"/readyz?destination=%ff%fe%0d%0aX-Injected:%201",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nAuthorization: Bearer " + b"\xff" * 40 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nCookie: recon_node_token=" + b"\xc3\x28" * 40 + b"\r\n\r\n",
    b"POST /retry HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx=1",
    b"POST /retry HTTP/1.1\r\nContent-Length: -1\r\n\r\nx=1",
    b"POST /login HTTP/1.1\r\nContent-Length: abc\r\n\r\nx=1",
    b"POST /login HTTP/1.1\r\nContent-Length: 40\r\n\r\ntoken=%ff%fe%00",
    b"POST /login HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    b"DELETE / HTTP/1.1\r\n\r\n",
    b"\x00" * 1000,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
]  # fmt: skip
_PORTS: dict[str, Callable[[Live], int]] = {"health": lambda n: n.health, "status": lambda n: n.status}


def page(node: Live, path: str) -> str:
    """A page of the status port, as who knows the token sees it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{node.status}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: bytes = answer.read()
    return content.decode()


def nonsense(name: str, port: Callable[[Live], int]) -> None:
    def act(node: Live) -> int:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda data: say(port(node), data, listen=2.0), REQUESTS))
        return sum(b"root:" in answer or b"\r\nX-Injected" in answer for answer in answers)

    attack(f"{name} port: hostile requests", act, times=len(REQUESTS))


def places(name: str, port: Callable[[Live], int]) -> None:
    attack(
        f"{name} port: 200 that say nothing",
        lambda node: waited(holding(port(node), 200), port(node)),
        times=200,
    )
    attack(
        f"{name} port: 200 that stop within a request",
        lambda node: waited(holding(port(node), 200, [b"GET / HTTP/1.1\r\nHost:"]), port(node)),
        times=200,
    )
    attack(f"{name} port: 64 that drip a request", lambda node: dripping(port(node)), times=64)
    attack(
        f"{name} port: 200 that are reset behind a request",
        lambda node: gone(port(node), _BEARER % b"/metrics"),
        times=200,
    )


def waited(held: contextlib.ExitStack, port: int) -> contextlib.ExitStack:
    answers_within(port, 5.0)
    return held


def answers_within(port: int, seconds: float) -> None:
    """Whoever holds places makes room for a probe.

    Raises
    ------
    OSError
        The probe did not get its answer.
    """
    end = time.monotonic() + seconds
    while b" 200 " not in say(port, _GET % b"/healthz", listen=3.0)[:40]:
        if time.monotonic() > end:
            raise TimeoutError("no answer to a probe")
        time.sleep(0.2)


def dripping(port: int) -> contextlib.ExitStack:
    """A byte of a header's line each half second, for longer than a request may take."""
    stack = contextlib.ExitStack()
    socks = []
    for _ in range(64):
        with contextlib.suppress(OSError):
            socks.append(stack.enter_context(connected(port, 2.0)))
    for byte in b"GET / HTTP/1.1\r\nX-Long: " + b"y" * 20:
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.sendall(bytes([byte]))
        time.sleep(0.3)
        answers_within(port, 5.0)
    return stack


def gone(port: int, data: bytes) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            sock = connected(port, 2.0)
            sock.sendall(data)
            reset(sock)


for _name, _port in _PORTS.items():
    nonsense(_name, _port)
    places(_name, _port)


def scripts(node: Live) -> int:
    """Names with scripts in them, and labels that would end a line of the metrics: how many get through."""
    for evil in EVIL:
        measurement = f"<measurementInformation><protocolName>{evil}</protocolName></measurementInformation>"
        say(node.port, scan(node, subject(node, name=evil, number=evil, more=measurement)), listen=8.0)
        say(
            node.port,
            bytes(message_bytes(ConfigFile(name=evil[:200]))) + header(subject(node)) + close_bytes(),
            listen=3.0,
        )
    html = page(node, "/")
    odd = ("<script>alert", "<img src=x", "{{7*7}}</", "\x1b[")
    metrics = page(node, "/metrics")
    forged = [line for line in metrics.splitlines() if line.startswith("evil") or 'a="1' in line]
    with contextlib.suppress(json.JSONDecodeError):
        return sum(word in html for word in odd) + len(forged)
    return 1


def guessed_tokens(node: Live) -> int:
    """How many of 300 guesses open the page."""

    def guess(number: int) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{node.status}/", headers={"Authorization": f"Bearer {TOKEN[:-1]}{number}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10):
                return 1
        except (urllib.error.URLError, OSError):
            return 0

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(guess, range(300)))


attack("status port: scripts in names of patients and protocols", scripts, times=len(EVIL))
attack("status port: 300 guesses at the token", guessed_tokens, times=300)

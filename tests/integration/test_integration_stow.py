"""STOW-RS to a small server that wants proof, is busy, refuses, or talks nonsense."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from integration_servers import Certificates
from pydicom import dcmread

from recon_node.core.errors import ConfigError, PacsMisconfigured, PacsRejected, PacsUnreachable
from recon_node.delivery import OpenDestination, PacsBusy, open_destination

Files = Callable[[int], list[Path]]


def stored(uid: str) -> dict[str, Any]:
    return {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}}


def failed(reason: int) -> dict[str, Any]:
    return {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}}


class Stow:
    """Answers every STOW request with `code` and `body`, or the truth; keeps the requests' headers."""

    def __init__(self) -> None:
        self.code, self.wait_s = 200, 0.0
        self.body: str | None = None
        self.seen: list[dict[str, str]] = []
        self.port = 0

    @contextlib.contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator[str]:
        stow = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = self.rfile.read(int(self.headers["Content-Length"]))
                sent = dcmread(BytesIO(request.split(b"\r\n\r\n", 1)[1]), stop_before_pixels=True)
                body = stow.body if stow.body is not None else json.dumps(stored(sent.SOPInstanceUID))
                stow.seen.append(dict(self.headers))
                time.sleep(stow.wait_s)
                with contextlib.suppress(OSError):
                    self.send_response(stow.code)
                    self.send_header("Content-Type", "application/dicom+json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}/dicom-web"
        finally:
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def destination(url: str, **options: Any) -> Iterator[OpenDestination]:
    opened = open_destination("web", named={"web": {"address": url, "connect_s": 3, **options}})
    try:
        yield opened
    finally:
        opened.close()


def test_token_and_password_are_sent(mr_files: Files) -> None:
    stow = Stow()
    with stow.running() as url:
        with destination(url, token="abc") as opened:
            opened.send(mr_files(1))
        with destination(url, user="node", password="secret") as opened:
            opened.send(mr_files(1))
    assert [seen["Authorization"][:10] for seen in stow.seen] == ["Bearer abc", "Basic bm9k"]


@pytest.mark.parametrize(
    ("code", "body", "error", "told"),
    [
        (503, "", PacsBusy, "cannot take it now"),
        (401, "", PacsMisconfigured, "log in refused"),
        (404, "", PacsMisconfigured, "no STOW-RS service"),
        (400, "", PacsRejected, "refused the instance"),
        (409, "", PacsRejected, "HTTP 409"),
        (409, json.dumps(failed(0xA900)), PacsRejected, "0xA900"),
        (409, json.dumps(failed(0xA700)), PacsBusy, "out of resources"),
        (202, json.dumps(failed(0xA900)), PacsRejected, "0xA900"),
        (202, json.dumps(failed(0xA700)), PacsBusy, "out of resources"),
        (200, "{}", PacsUnreachable, "does not confirm"),
        (200, "no JSON", PacsUnreachable, "not understood"),
    ],
)
def test_each_answer_has_its_meaning(
    mr_files: Files, code: int, body: str, error: type[Exception], told: str
) -> None:
    stow = Stow()
    stow.code, stow.body = code, body
    with stow.running() as url, destination(url) as opened:
        with pytest.raises(error, match=told):
            opened.send(mr_files(1))
        stow.code, stow.body = 200, None
        opened.send(mr_files(1))


def test_a_server_that_does_not_answer_is_given_up_in_time(mr_files: Files) -> None:
    stow = Stow()
    stow.wait_s = 3.0
    with stow.running() as url, destination(url, answer_s=0.3) as opened:
        with pytest.raises(PacsUnreachable, match="no answer in time"):
            opened.send(mr_files(1))
    with destination(url) as opened, pytest.raises(PacsUnreachable, match="refused"):
        opened.send(mr_files(1))


def test_certificates_are_asked_for_on_both_sides(mr_files: Files, certificates: Certificates) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.ca))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(certificates.server, certificates.server_key)
    ours = {"certificate": str(certificates.client), "key": str(certificates.client_key)}
    with Stow().running(tls) as url:
        with destination(url, ca=str(certificates.ca), **ours) as opened:
            opened.send(mr_files(1))
        with destination(url, **ours) as opened, pytest.raises(PacsMisconfigured, match="TLS failed"):
            opened.send(mr_files(1))
        with destination(url, ca=str(certificates.ca)) as opened:
            with pytest.raises((PacsMisconfigured, PacsUnreachable), match=r"certificate|reset|EOF|closed"):
                opened.send(mr_files(1))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ca": "missing.pem"}, "missing.pem"),
        ({"connect_s": "soon"}, "no number of seconds"),
        ({"key": __file__}, "needs https"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        open_destination("web", named={"web": {"address": "http://host/dicom-web", **options}})

"""A DICOMweb server that tells the truth, or answers as a test wants."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any, Self

from pydicom import dcmread

Answer = tuple[int, dict[str, str], bytes]
DICOM_JSON = {"Content-Type": "application/dicom+json"}


def report(uid: str, *, failed: int | None = None, warning: int | None = None) -> bytes:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if failed is not None:
        item["00081197"] = {"vr": "US", "Value": [failed]}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return json.dumps({"00081199" if failed is None else "00081198": {"vr": "SQ", "Value": [item]}}).encode()


class Web:
    """Stores and shows instances; `answer` may take the place of the answer to a store.

    Parameters
    ----------
    answer : callable
        From the path and the SOP instance UID to status, headers and body; None: store and say so.
    shows : bool
        Whether it answers QIDO-RS.
    """

    def __init__(
        self, answer: Callable[[str, str], Answer | None] = lambda path, uid: None, *, shows: bool = True
    ) -> None:
        self.answer = answer
        self.shows = shows
        self.held: dict[str, bytes] = {}
        self.received: Counter[str] = Counter()
        self.bodies: list[bytes] = []
        self.questions = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": self}))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/dicom-web"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.web.bodies.append(body)
        content = body.split(b"\r\n\r\n", 1)[1].rpartition(b"\r\n--")[0]
        uid = str(dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID)
        self.web.received[uid] += 1
        answer = self.web.answer(self.path, uid)
        if answer is None:
            self.web.held[uid] = content
            answer = 200, DICOM_JSON, report(uid)
        self.tell(answer)

    def do_GET(self) -> None:
        self.web.questions += 1
        if not self.web.shows:
            self.tell((404, {}, b""))
            return
        wanted = self.path.partition("SOPInstanceUID=")[2]
        rows = [{"00080018": {"vr": "UI", "Value": [u]}} for u in self.web.held if wanted in ("", u)]
        self.tell((200, DICOM_JSON, json.dumps(rows).encode()))

    def tell(self, answer: Answer) -> None:
        code, headers, body = answer
        with contextlib.suppress(OSError):
            if code == 0:  # hang up
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()


def http_date(in_s: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + in_s))

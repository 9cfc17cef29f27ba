"""What DICOMweb servers do to a delivery: each goes wrong a few times, then tells the truth."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from delivery_web import DICOM_JSON, Answer, Web, report

from benchmarks.fault_parts import EAGER, KINDS, PATIENCE_S, Verdict, make_files
from recon_node.delivery import DeliveryWorker, Spool, open_destination, read_instance

Fault = Callable[[Web, str], Answer]


def web_kind(name: str, fault: Fault, *, stores: bool = False, times: int = 2) -> None:
    """`stores`: the server keeps the instance although its answer does not say so."""

    def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
        files = make_files(folder / "instances")
        for number in range(1 if short else 6):
            yield through(folder / str(number), files, fault, stores, times + number)

    KINDS.append((f"web: {name}", experiments))


def through(folder: Path, files: list[Path], fault: Fault, stores: bool, times: int) -> Verdict:
    turns = itertools.count()
    web, elsewhere = Web(), Web()

    def answer(path: str, uid: str) -> Answer | None:
        if next(turns) >= times:
            return None
        if stores:
            web.held[uid] = b"stored"
        code, headers, body = fault(web, uid)
        return code, {k: v.replace("ELSEWHERE", str(elsewhere.port)) for k, v in headers.items()}, body

    web.answer = answer
    with web, elsewhere, Spool(folder) as spool:
        address = {"address": web.url, "connect_s": 1, "answer_s": 1}
        worker = DeliveryWorker(
            spool, {"pacs": open_destination("pacs", named={"pacs": address})}, policy=EAGER
        )
        spool.put(files, ["pacs"])
        with worker:
            end = time.monotonic() + PATIENCE_S
            while not worker.drain(timeout=0.2) and time.monotonic() < end:
                pass
            while spool.entries(state="dead") and time.monotonic() < end:  # a person asks for each retry
                spool.retry()
                worker.drain(timeout=PATIENCE_S)
            dead = int(worker.trouble() is not None)
        left = sum(len(spool.entries(state=s)) for s in ("waiting", "stored", "dead"))
    uids = {read_instance(f).uid for f in files}
    twice = sum(web.received.values()) - len(web.received) if stores else 0
    outside = len(elsewhere.bodies)
    return Verdict(times, len(uids - set(web.held)), twice, left, 0, outside, dead)


def plain(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Fault:
    return lambda web, uid: (code, headers or {}, body)


HTML = {"Content-Type": "text/html"}
for _code in (301, 302, 303, 307, 308):
    web_kind(
        f"redirect {_code} to another server", plain(_code, {"Location": "http://localhost:ELSEWHERE/x"})
    )
web_kind("redirect in a circle", plain(307, {"Location": "/dicom-web/studies"}))
web_kind("login page with 200", plain(200, HTML, b"<!DOCTYPE html><html>log in</html>"))
for _code in (400, 401, 403, 404, 413, 429, 500, 502, 503, 504):
    web_kind(f"HTTP {_code}", plain(_code, {"Retry-After": "0"}))
web_kind("hangs up before storing", plain(0))
web_kind("hangs up after storing", plain(0), stores=True)
web_kind("stores, but answers 500", plain(500), stores=True)
web_kind("stores and answers nothing (200)", plain(200), stores=True)
web_kind("stores and answers nothing (204)", plain(204), stores=True)
web_kind("stores nothing and answers nothing (200)", plain(200))
web_kind("accepted for later (202), and forgotten", plain(202))
web_kind("success without storing", lambda web, uid: (200, DICOM_JSON, report(uid)), times=1)
web_kind("success about another instance", plain(200, DICOM_JSON, report("1.2.3")))
web_kind(
    "already stored (409, 0x0111)", lambda w, uid: (409, DICOM_JSON, report(uid, failed=0x0111)), stores=True
)
web_kind(
    "already stored (409, 45070)", lambda w, uid: (409, DICOM_JSON, report(uid, failed=45070)), stores=True
)
web_kind("out of resources (A700)", lambda w, uid: (202, DICOM_JSON, report(uid, failed=0xA700)))
web_kind("refused (C000), then repaired", lambda w, uid: (409, DICOM_JSON, report(uid, failed=0xC000)))
web_kind("answer without end", plain(200, {**DICOM_JSON, "Content-Length": str(1 << 40)}, b"[" * (2 << 20)))
web_kind("answer that is cut", plain(200, {**DICOM_JSON, "Content-Length": "5000"}, b'{"0008'))
web_kind("answer that is noise", plain(200, DICOM_JSON, bytes(range(256)) * 8))
web_kind(
    "answer in XML with entities", plain(200, {"Content-Type": "application/dicom+xml"}, b"<!DOCTYPE x><x/>")
)

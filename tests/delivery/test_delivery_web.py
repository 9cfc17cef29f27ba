"""STOW-RS to servers that redirect, stall, lie or answer with pages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from delivery_web import DICOM_JSON, Answer, Web, http_date, report

from recon_node.core.errors import DeliveryError, PacsMisconfigured, PacsRejected, PacsUnreachable
from recon_node.delivery import (
    DeliveryWorker,
    OpenDestination,
    PacsBusy,
    Policy,
    Spool,
    Unanswered,
    open_destination,
    read_instance,
)

Instances = Callable[..., list[Path]]
LOGIN = b"<!DOCTYPE html><html><body><form action=/login>password</form></body></html>"
XML = (
    '<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00081199" vr="SQ"><Item number="1">'
    '<DicomAttribute tag="00081155" vr="UI"><Value number="1">{}</Value></DicomAttribute>'
    "</Item></DicomAttribute></NativeDicomModel>"
)


@contextlib.contextmanager
def to(web: Web, **options: Any) -> Iterator[OpenDestination]:
    opened = open_destination(
        "web", named={"web": {"address": web.url, "connect_s": 3, "answer_s": 5, **options}}
    )
    try:
        yield opened
    finally:
        opened.close()


def always(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Callable[..., Answer]:
    return lambda path, uid: (code, headers or {}, body)


def test_the_file_arrives_as_it_is(instances: Instances) -> None:
    [file] = instances(1)
    with Web() as web, to(web) as opened:
        opened.send([file])
        assert web.held[read_instance(file).uid] == file.read_bytes()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_server_is_never_followed_with_images(instances: Instances, code: int) -> None:
    with Web() as other:
        location = {"Location": f"http://user:secret@localhost:{other.port}/dicom-web/studies?token=abc"}
        with Web(always(code, location)) as web, to(web, token="abc") as opened:
            with pytest.raises(PacsMisconfigured, match=f"localhost:{other.port}/dicom-web/studies") as told:
                opened.send(instances(1))
        assert not other.bodies
        assert "secret" not in str(told.value)
        assert "token" not in str(told.value)


@pytest.mark.parametrize("code", [301, 302])
def test_a_moved_service_is_named(instances: Instances, code: int) -> None:
    with Web(always(code, {"Location": "/other/studies"})) as web, to(web) as opened:
        with pytest.raises(PacsMisconfigured, match=r"has moved to 'http://127\.0\.0\.1:\d+/other/studies'"):
            opened.send(instances(1))


def test_a_redirect_within_the_server_is_followed(instances: Instances) -> None:
    def answer(path: str, uid: str) -> Answer | None:
        return None if path == "/right/studies" else (307, {"Location": "/right/studies"}, b"")

    with Web(answer) as web, to(web) as opened:
        opened.send(instances(1))
        assert len(web.held) == 1


def test_a_redirect_in_a_circle_is_told(instances: Instances) -> None:
    with Web(always(308, {"Location": "/dicom-web/studies"})) as web, to(web) as opened:
        with pytest.raises(PacsMisconfigured, match="circle"):
            opened.send(instances(1))
        assert len(web.bodies) == 1


def test_an_endless_chain_of_redirects_ends(instances: Instances) -> None:
    def answer(path: str, uid: str) -> Answer:
        return 307, {"Location": path + "x"}, b""

    with Web(answer) as web, to(web) as opened:
        with pytest.raises(PacsMisconfigured, match="circle"):
            opened.send(instances(1))
        assert len(web.bodies) < 6


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/dicom+json"])
def test_a_login_page_is_said_to_be_one_at_once(instances: Instances, kind: str) -> None:
    with Web(always(200, {"Content-Type": kind}, LOGIN)) as web, to(web) as opened:
        with pytest.raises(PacsMisconfigured, match="login page"):
            opened.send(instances(1))


def test_an_answer_about_another_instance_is_no_success(instances: Instances) -> None:
    with Web(always(200, DICOM_JSON, report("1.2.3"))) as web, to(web) as opened:
        with pytest.raises(Unanswered, match="names other instances"):
            opened.send(instances(1))


def test_an_endless_answer_is_not_read(instances: Instances) -> None:
    huge = {"Content-Type": "application/dicom+json", "Content-Length": str(1 << 40)}
    with Web(always(200, huge, b"[" * (3 << 20))) as web, to(web) as opened:
        with pytest.raises(Unanswered, match="more than 1024 KiB"):
            opened.send(instances(1))


def test_a_busy_server_is_left_alone_as_long_as_it_asks(tmp_path: Path, instances: Instances, clock) -> None:
    with Web(always(503, {"Retry-After": "120"})) as web, Spool(tmp_path / "spool", clock=clock) as spool:
        spool.put(instances(1), ["web"])
        opened = open_destination("web", named={"web": {"address": web.url}})
        worker = DeliveryWorker(spool, {"web": opened}, policy=Policy(jitter=0))
        worker.send_once("web")
        clock.advance(119)
        worker.send_once("web")
        assert sum(web.received.values()) == 1
        clock.advance(2)
        worker.send_once("web")
        assert sum(web.received.values()) == 2
        worker.stop()


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("7", 7, 7), ("soon", 0, 0), (http_date(5000), 4000, 5001), ("-5", 0, 0), ("9" * 40, 1e8, 1e9)],
    ids=["seconds", "words", "date", "past", "ages"],
)
def test_the_wait_a_server_asks_for(instances: Instances, value: str, least: float, most: float) -> None:
    with Web(always(429, {"Retry-After": value})) as web, to(web) as opened:
        with pytest.raises(PacsBusy) as told:
            opened.send(instances(1))
    assert least <= told.value.wait_s <= most


def test_no_server_silences_delivery_for_more_than_a_day() -> None:
    import random

    assert Policy(jitter=0).wait_after(PacsBusy("x", wait_s=1e9), 1, random.Random(1)) == 86400.0


def test_a_request_too_large_is_told_apart_from_a_refusal(instances: Instances) -> None:
    with Web(always(413)) as web, to(web) as opened:
        [outcome] = opened.deliver(instances(1))
    assert isinstance(outcome.error, PacsUnreachable)
    assert outcome.error.retryable
    assert "raise its limit" in str(outcome.error)


@pytest.mark.parametrize("reason", [0x0111, 45070])
@pytest.mark.parametrize("code", [200, 202, 409])
def test_already_stored_is_a_success(instances: Instances, code: int, reason: int) -> None:
    def answer(path: str, uid: str) -> Answer:
        return code, DICOM_JSON, report(uid, failed=reason)

    with Web(answer) as web, to(web) as opened:
        [outcome] = opened.deliver(instances(1))
    assert outcome.error is None
    assert "already had" in str(outcome.note)


@pytest.mark.parametrize(("code", "how"), [(200, "empty"), (202, "accepted for later"), (204, "no content")])
def test_an_answer_without_words_counts_only_where_the_instance_is_shown(
    instances: Instances, code: int, how: str
) -> None:
    [file] = instances(1)
    uid = read_instance(file).uid
    with Web(always(code)) as web, to(web) as opened:
        [outcome] = opened.deliver([file])
        assert isinstance(outcome.error, Unanswered)
        assert how in str(outcome.error)
        web.held[uid] = b""
        [outcome] = opened.deliver([file])
        assert outcome.error is None
        assert how in str(outcome.note)
        web.shows = False
        [outcome] = opened.deliver([file])
        assert "cannot be asked" in str(outcome.error)


def test_a_warning_is_a_success_with_a_note(instances: Instances) -> None:
    with Web(lambda path, uid: (202, DICOM_JSON, report(uid, warning=0xB000))) as web, to(web) as opened:
        [outcome] = opened.deliver(instances(1))
    assert outcome.error is None
    assert "0xB000" in str(outcome.note)


def test_a_report_in_xml_is_read(instances: Instances) -> None:
    def answer(path: str, uid: str) -> Answer:
        return 200, {"Content-Type": "application/dicom+xml"}, XML.format(uid).encode()

    with Web(answer) as web, to(web) as opened:
        opened.send(instances(1))


def test_entities_in_xml_are_not_expanded(instances: Instances) -> None:
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    with Web(always(200, {"Content-Type": "application/dicom+xml"}, bomb)) as web, to(web) as opened:
        with pytest.raises(Unanswered, match="not understood"):
            opened.send(instances(1))


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"[[[]]]",
        b'{"00081199": 5}',
        b'{"00081199": {"Value": [7]}}',
        b"\xff\xfe",
        b"{" * 5000,
        b'"x"',
    ],
)
def test_nonsense_is_no_success_and_no_crash(instances: Instances, body: bytes) -> None:
    with Web(always(200, DICOM_JSON, body), shows=False) as web, to(web) as opened:
        with pytest.raises(DeliveryError):
            opened.send(instances(1))


def test_a_connection_cut_before_the_answer_leaves_the_outcome_open(instances: Instances) -> None:
    with Web(always(0)) as web, to(web) as opened:
        [outcome] = opened.deliver(instances(1))
        assert isinstance(outcome.error, Unanswered)
    with to(web) as opened, pytest.raises(PacsUnreachable) as told:
        opened.send(instances(1))
    assert not isinstance(told.value, Unanswered)


def test_a_refusal_names_its_code(instances: Instances) -> None:
    with Web(always(422)) as web, to(web) as opened, pytest.raises(PacsRejected, match="HTTP 422"):
        opened.send(instances(1))


def test_echo_tells_a_page_from_a_service(instances: Instances) -> None:
    with Web() as web, to(web) as opened:
        assert opened.echo() >= 0
        web.shows = False
        with pytest.raises(PacsMisconfigured, match="404"):
            opened.echo()

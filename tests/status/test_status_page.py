"""The status page as a browser and a program see it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import tracemalloc
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import Browser

from recon_node import open_scan, reconstruct
from recon_node.core.errors import ConfigError
from recon_node.delivery import StorageScp
from recon_node.mrd.request import ScanConfig
from recon_node.offline.send import send_scan
from recon_node.online.serve import Running, serving
from recon_node.online.status import StatusBoard, StatusPage
from recon_node.online.status.facts import Sources
from recon_node.pipeline.result import Slice
from recon_node.settings import Settings
from recon_node.settings.weak import weaknesses

Made = Callable[..., Settings]
TOKEN = "correct-horse-battery"


def get(url: str, **headers: str) -> tuple[int, str]:
    """Status and body; ``_`` in a header's name stands for ``-``."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=sent), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def home(running: Running) -> str:
    url = running.ports.status_url
    assert url is not None
    return url


@pytest.mark.real
def test_a_browser_sees_scans_come_live_and_retries_a_pacs(
    scan: Path, settings: Made, browser: Browser, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    pacs = {"pacs": {"address": f"dicom://PACS@127.0.0.1:{port}"}}
    made = settings().replace("delivery", destinations=pacs, to=("pacs",))
    with serving(made) as running:
        browser.open(home(running))
        assert browser.becomes("document.getElementById('link').textContent == 'Live.'")
        assert "None since the start" in browser.value("document.body.innerText")
        assert send_scan(scan, port=running.server.port).ok
        assert browser.becomes("document.querySelectorAll('#series img').length == 2")
        assert browser.becomes(
            "[...document.querySelectorAll('#series img')].every(i => i.naturalWidth == 48)"
        )
        assert browser.becomes("/connection refused/.test(document.getElementById('queue').innerText)")
        assert "away" in browser.value("document.getElementById('queue').innerText")
        with StorageScp(tmp_path / "pacs", port=port, ae_title="PACS") as there:
            browser.value("document.getElementById('retry-1').click()")
            assert browser.becomes("/works/.test(document.getElementById('queue').innerText)")
            assert browser.becomes("!document.getElementById('retry-1')")
            assert len(there.files()) == 6
        paints = json.loads(browser.value("JSON.stringify(performance.getEntriesByType('paint'))"))
        assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints == []
    assert paints


@pytest.mark.real
def test_the_page_fits_a_phone(
    scan: Path, settings: Made, component: Callable[[str], str], tmp_path: Path
) -> None:
    to = str(tmp_path / "a folder with quite a long name for a column")
    made = settings().replace("delivery", to=(to,))
    Path(to).mkdir()
    with serving(made) as running, Browser(component("chromium"), tmp_path / "p", size=(500, 800)) as browser:
        assert send_scan(scan, port=running.server.port).ok
        browser.open(home(running))
        assert browser.value("document.documentElement.scrollWidth") <= 500
    assert browser.complaints == []


def test_a_scan_at_work_is_shown_with_its_progress_and_time_left(
    scan: Path, settings: Made, eventually: Callable[[Callable[[], object]], bool]
) -> None:
    shown, go_on = threading.Event(), threading.Event()

    def hold(done: Slice) -> None:
        shown.set()
        assert go_on.wait(30)

    with serving(settings()) as running:
        running.node.observer = hold
        sender = threading.Thread(target=send_scan, args=(scan,), kwargs={"port": running.server.port})
        sender.start()
        assert shown.wait(30)
        _, text = get(home(running))
        go_on.set()
        sender.join()
        assert '<progress max="2" value="1"' in text
        assert " left" in text
        assert eventually(lambda: "No scan is running." in get(home(running))[1])
        assert '<td class="ok">ok</td><td>6</td>' in get(home(running))[1]


@pytest.mark.parametrize("patients", [False, True])
def test_no_patient_is_named_unless_a_setting_says_so(scan: Path, settings: Made, patients: bool) -> None:
    with serving(settings(status_patients=patients)) as running:
        assert send_scan(scan, port=running.server.port).ok
        _, text = get(home(running))
        assert ("Phantom" in text) is patients


def test_the_health_port_leads_to_the_page_and_its_pages_are_there_too(settings: Made) -> None:
    with serving(settings()) as running:
        status, text = get(f"http://127.0.0.1:{running.health_port}/")
        assert (status, "recon-node status" in text) == (200, True)
        assert get(f"{home(running)}healthz") == (200, "ok\n")
        assert get(f"{home(running)}readyz") == (200, "ready\n")
        assert "recon_node_build_info{" in get(f"{home(running)}metrics")[1]
        assert get(f"{home(running)}picture/nonsense.png")[0] == 404
        assert get(f"{home(running)}etc/passwd")[0] == 404
    with serving(settings(status_port=None)) as running:
        assert "server.status_port" in get(f"http://127.0.0.1:{running.health_port}/")[1]


def test_readiness_tells_a_pacs_that_is_away_from_one_that_works(
    scan: Path, settings: Made, tmp_path: Path, eventually: Callable[[Callable[[], object]], bool]
) -> None:
    (tmp_path / "share").mkdir()
    far = {"far": {"address": "dicom://FAR@127.0.0.1:1"}, "near": {"address": str(tmp_path / "share")}}
    with serving(settings().replace("delivery", destinations=far, to=("far", "near"))) as running:
        health = f"http://127.0.0.1:{running.health_port}/readyz"
        assert send_scan(scan, port=running.server.port).ok
        assert eventually(lambda: get(f"{health}?destination=far")[0] == 503)
        assert get(f"{health}?destination=near") == (200, "destination near: works\n")
        assert get(f"{health}?destination=other")[0] == 404
        status, text = get(health)
    assert status == 200
    assert "destination far: away (" in text


# ---------------------------------------------------------------- who may see it


def test_a_page_of_others_can_neither_read_nor_press(settings: Made) -> None:
    with serving(settings()) as running:
        assert get(home(running), Host="attacker.example")[0] == 403
        form = urllib.parse.urlencode({"destination": "pacs", "guard": "guessed"}).encode()
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(f"{home(running)}retry", data=form, timeout=20)
        refused.value.close()
        with urllib.request.urlopen(home(running), timeout=20) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_token_is_asked_for_and_a_program_and_a_browser_can_give_it(settings: Made) -> None:
    with serving(settings(status_token=TOKEN)) as running:
        url = home(running)
        status, text = get(url)
        assert (status, "Latest series" in text, "Token" in text) == (401, False, True)
        assert get(f"{url}events")[0] == get(f"{url}metrics")[0] == get(f"{url}picture/1.png")[0] == 401
        assert get(f"{url}readyz")[0] == 200
        assert get(url, Authorization="Bearer wrong-horse-battery")[0] == 401
        assert get(f"{url}metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", urllib.parse.urlsplit(url).port, timeout=20)
        connection.request("POST", "/login", body="token=wrong")
        with connection.getresponse() as answer:
            assert answer.status == 401
        connection.request("POST", "/login", body=urllib.parse.urlencode({"token": TOKEN}))
        with connection.getresponse() as answer:
            assert answer.status == 303
            cookie = answer.headers["Set-Cookie"]
        connection.close()
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Latest series" in get(url, Cookie=cookie.partition(";")[0])[1]


def test_beyond_loopback_it_needs_a_token_or_a_client_certificate(settings: Made) -> None:
    with pytest.raises(ConfigError, match=r"status_host.*server.status_token or server.tls_client_ca"):
        settings(status_host="0.0.0.0")
    open_ = settings(status_host="0.0.0.0", status_token=TOKEN)
    assert any("unencrypted" in weak and "status_host" in weak for weak in weaknesses(open_))
    with pytest.raises(ConfigError, match="found 5 characters, allowed 16"):
        settings(status_token="short")
    with pytest.raises(ConfigError, match=r"another port than server\.health_port"):
        settings(health_port=9003, status_port=9003)


# ---------------------------------------------------------------- bounds


def test_a_thousand_scans_leave_no_more_behind_than_a_dozen(scan: Path, settings: Made) -> None:
    result = reconstruct(next(iter(open_scan(scan))), method="zero-filled")
    done = Slice(result=result, seconds={"model": 0.1}, arrived=0.0)
    board = StatusBoard()
    page = StatusPage(board, Sources(settings=settings()))

    def scans(count: int) -> None:
        for number in range(count):
            name = f"scan {number}"
            session = SimpleNamespace(scan_id=name, headers=(result.kspace.header,), config=ScanConfig())
            with board.watch(session, False) as told:
                told(done)
            ended = {"outcome": "ok", "images": 3, "seconds": 1.0}
            board.on_event("finished", {"scan": name, **ended})
        page.sections("guard")

    scans(50)
    tracemalloc.start()
    try:
        scans(1000)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(board.series()) == 24
    assert len(board.ended()) == 12
    assert not board.running()
    assert grown < 2 << 20  # the kept pictures, once


def test_more_watchers_than_places_are_turned_away_and_the_node_goes_on(settings: Made) -> None:
    with serving(settings()) as running:
        port = urllib.parse.urlsplit(home(running)).port
        watching = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(80)]
        try:
            for one in watching:
                one.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(1.0)
            assert get(f"http://127.0.0.1:{running.health_port}/readyz")[0] == 200
            assert sum(b"200 OK" in _first(one) for one in watching) == 64
        finally:
            for one in watching:
                one.close()


def _first(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except OSError:
        return b""

"""The port that PACS report storage commitment to, in front of strangers."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from delivery_parts import make_instance
from delivery_strangers import PACS, listening, report, well

from recon_node.core.errors import ConfigError, PacsMisconfigured, PacsUnreachable
from recon_node.delivery import CommitmentReport, DeliveryWorker, Spool, echo, open_destination
from recon_node.delivery.destinations import open_listener
from recon_node.delivery.peers import acceptor


def test_the_configured_pacs_may_report() -> None:
    with listening() as (port, reports):
        assert well(port)
    assert [r.transaction for r in reports] == ["1.2.3"]


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "RECON-NODE"), ("PACS", "SOMEBODY")])
def test_other_titles_may_not(calling: str, called: str) -> None:
    with listening() as (port, reports):
        assert report(port, calling=calling, called=called) is None
        assert well(port)
    assert len(reports) == 1


def test_other_addresses_may_not() -> None:
    with listening(expected=("dicom://PACS@192.0.2.7:104",)) as (port, reports):
        assert report(port) is None
    assert reports == []


@pytest.mark.parametrize("peers", ["127.0.0.0/8", "192.0.2.1,127.0.0.1", "localhost", "any"])
def test_the_list_may_be_given(peers: str) -> None:
    with listening(f"?peers={peers}&callers=A,B", expected=("dicom://PACS@192.0.2.7:104",)) as (
        port,
        reports,
    ):
        assert report(port, calling="B") == 0
        assert report(port, calling="PACS") is None
    assert len(reports) == 1


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown option colour"), listening("?colour=red"):
        pass


def test_a_huge_pdu_is_not_read() -> None:
    with listening() as (port, _):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for length in (3 << 30, 0xFFFFFFFF, 2 << 20):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.settimeout(10)
                sock.sendall(struct.pack(">BBL", 1, 0, length))
                with contextlib.suppress(OSError):
                    for _ in range(64):
                        sock.sendall(bytes(1 << 20))
        assert well(port)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_garbage_connections_leave_no_threads_and_the_pacs_gets_through() -> None:
    with listening() as (port, _):
        assert well(port)
        before = threading.active_count()
        for number in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(os.urandom(200) if number % 2 else b"GET / HTTP/1.1\r\n\r\n")
        end = time.monotonic() + 20
        while threading.active_count() > before and time.monotonic() < end:
            time.sleep(0.05)
        assert threading.active_count() <= before
        assert well(port)


def test_silent_connections_cost_no_more_than_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "_GREETING_S", 1.0)
    with listening() as (port, _), contextlib.ExitStack() as stack:
        before = threading.active_count()
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        time.sleep(0.3)
        assert threading.active_count() - before <= 2 * 16
        end = time.monotonic() + 20
        while not well(port) and time.monotonic() < end:
            time.sleep(0.1)
        assert well(port)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "node.pem", folder / "node.key"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(words, check=True, capture_output=True)
    return files


def test_silent_tls_connections_hold_up_neither_reports_nor_the_end(certificate: tuple[Path, Path]) -> None:
    pem, key = certificate
    options = f"?certificate={pem}&key={key}"
    with contextlib.ExitStack() as stack:
        with listening(options, scheme="dicoms") as (port, _):
            for _ in range(5):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            start = time.monotonic()
            assert echo(f"dicoms://RECON-NODE@127.0.0.1:{port}?ca={pem}&calling=PACS") > 0
            assert time.monotonic() - start < 8  # the silent ones are waited for 10 s each
            end = time.monotonic()
        assert time.monotonic() - end < 8
    context = ssl.create_default_context(cafile=str(pem))
    assert context.get_ca_certs()


def test_a_plain_caller_at_the_tls_port_is_told(certificate: tuple[Path, Path]) -> None:
    pem, key = certificate
    with listening(f"?certificate={pem}&key={key}", scheme="dicoms") as (port, _):
        with pytest.raises((PacsUnreachable, PacsMisconfigured)):
            echo(f"dicom://RECON-NODE@127.0.0.1:{port}?calling=PACS&associate=2")
        assert echo(f"dicoms://RECON-NODE@127.0.0.1:{port}?ca={pem}&calling=PACS") > 0


@pytest.mark.parametrize("transaction", ["", "looks:1", "1.2.999"])
def test_a_forged_report_delivers_nothing(tmp_path: Path, transaction: str) -> None:
    with Spool(tmp_path / "spool") as spool:
        [entry] = spool.put([make_instance(tmp_path / "1.dcm", 1)], ["pacs"])
        spool.stored(spool.claim("pacs"))
        [stored] = spool.entries()
        if transaction == "":
            spool.ask([stored], "")
        else:
            spool.look_again([stored], 1.0, 1)
        worker = DeliveryWorker(spool, {"pacs": open_destination(PACS)})
        worker.on_report(
            CommitmentReport(transaction=transaction, committed=frozenset([entry.uid]), failed={})
        )
        assert [e.state for e in spool.entries()] == ["stored"]


def test_a_report_that_cannot_be_taken_is_asked_for_again() -> None:
    def fail(_: CommitmentReport) -> None:
        raise ZeroDivisionError

    taken: Callable[[CommitmentReport], None] = fail
    with open_listener("dicom://RECON-NODE@127.0.0.1:0", taken, expected=[PACS]) as listener:
        assert report(listener.port) == 0x0110
        assert report(listener.port) == 0x0110

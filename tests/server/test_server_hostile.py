"""A server among peers that mean it no good: memory, time, places, threads and the log stay bounded."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.errors import SourceError
from recon_node.core.scan import Readouts, Waveform
from recon_node.mrd.frames import WireLimits
from recon_node.mrd.messages import (
    ID,
    Close,
    HeaderXml,
    MessageId,
    Text,
    message_bytes,
)
from recon_node.mrd.server import MrdServer, ServerLimits
from recon_node.mrd.wire import read_messages
from recon_node.offline.send import send_scan
from recon_node.online.log import FloodFilter
from recon_node.pipeline.scan import prepare
from recon_node.settings import PrepSettings

_SHORT = ServerLimits(handshake_seconds=1.0, linger_seconds=0.3, wire=WireLimits(idle_seconds=5.0))
_MIB = 1 << 20


def answers_to(server: MrdServer, *messages: object) -> str:
    """Everything that the server answers, as text."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        sock.settimeout(60)
        with contextlib.suppress(OSError):
            for message in messages:
                sock.sendall(message if isinstance(message, bytes) else bytes(message_bytes(message)))
        return _all_of(sock).decode(errors="replace")


def _all_of(sock: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(OSError):
        while part := sock.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def at_most(mebibytes: int) -> Iterator[None]:
    """The block takes no more memory than that at its peak."""
    peak = Path("/proc/self/clear_refs")
    try:
        peak.write_text("5")
    except OSError:
        pytest.skip("the system does not tell the peak of memory")
    before = _kib("VmRSS")
    yield
    assert (_kib("VmHWM") - before) / 1024 < mebibytes


def _kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def sorting(settings: PrepSettings):
    def handler(session) -> None:
        for _ in prepare(session, settings):
            pass

    return handler


def with_matrix(helpers, size: int) -> str:
    return helpers.header_xml(size, size)


def lines(count: int, *, coils: int, samples: int, flags: int = 0) -> Readouts:
    head = np.zeros(count, ACQUISITION_HEADER)
    head["version"], head["number_of_samples"], head["active_channels"] = 1, samples, coils
    head["idx"]["kspace_encode_step_1"] = np.arange(count)
    head["center_sample"], head["flags"] = samples // 2, flags
    return Readouts(head=head, samples=np.ones((count, coils, samples), np.complex64))


# ---------------------------------------------------------------- memory


def test_thousands_of_encodings_are_refused(serve, scan_file, helpers) -> None:
    server = serve(sorting(PrepSettings()))
    before, encoding, after = _parts(helpers.header_xml())
    with at_most(200):
        answer = answers_to(server, HeaderXml(xml=(before + encoding * 1000 + after).encode()), Close())
    assert "ERR header has 1000 encodings, expected at most 64" in answer
    assert send_scan(scan_file, port=serve().port).ok


def _parts(xml: str) -> tuple[str, str, str]:
    first, last = xml.index("<encoding>"), xml.index("</encoding>") + len("</encoding>")
    return xml[:first], xml[first:last], xml[last:]


def test_a_matrix_out_of_all_proportion_to_what_came_is_refused(serve, helpers) -> None:
    server = serve(sorting(PrepSettings()))
    few = lines(32, coils=16, samples=8192)
    with at_most(700):
        answer = answers_to(server, HeaderXml(xml=with_matrix(helpers, 8192).encode()), few, Close())
    assert "announced" in answer
    assert "ERR" in answer


def test_more_than_a_scan_may_hold_is_refused_by_the_settings_name(serve, helpers) -> None:
    server = serve(sorting(PrepSettings(memory_mb=1)))
    answer = answers_to(
        server,
        HeaderXml(xml=with_matrix(helpers, 512).encode()),
        lines(2, coils=4, samples=512),
        Close(),
    )
    assert "a scan may hold 1 MiB at a time (prep.memory_mb)" in answer


def test_thousands_of_channels_are_refused_before_they_are_taken_in(serve, helpers) -> None:
    server = serve(sorting(PrepSettings()))
    noise = lines(8, coils=4096, samples=64, flags=int(AcquisitionFlag.IS_NOISE_MEASUREMENT))
    with at_most(200):
        answer = answers_to(server, HeaderXml(xml=helpers.header_xml().encode()), noise, Close())
    assert "4096 channels, more than the limit of 512 (server.max_channels)" in answer


def test_waveforms_that_gating_keeps_are_counted(serve, helpers) -> None:
    server = serve(sorting(PrepSettings(gating="retrospective", memory_mb=16)))
    wave = Waveform(waveform_id=0, time_stamp=5, sample_time_us=100.0, data=np.ones((4, 60_000), np.uint32))
    with at_most(200):
        answer = answers_to(server, HeaderXml(xml=helpers.header_xml().encode()), *[wave] * 60, Close())
    assert "prep.memory_mb" in answer


def test_what_no_scanner_sends_is_refused_by_its_id_alone(serve, helpers) -> None:
    server = serve(list)
    huge = ID.pack(MessageId.NDARRAY) + b"\xff" * 64
    answer = answers_to(server, HeaderXml(xml=helpers.header_xml().encode()), huge, Close())
    assert "ERR NDARRAY came, expected ACQUISITION" in answer


def test_messages_that_never_end_share_one_budget_and_give_it_back(serve, scan_file, helpers) -> None:
    limits = replace(_SHORT, handshake_seconds=20.0, buffer_bytes=48 * _MIB)
    server = serve(limits=limits)
    header = bytes(message_bytes(HeaderXml(xml=helpers.header_xml().encode())))
    line = bytes(message_bytes(lines(1, coils=500, samples=8000)))
    seen = []
    with at_most(400), contextlib.ExitStack() as stack:
        for _ in range(6):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            with contextlib.suppress(OSError):
                sock.sendall(header + line[:-1])
            seen.append(sock)
        answers = [_all_of(sock) for sock in seen if _closed_soon(sock)]
    assert any(b"for all connections are in use (server.buffer_mb)" in answer for answer in answers)
    assert helpers.eventually(lambda: server.active == 0)
    assert send_scan(scan_file, port=server.port).ok


def _closed_soon(sock: socket.socket) -> bool:
    sock.settimeout(3)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def test_a_name_as_long_as_a_book_is_cut(serve, helpers) -> None:
    xml = helpers.header_xml().replace("Secret^Patient", "Long^Name " * 25_000)
    names = []
    server = serve(lambda session: names.append(session.headers[0].patient.name))
    answers_to(server, HeaderXml(xml=xml.encode()), Close())
    assert [len(name) for name in names] == [1024]


# ---------------------------------------------------------------- time and places


def test_who_was_told_off_and_stays_makes_room_for_others(serve, scan_file, helpers) -> None:
    server = serve(limits=replace(_SHORT, scans=1, waiting=0, arriving=1, linger_seconds=60.0))
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            sock.settimeout(20)
            sock.sendall(b"nonsense of more than six bytes")
            assert b"ERR" in _all_of(sock)
        assert send_scan(scan_file, port=server.port).ok
        assert server.active <= 2


def test_silence_inside_a_message_is_silence(serve, helpers) -> None:
    wire = WireLimits(idle_seconds=0.5, message_seconds=60.0)
    server = serve(list, limits=replace(_SHORT, wire=wire))
    header = bytes(message_bytes(HeaderXml(xml=helpers.header_xml().encode())))
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        sock.settimeout(30)
        sock.sendall(header + bytes(message_bytes(helpers.some_readouts(1)))[:-1])
        assert b"the peer stopped sending" in _all_of(sock)


def test_texts_before_the_header_hold_no_place(serve, scan_file, helpers) -> None:
    server = serve(limits=replace(_SHORT, scans=1, waiting=1, arriving=4))
    stopping = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError), _connected(server) as sock:
            while not stopping.wait(0.05):
                sock.sendall(message_bytes(Text(text="")))

    threads = [threading.Thread(target=drip) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert helpers.eventually(lambda: server.active == 4)
        assert send_scan(scan_file, port=server.port).ok, "a scan gets through meanwhile"
        assert helpers.eventually(lambda: server.active == 0), "each is given up at its deadline"
    finally:
        stopping.set()
        for thread in threads:
            thread.join(20)


def _connected(server: MrdServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 20)


def test_texts_instead_of_data_are_given_up(serve, helpers) -> None:
    limits = replace(_SHORT, wire=WireLimits(idle_seconds=0.1))
    with _connected(serve(list, limits=limits)) as sock:
        sock.sendall(message_bytes(HeaderXml(xml=helpers.header_xml().encode())))
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 30:
                sock.sendall(message_bytes(Text(text="")))
                time.sleep(0.02)
        assert "given up" in _all_of(sock).decode(errors="replace")


def test_a_peer_that_reads_a_trickle_is_cut_off(serve, helpers) -> None:
    def talkative(session) -> None:
        image = helpers.rss(np.ones((1, 512, 1024), np.complex64), session.headers[0], 0)
        while session.reply(image):
            pass

    limits = replace(_SHORT, send_seconds=0.5, slowest_reader=20e6)
    server = serve(talkative, limits=limits)
    with _connected(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.sendall(message_bytes(HeaderXml(xml=helpers.header_xml(1024, 512).encode())))
        sock.sendall(message_bytes(Close()))
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 60 and sock.recv(10_000):
                time.sleep(0.01)
        assert time.monotonic() - began < 60
    assert helpers.eventually(lambda: server.active == 0)


def test_a_crowd_of_silent_connections_is_turned_away_and_gone_soon(serve, scan_file, helpers) -> None:
    server = serve(limits=replace(_SHORT, arriving=8))
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            with contextlib.suppress(OSError):
                stack.enter_context(_connected(server))
        assert threading.active_count() - before < 150
        assert helpers.eventually(lambda: served(scan_file, server)), "while they are all still connected"


def served(scan_file: Path, server: MrdServer) -> bool:
    """Whether a good scan is served (False where the node is busy, or hangs up before it has a word)."""
    try:
        return send_scan(scan_file, port=server.port).ok
    except SourceError:
        return False


# ---------------------------------------------------------------- threads and memory that are not there


def test_a_connection_for_which_there_is_no_thread_is_closed_and_the_next_is_served(
    serve, scan_file, monkeypatch
) -> None:
    server = serve()
    real, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name == "mrd-connection" and len(refused) < 3:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    for _ in range(3):
        with _connected(server) as sock:
            sock.settimeout(20)
            assert _all_of(sock) == b"", "the client is not left hanging"
    assert send_scan(scan_file, port=server.port).ok
    assert server.accepting


def test_an_answering_thread_that_cannot_start_leaves_no_client_hanging(
    serve, scan_file, monkeypatch, helpers
) -> None:
    server = serve()
    real, refused = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if thread.name == "outbox" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    answers_to(server, HeaderXml(xml=helpers.header_xml().encode()), helpers.some_readouts(16), Close())
    assert helpers.eventually(lambda: server.active == 0)
    assert send_scan(scan_file, port=server.port).ok


def test_a_scan_for_which_there_is_no_memory_is_told_so_and_the_next_is_served(serve, helpers) -> None:
    def handler(session) -> None:
        next(iter(session))
        raise MemoryError

    server = serve({"default": handler, "good": list})
    answer = answers_to(server, HeaderXml(xml=helpers.header_xml().encode()), helpers.some_readouts(2))
    assert "ERR this node is out of memory" in answer
    assert server.accepting


def test_the_accept_loop_comes_back_whatever_it_raised(serve, scan_file, monkeypatch, helpers) -> None:
    server = serve()
    monkeypatch.setattr(server._acceptor, "_take", lambda sock, peer: 1 / 0)
    with _connected(server) as sock:
        assert _all_of(sock) == b""
    assert helpers.eventually(lambda: not server.accepting), "readiness knows"
    monkeypatch.undo()
    assert helpers.eventually(lambda: server.accepting)
    assert send_scan(scan_file, port=server.port).ok
    assert server.thread.failures == 1


# ---------------------------------------------------------------- the log


def test_ten_thousand_texts_are_one_line_of_log(serve, helpers, caplog) -> None:
    text = bytes(message_bytes(Text(text="")))
    with caplog.at_level(logging.INFO):
        answers_to(serve(list), HeaderXml(xml=helpers.header_xml().encode()), text * 10_000, Close())
    assert len([record for record in caplog.records if "ignored" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("<x>24</x>", "<x>MUSTERMANN^MAX</x>"),
        ("cartesian", "MUSTERMANN^MAX"),
        ("<y>16</y>", "<y>MUSTER'MANN^MAX</y>"),
    ],
)
def test_what_an_error_quotes_of_a_header_stays_out_of_the_log(
    serve, helpers, caplog, place: str, value: str
) -> None:
    server = serve(sorting(PrepSettings()))
    xml = helpers.header_xml().replace(place, value, 1)
    with caplog.at_level(logging.DEBUG):
        answer = answers_to(server, HeaderXml(xml=xml.encode()), helpers.some_readouts(1), Close())
        assert helpers.eventually(lambda: server.active == 0)
    assert "ERR" in answer
    assert "MANN" not in caplog.text


def test_a_flood_of_one_kind_of_line_is_cut_and_counted() -> None:
    now = [0.0]
    flood = FloodFilter(3, clock=lambda: now[0])
    passed = [flood.filter(_record("refused: %s", n)) for n in range(10)]
    assert passed == [True] * 3 + [False] * 7
    assert flood.filter(_record("something else"))
    now[0] = 61.0
    late = _record("refused: %s", 11)
    assert flood.filter(late)
    assert late.getMessage() == "refused: 11 (and 7 more in the minute before)"


def _record(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("recon_node", logging.WARNING, "", 0, message, values, None)


def test_answers_are_read_back_as_messages(serve, helpers) -> None:
    answer = answers_to(serve(list), HeaderXml(xml=helpers.header_xml().encode()), Close())
    assert isinstance([*read_messages(memoryview(answer.encode()))][-1], Close)

"""Captures, TLS and fuzzing of the MRD server."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_node.core.errors import ConfigError, SourceError
from recon_node.core.scan import Readouts
from recon_node.core.tls import client_tls, server_tls
from recon_node.files.open import open_source
from recon_node.mrd.captures import Capture, Captures, arriving
from recon_node.mrd.messages import Close, HeaderXml, message_bytes
from recon_node.mrd.server import ServerLimits
from recon_node.offline.send import send_scan
from recon_node.online.serve import echo


def captures(folder: Path) -> list[Capture]:
    return Captures(folder, max_bytes=0).all()


def test_a_recorded_stream_is_read_back_exactly_and_sent_again(
    serve, scan_file: Path, tmp_path: Path, helpers
) -> None:
    server = serve(captures=Captures(tmp_path / "kept", max_bytes=1 << 30, keep_raw=True))
    send_scan(scan_file, port=server.port)
    assert helpers.eventually(lambda: server.active == 0)
    (capture,) = captures(tmp_path / "kept")
    kept = capture.raw
    assert (capture.state, capture.handed, capture.whole) == ("done", True, True)
    assert kept is not None
    assert all(path.stat().st_mode & 0o077 == 0 for path in (capture.folder, *capture.folder.iterdir()))
    with open_source(kept) as recorded, open_source(scan_file) as original:
        assert recorded.headers[0].xml == original.headers[0].xml
        both = [
            np.concatenate([b.samples for b in s if isinstance(b, Readouts)]) for s in (recorded, original)
        ]
    np.testing.assert_array_equal(*both)
    again = send_scan(kept, port=serve().port)
    assert (again.ok, again.images) == (True, 2)


def test_all_that_came_is_on_the_disk_before_an_answer_leaves(
    serve, scan_file: Path, tmp_path: Path, helpers, monkeypatch
) -> None:
    folder = tmp_path / "kept"
    synced: list[int] = []
    sent: list[int] = []
    real = arriving.sync_file

    def watched(file) -> None:
        real(file)
        if Path(f"/proc/self/fd/{file.fileno()}").readlink().name == "scan.mrd.part":
            synced.append(file.tell())

    def handler(session) -> None:
        list(session)
        session.text("done")
        (part,) = folder.glob("*/scan.mrd.part")
        sent.append(part.stat().st_size)

    monkeypatch.setattr(arriving, "sync_file", watched)
    assert send_scan(
        scan_file, port=serve(handler, captures=Captures(folder, max_bytes=1 << 30, keep_raw=True)).port
    ).ok
    assert synced == sent, "once, with every byte that had come"


def test_echo_says_what_came_and_reconstructs_nothing(serve, scan_file: Path) -> None:
    summary = send_scan(scan_file, port=serve(echo).port)
    assert summary.ok
    assert summary.images == 0
    assert any("echo: 32 readouts of 18432 bytes, 0 waveforms" in text for text in summary.texts)


def test_recordings_make_room_by_deleting_the_oldest(serve, scan_file: Path, tmp_path: Path, helpers) -> None:
    folder = tmp_path / "kept"
    server = serve(captures=Captures(folder, max_bytes=70_000, keep_raw=True))
    for _ in range(4):
        assert send_scan(scan_file, port=server.port).ok
        assert helpers.eventually(lambda: server.active == 0)
    assert 1 <= len(captures(folder)) < 4
    assert sum(capture.size for capture in captures(folder)) <= 70_000


def test_a_stream_too_large_to_record_is_still_reconstructed(
    serve, scan_file: Path, tmp_path: Path, helpers
) -> None:
    server = serve(captures=Captures(tmp_path / "kept", max_bytes=10_000))
    assert send_scan(scan_file, port=server.port).ok
    assert helpers.eventually(lambda: server.active == 0)
    (capture,) = captures(tmp_path / "kept")
    assert capture.size <= 10_000
    assert "not all of it was kept" in capture.reason


def test_of_a_broken_stream_all_that_came_is_kept_with_the_reason(serve, tmp_path: Path, helpers) -> None:
    server = serve(captures=Captures(tmp_path / "kept", max_bytes=1 << 20, keep_raw=True))
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        sock.sendall(message_bytes(HeaderXml(xml=helpers.header_xml().encode())))
        sock.sendall(message_bytes(helpers.some_readouts(3)))
    assert helpers.eventually(lambda: [c.state for c in captures(tmp_path / "kept")] == ["failed"])
    (capture,) = captures(tmp_path / "kept")
    assert "ends without a CLOSE" in capture.reason
    assert not capture.whole
    with open_source(capture.raw) as source:
        assert sum(len(block) for block in source) == 3
    assert helpers.eventually(lambda: server.active == 0)


def test_broken_streams_make_room_for_others_and_empty_ones_leave_no_file(
    serve, scan_file: Path, tmp_path: Path, helpers
) -> None:
    folder = tmp_path / "kept"
    server = serve(captures=Captures(folder, max_bytes=70_000, keep_raw=True))
    header = bytes(message_bytes(HeaderXml(xml=helpers.header_xml().encode())))
    for broken in (header * 2, b"") * 40:
        with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
            sock.sendall(broken)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass
    assert helpers.eventually(lambda: server.active == 0)
    assert all(capture.raw.stat().st_size for capture in captures(folder))
    assert send_scan(scan_file, port=server.port).ok
    assert helpers.eventually(lambda: server.active == 0)
    assert [capture.state for capture in captures(folder)].count("done") == 1
    assert sum(capture.size for capture in captures(folder)) <= 70_000


def test_a_folder_that_disappears_ends_the_recording_and_not_the_scan(
    serve, scan_file: Path, tmp_path: Path, helpers
) -> None:
    folder = tmp_path / "kept"
    server = serve(captures=Captures(folder, max_bytes=1 << 20))
    folder.rmdir()
    assert send_scan(scan_file, port=server.port).ok
    folder.mkdir()
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        sock.sendall(message_bytes(HeaderXml(xml=helpers.header_xml().encode())))
        assert helpers.eventually(lambda: [*folder.iterdir()] and captures(folder)[0].raw.stat().st_size)
        shutil.rmtree(folder)
        sock.sendall(message_bytes(Close()))
        sock.settimeout(20)
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    assert answer.endswith(bytes(message_bytes(Close())))


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="received scans cannot be kept"):
        Captures(tmp_path / "file" / "kept", max_bytes=1)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca, server (127.0.0.1) and client certificates, made by openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "3650")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = (
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "3650",
            "-extfile",
            "names",
        )
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return folder


def test_a_scan_travels_over_tls_with_a_client_certificate(
    serve, scan_file: Path, certificates: Path, helpers
) -> None:
    c = certificates
    server = serve(tls=server_tls(c / "server.pem", c / "server.key", client_ca=c / "ca.pem"))
    trusted = client_tls(c / "ca.pem", certificate=c / "client.pem", key=c / "client.key")
    summary = send_scan(scan_file, port=server.port, tls=trusted)
    assert (summary.ok, summary.images) == (True, 2)


@pytest.mark.parametrize("with_tls", [True, False])
def test_a_client_without_certificate_is_not_served(
    serve, scan_file: Path, certificates: Path, with_tls: bool, helpers
) -> None:
    c = certificates
    seen: list = []
    tls = server_tls(c / "server.pem", c / "server.key", client_ca=c / "ca.pem")
    server = serve(seen.append, tls=tls, limits=ServerLimits(handshake_seconds=2.0))
    with pytest.raises(SourceError):
        send_scan(
            scan_file, port=server.port, tls=client_tls(c / "ca.pem") if with_tls else None, timeout=10.0
        )
    assert seen == []


def test_certificates_that_cannot_be_read_are_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        server_tls(tmp_path / "empty.pem", tmp_path / "empty.pem")
    with pytest.raises(ConfigError, match="cannot be used"):
        client_tls(tmp_path / "missing.pem")


def a_stream(helpers) -> bytes:
    parts = (HeaderXml(xml=helpers.header_xml().encode()), helpers.some_readouts(4), Close())
    return b"".join(bytes(message_bytes(part)) for part in parts)


def answer_to(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return sock.makefile("rb").read()
        except OSError:
            return b""


def test_a_stream_cut_anywhere_is_answered_with_err_and_close(serve, scan_file: Path, helpers) -> None:
    server = serve(list, limits=ServerLimits(linger_seconds=0.2))
    stream = a_stream(helpers)
    cuts = [*range(8), *range(8, len(stream), 97), len(stream) - 2, len(stream) - 1]
    for cut in cuts:
        answer = answer_to(server.port, stream[:cut])
        assert answer[6:10] == b"ERR ", cut
        assert answer[-2:] == b"\x04\0", cut
    assert answer_to(server.port, stream) == b"\x04\0"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_stream_with_changed_bytes_never_stops_the_server(serve, helpers, data: st.DataObject) -> None:
    if not hasattr(helpers, "fuzzed"):
        helpers.fuzzed = serve(list, limits=ServerLimits(linger_seconds=0.2))
    stream = bytearray(a_stream(helpers))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    answer = answer_to(helpers.fuzzed.port, bytes(stream))
    assert answer == b"\x04\0" or (b"ERR " in answer[:16] and answer[-2:] == b"\x04\0")
    assert helpers.fuzzed.accepting

"""The programs as a scanner room runs them: `recon-node serve` over TLS, the gadget that keeps running."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

from recon_node.cli import run
from recon_node.core.tls import client_tls
from recon_node.files.open import open_source
from recon_node.mrd.messages import Close, ConfigText, HeaderXml, ImageMessage, message_bytes
from recon_node.mrd.wire import read_messages


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server.pem and client.pem with their keys."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("keys")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = [["req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "3650"]]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650", "-extfile", "names"]
    for name in ("server", "client"):
        made.append(["req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"])
        made.append(["x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed])
    for arguments in made:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=folder)
    return folder


@contextmanager
def program(*arguments: str, log: Path, settings: str = "") -> Iterator[subprocess.Popen[str]]:
    """A Python module of the node as a process."""
    config = log.with_suffix(".toml")
    config.write_text(settings)
    environment = os.environ | {"RECON_NODE_CONFIG": str(config), "PYTHONUNBUFFERED": "1"}
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=environment,
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def halves(raw: Path, first: Sequence[object]) -> tuple[bytes, bytes]:
    """The messages of a scan behind `first`, in two parts of about the same length."""
    with open_source(raw) as source:
        messages = [*first, HeaderXml(xml=source.headers[0].xml), *source, Close()]
    data = b"".join(bytes(message_bytes(message)) for message in messages)
    return data[: len(data) // 2], data[len(data) // 2 :]


def images_of(answer: bytes) -> int:
    return sum(isinstance(m, ImageMessage) for m in read_messages(memoryview(answer), close_optional=True))


def settings_of(folder: Path, keys: Path) -> str:
    return f"""
[recon]
method = "zero-filled"
[log]
format = "json"
[server]
port = 0
out = "{folder}/dicom"
deferred = "{folder}/deferred"
record = "{folder}/recorded"
allowed_peers = ["127.0.0.0/8"]
tls_certificate = "{keys}/server.pem"
tls_key = "{keys}/server.key"
tls_client_ca = "{keys}/ca.pem"
"""


def test_serve_speaks_tls_records_logs_without_patients_and_drains_on_sigterm(
    heart: tuple[Path, Path], keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    with program("recon_node", "serve", log=log, settings=settings_of(tmp_path, keys)) as process:
        assert process.stdout is not None
        port = re.search(r":(\d+),", process.stdout.readline())[1]  # type: ignore[index]
        to = ["send", str(heart[0]), "--port", port, "--timeout", "60"]
        assert run([*to, "--tls-ca", str(keys / "ca.pem")]) == 1  # shows no certificate
        mine = ["--tls-certificate", str(keys / "client.pem"), "--tls-key", str(keys / "client.key")]
        trusted = [*to, "--tls-ca", str(keys / "ca.pem"), *mine]
        assert run([*trusted, "--property", "colour=red"]) == 1
        assert "unknown property 'colour'" in capsys.readouterr().err
        assert run([*trusted, "--property", "method=view-sharing", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["images"] == 16
        first, second = halves(heart[0], [])
        context = client_tls(keys / "ca.pem", certificate=keys / "client.pem", key=keys / "client.key")
        with tls_connection(context, int(port)) as running:
            running.sendall(first)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert refused(int(port))
            running.sendall(second)
            answer = b"".join(iter(lambda: running.recv(1 << 16), b""))
        assert process.wait(60) == 0
    assert images_of(answer) == 16
    told = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert sum(line["message"] == "slice reconstructed" for line in told) == 4
    assert "Phantom" not in log.read_text()
    recorded = sorted((tmp_path / "recorded").glob("*/scan.mrd"))
    assert recorded
    assert run(["replay", str(recorded[0]), "--out", str(tmp_path / "again"), "--method", "zero-filled"]) == 0
    live, again = (uids(tmp_path / name) for name in ("dicom", "again"))
    assert again < live


def uids(folder: Path) -> set[str]:
    return {str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID) for p in folder.rglob("*.dcm")}


@contextmanager
def tls_connection(context: ssl.SSLContext, port: int) -> Iterator[ssl.SSLSocket]:
    with socket.create_connection(("127.0.0.1", port), 30) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
            yield sock


def refused(port: int) -> bool:
    """Whether new connections are refused soon."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_the_gadget_logs_without_patients_and_lets_its_scan_end_on_sigterm(
    heart: tuple[Path, Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    settings = f'[recon]\nmethod = "zero-filled"\n[server]\nout = "{tmp_path}/dicom"\n'
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["recon_node.gadget", str(port), "acquisitions"]
    with program(*command, log=log, settings=settings) as process:
        first, second = halves(heart[0], [ConfigText(text="<configuration/>")])
        with connected(port) as running:
            running.sendall(first)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert refused(port)
            running.sendall(second)
            answer = b"".join(iter(lambda: running.recv(1 << 16), b""))
        assert process.wait(60) == 0
    assert images_of(answer) == 16
    assert "slice reconstructed" in log.read_text()
    assert "Phantom" not in log.read_text()


def connected(port: int) -> socket.socket:
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)

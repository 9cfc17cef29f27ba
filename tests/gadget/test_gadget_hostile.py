"""A listening module and peers that mean it no good, or are merely gone."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from recon_node.core.acquisition import ACQUISITION_HEADER
from recon_node.core.errors import WeightsError
from recon_node.core.scan import Readouts
from recon_node.mrd.gadget_connection import LIMITS
from recon_node.mrd.messages import Close, ConfigText, HeaderXml, MessageId, RemoteError, message_bytes
from recon_node.mrd.wire import FrameReader, read_messages

_HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>8</x><y>4</y><z>1</z></matrixSize>
<fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>8</x><y>4</y><z>1</z></matrixSize>
<fieldOfView_mm><x>1</x><y>1</y><z>1</z></fieldOfView_mm></reconSpace>
<encodingLimits/><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


def _lines(count: int) -> Readouts:
    head = np.zeros(count, ACQUISITION_HEADER)
    head["number_of_samples"], head["active_channels"] = 8, 2
    return Readouts(head=head, samples=np.ones((count, 2, 8), np.complex64))


def _chain(mode: str, *, more: str = "", header: str = _HEADER, lines: int = 500) -> bytes:
    configuration = f'<configuration><property name="mode" value="{mode}"/>{more}</configuration>'
    start = (ConfigText(text=configuration), HeaderXml(xml=header.encode()))
    return b"".join(bytes(message_bytes(m)) for m in (*start, _lines(lines), Close()))


def _passed_on(answer: bytes) -> int:
    return sum(f.count for f in FrameReader(memoryview(answer)) if f.message_id is MessageId.ACQUISITION)


def _refusing(_properties: object) -> None:
    raise WeightsError("weights 'x' are not here")


def _failing(session) -> None:
    next(iter(session))
    raise WeightsError("weights 'x' are damaged")


@pytest.mark.parametrize(
    ("sent", "options"),
    [
        (_chain("both"), {"make_handler": _refusing}),
        (_chain("both"), {"handler": _failing}),
        (_chain("both", more='<property name="methud" value="x"/>'), {}),
        (_chain("both", header="<ismrmrdHeader/>"), {}),
    ],
    ids=["weights missing", "a failure half way", "an unknown property", "a header without encoding"],
)
def test_the_chain_gets_all_of_its_data_where_the_node_refuses_the_scan(
    sent: bytes, options: dict, listening, exchange
) -> None:
    answer = exchange(listening(**options), sent)
    assert _passed_on(answer) == 500
    kinds = [type(message) for message in read_messages(memoryview(answer))]
    assert kinds[-2:] == [RemoteError, Close], "the report comes behind the data"


def test_without_both_nothing_is_passed_on(listening, exchange) -> None:
    assert _passed_on(exchange(listening(make_handler=_refusing), _chain("reconstruct"))) == 0


def test_idle_connections_take_few_threads_and_are_given_up(listening, exchange) -> None:
    limits = dataclasses.replace(LIMITS, handshake_seconds=1.0, linger_seconds=0.2, arriving=40)
    port = listening(limits=limits)
    before = threading.active_count()
    idle = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(200)]
    most = before
    answers = []
    for sock in idle:
        most = max(most, threading.active_count())
        sock.settimeout(30)
    for sock in idle:
        with sock:
            answers.append(_all_of(sock))
    places = limits.scans + limits.waiting + limits.arriving
    assert most - before <= 2 * (places + 32)
    assert any(b"time limit" in answer for answer in answers)
    assert b"recon-node" not in exchange(port, _chain("pass-through"))


def _all_of(sock: socket.socket) -> bytes:
    try:
        return b"".join(iter(lambda: sock.recv(1 << 16), b""))
    except OSError:
        return b""


def test_a_header_that_drips_in_is_given_up_however_busy_the_peer_seems(listening) -> None:
    limits = dataclasses.replace(LIMITS, handshake_seconds=0.8, linger_seconds=0.2)
    with socket.create_connection(("127.0.0.1", listening(limits=limits)), 20) as sock:
        sock.settimeout(20)
        stream, sent = _chain("reconstruct"), 0
        try:
            while sent < len(stream):
                sock.send(stream[sent : sent + 1])
                sent += 1
                time.sleep(0.02)
        except OSError:
            pass
    assert sent < len(stream)


def test_sigterm_ends_a_module_whose_scan_is_silent(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "RECON_NODE__SERVER__DRAIN_S": "0.5"}
    command = [sys.executable, "-m", "recon_node.gadget", str(port), "acquisitions"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as process:
        sock = _connected(port, process)
        with sock:
            sock.sendall(_chain("pass-through")[:-2])  # all but its CLOSE
            assert sock.recv(100)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def _connected(port: int, process: subprocess.Popen[str]) -> socket.socket:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 20)
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the module does not listen")

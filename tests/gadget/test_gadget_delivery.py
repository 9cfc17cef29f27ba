"""What a module queued is delivered once its chain has ended; a PACS that is away keeps no chain waiting."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recon_node.delivery import StorageScp
from recon_node.mrd.messages import Close, ConfigText, ImageMessage, RemoteError, message_bytes
from recon_node.mrd.meta import parse_meta
from recon_node.mrd.wire import read_messages
from recon_node.online.gadget import node_handler
from recon_node.settings import CONFIG_VARIABLE

RECORDED = Path(__file__).parent.parent / "data" / "gadgetron_wire"


def session(**properties: str) -> bytes:
    """A recorded scan with a configuration of the test's own."""
    data = (RECORDED / "acquisitions_to_module.bin").read_bytes()
    children = "".join(f'<property name="{n}" value="{v}"/>' for n, v in properties.items())
    config = ConfigText(text=f'<?xml version="1.0"?>\n<configuration>{children}</configuration>')
    return bytes(message_bytes(config)) + data[6 + int.from_bytes(data[2:6], "little") :]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], object], seconds: float = 300.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a module whose PACS is away; its port stands under ``PACS``."""
    port = free_port()
    (tmp_path / "node.toml").write_text(
        f'[server]\nport = 0\nout = "{tmp_path / "dicom"}"\ndeferred = "{tmp_path / "deferred"}"\n'
        f'[recon]\nmethod = "sense"\n[delivery]\nspool = "{tmp_path / "spool"}"\nto = ["pacs"]\n'
        f'[delivery.destinations.pacs]\naddress = "dicom://EMBEDDED@127.0.0.1:{port}"\n'
    )
    return {**os.environ, CONFIG_VARIABLE: str(tmp_path / "node.toml"), "PACS": str(port)}


@contextmanager
def executed(
    target: str, environment: dict[str, str]
) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """The module as Gadgetron's ``<execute>`` starts it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [sys.executable, "-m", "gadgetron", port, "recon_node.gadget", target]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            listener.settimeout(300)
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(300)
                yield sock, process
            process.communicate(timeout=300)


def answers(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def images_at(folder: Path) -> int:
    return len(list(folder.rglob("*.dcm")))


def test_the_chain_ends_before_anything_is_sent_to_a_pacs(
    environment: dict[str, str], listening, exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, environment[CONFIG_VARIABLE])
    left: list[dict[str, int]] = []
    monkeypatch.setattr(
        "recon_node.online.module.deliver_afterwards", lambda spool: left.append(spool.counts()["pacs"])
    )
    monkeypatch.setattr("recon_node.online.module.delivering", lambda *args, **options: pytest.fail("waits"))
    messages = list(read_messages(memoryview(exchange(listening(make_handler=node_handler), session()))))
    assert [m for m in messages if isinstance(m, RemoteError)] == []
    count = sum(isinstance(message, ImageMessage) for message in messages)
    assert [states["waiting"] for states in left] == [count]


def test_a_module_of_one_scan_leaves_delivery_behind(environment: dict[str, str], tmp_path: Path) -> None:
    with executed("acquisitions", environment) as (sock, process):
        sock.sendall(session())
        messages = list(read_messages(memoryview(answers(sock))))
        assert isinstance(messages[-1], Close)
        count = sum(isinstance(message, ImageMessage) for message in messages)
        assert count
    assert process.returncode == 0
    with StorageScp(tmp_path / "pacs", port=int(environment["PACS"])):
        assert eventually(lambda: images_at(tmp_path / "pacs") == count)


def test_a_module_that_keeps_running_delivers_by_itself(environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "recon_node.gadget", str(port), "acquisitions"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            assert eventually(lambda: _listens(port))
            with socket.create_connection(("127.0.0.1", port), 300) as sock:
                sock.sendall(session())
                messages = list(read_messages(memoryview(answers(sock))))
            count = sum(isinstance(message, ImageMessage) for message in messages)
            assert count
            with StorageScp(tmp_path / "pacs", port=int(environment["PACS"])):
                assert eventually(lambda: images_at(tmp_path / "pacs") == count)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def test_a_misspelt_target_is_reported_with_the_known_ones_and_passes_on_what_it_gets(
    environment: dict[str, str],
) -> None:
    with executed("acquisition", environment) as (sock, _process):
        sock.sendall(session(mode="both"))
        answer = answers(sock)
    messages = list(read_messages(memoryview(answer)))
    (error,) = [message for message in messages if isinstance(message, RemoteError)]
    assert "target is 'acquisition'" in error.text
    assert "acquisitions, buckets, recon_data" in error.text
    assert isinstance(messages[-1], Close)


def test_a_chain_whose_scan_is_refused_gets_quick_images_before_the_error(
    environment: dict[str, str],
) -> None:
    with executed("acquisitions", environment) as (sock, _process):
        sock.sendall(session(method="cardiomm", weights="nowhere"))
        messages = list(read_messages(memoryview(answers(sock))))
    kinds = [type(message) for message in messages]
    assert ImageMessage in kinds
    assert kinds[-2:] == [RemoteError, Close]
    shown = [parse_meta(m.attributes) for m in messages if isinstance(m, ImageMessage)]
    assert {meta["TrustVerdict"][0] for meta in shown} == {"fallback"}
    assert {meta["ReconMethod"][0] for meta in shown} == {"sense"}


def test_names_that_are_no_targets_are_no_attributes_of_the_module() -> None:
    import recon_node.gadget

    with pytest.raises(AttributeError, match="acquisition"):
        _ = recon_node.gadget.acquisition
